// Softmax and cross-entropy in one kernel.
//
//     loss = -(1/D) sum over n,k of a[n,k] * log p[n,k]
//
//     dlogits[n,j] = (p[n,j] * sum over k of a[n,k] - a[n,j]) / D
//
// a is the targets after smoothing, times the class weights, and 0 in rows that are ignored; D is the
// number of rows that are not, or their classes' summed weights, or 1 where no mean is taken.

#include "../ops.h"
#include "softmax.h"

namespace minicnn {
namespace {

using cuda::block_threads, cuda::warp_lanes, cuda::warp_rows;

template <typename T>
__device__ T weighted_target(const Targets<T>& t, std::int64_t n, std::int64_t k, std::int64_t K) {
    T target = t.classes ? T(t.classes[n] == k) : t.probabilities[n * K + k];
    if (t.label_smoothing != 0) {
        target = target * T(1 - t.label_smoothing) + T(t.label_smoothing / double(K));
    }
    return t.class_weight ? target * t.class_weight[k] : target;
}

template <typename T>
__device__ bool is_ignored(const Targets<T>& t, std::int64_t n) {
    return t.classes && t.classes[n] == t.ignore_index;
}

// What row n adds to D.
template <typename T>
__device__ double row_weight(const Targets<T>& t, std::int64_t n) {
    if (is_ignored(t, n)) return 0.0;
    return t.classes && t.class_weight ? double(t.class_weight[t.classes[n]]) : 1.0;
}

struct Mean {
    double loss, weight;
};

// Each block leaves the sums of its rows in partial[block]; the last block to come adds them up in order.
template <typename T>
__global__ void __launch_bounds__(block_threads)
    loss_kernel(const T* logits, Targets<T> t, T* loss, T* probs, Mean* partial, unsigned* blocks_done,
                std::int64_t N, std::int64_t K) {
    MINICNN_SHARED(bool, is_last, 1);
    const int lane = threadIdx.x % warp_lanes;
    double loss_sum = 0, weight_sum = 0;
    for (std::int64_t n = cuda::row_of_warp(); n < N; n += std::int64_t(gridDim.x) * warp_rows) {
        const T* row = logits + n * K;
        // Step 1: subtract the largest logit, so that no power overflows.
        const cuda::RowSum<T> softmax = cuda::softmax_row(row, probs + n * K, K);
        // Step 2: take the logarithm of the sum of the powers.
        const T log_sum = log(softmax.sum);
        double row_loss = 0;
        for (std::int64_t k = is_ignored(t, n) ? K : lane; k < K; k += warp_lanes) {
            // Step 3: add up the loss of the targets.
            // a class that is no target adds nothing, even if its probability is 0 and its logarithm
            // infinite
            const T a = weighted_target(t, n, k, K);
            if (a != T(0)) row_loss -= double(a) * double(row[k] - softmax.maximum - log_sum);
        }
        if (t.reduction == Reduction::none) {
            row_loss = cuda::warp_sum(row_loss);
            if (lane == 0) loss[n] = T(row_loss);
        }
        loss_sum += row_loss;
        if (lane == 0) weight_sum += row_weight(t, n);
    }
    if (t.reduction == Reduction::none) return;
    loss_sum = cuda::block_sum(loss_sum);
    weight_sum = cuda::block_sum(weight_sum);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = {loss_sum, weight_sum};
        __threadfence();
        *is_last = atomicInc(blocks_done, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!*is_last || threadIdx.x != 0) return;
    __threadfence();
    Mean total{0, 0};
    for (unsigned i = 0; i < gridDim.x; ++i) {
        total.loss += partial[i].loss;
        total.weight += partial[i].weight;
    }
    *loss = T(t.reduction == Reduction::mean ? total.loss / total.weight : total.loss);
}

template <typename T>
__global__ void __launch_bounds__(block_threads)
    gradient_kernel(const T* probs, Targets<T> t, T* dlogits, std::int64_t N, std::int64_t K) {
    double weight = t.reduction == Reduction::mean ? double(N) : 1.0;
    if (t.classes &&
        t.reduction == Reduction::mean) {  // every block adds them all up: N is small compared to N * K
        weight = 0;
        for (std::int64_t n = threadIdx.x; n < N; n += block_threads) weight += row_weight(t, n);
        weight = cuda::block_sum(weight);
    }
    const int lane = threadIdx.x % warp_lanes;
    for (std::int64_t n = cuda::row_of_warp(); n < N; n += std::int64_t(gridDim.x) * warp_rows) {
        const bool ignored = is_ignored(t, n);
        T sum = 0;
        for (std::int64_t k = lane; k < K; k += warp_lanes) sum += weighted_target(t, n, k, K);
        sum = cuda::warp_sum(sum);
        for (std::int64_t k = lane; k < K; k += warp_lanes) {
            // Step 4: the gradient: probabilities minus targets.
            const T gradient = (probs[n * K + k] * sum - weighted_target(t, n, k, K)) / T(weight);
            dlogits[n * K + k] = ignored ? T(0) : gradient;
        }
    }
}

unsigned blocks_for(std::int64_t N) {
    return unsigned(std::clamp<std::int64_t>(cuda::ceil_div(N, warp_rows), 1, 512));
}

}  // namespace

template <typename T>
void softmax_cross_entropy_forward(const T* logits, const Targets<T>& t, T* loss, T* probs, std::int64_t N,
                                   std::int64_t K) {
    const unsigned blocks = blocks_for(N);
    const cuda::Scratch<Mean> partial(blocks);
    const cuda::Scratch<unsigned> blocks_done(1);
    cuda::check(cudaMemsetAsync(blocks_done.get(), 0, sizeof(unsigned), cuda::current_stream()),
                "CUDA memset");
    cuda::launch(loss_kernel<T>, blocks, block_threads, 0, cuda::current_stream(), logits, t, loss, probs,
                 partial.get(), blocks_done.get(), N, K);
}

template <typename T>
void softmax_cross_entropy_backward(const T* probs, const Targets<T>& t, T* dlogits, std::int64_t N,
                                    std::int64_t K) {
    cuda::launch(gradient_kernel<T>, blocks_for(N), block_threads, 0, cuda::current_stream(), probs, t,
                 dlogits, N, K);
}

#define INSTANTIATE(T)                                                                             \
    template void softmax_cross_entropy_forward(const T*, const Targets<T>&, T*, T*, std::int64_t, \
                                                std::int64_t);                                     \
    template void softmax_cross_entropy_backward(const T*, const Targets<T>&, T*, std::int64_t,    \
                                                 std::int64_t)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn
