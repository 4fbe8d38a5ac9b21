// Softmax and cross-entropy in one kernel.
//
//     loss = -(1/D) sum over n,k of a[n,k] * log p[n,k]
//
//     dlogits[n,j] = (p[n,j] * sum over k of a[n,k] - a[n,j]) / D
//
// a is the targets after smoothing, times the class weights, and 0 in rows that are ignored; D is the
// number of rows that are not, or their classes' summed weights, or 1 where no mean is taken.

#include "../ops.h"
#include "device_step.h"
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

// Which probability of a row is the greatest: the first of equal ones, or the first NaN, as argmax of
// NumPy.
template <typename T>
struct Greatest {
    T value;
    std::int64_t k;
    __device__ void meet(T v, std::int64_t at) {
        const bool mine_is_nan = value != value, other_is_nan = v != v;
        const bool tied = mine_is_nan ? other_is_nan : v == value;
        const bool greater = !mine_is_nan && (other_is_nan || v > value);
        if (greater || (tied && at < k)) *this = {v, at};
    }
};

template <typename T>
__device__ std::int64_t argmax_row(const T* row, std::int64_t K) {
    const std::int64_t lane = threadIdx.x % warp_lanes;
    Greatest<T> best{-T(INFINITY), K};  // K: a lane that has seen none
    for (std::int64_t k = lane; k < K; k += warp_lanes) best.meet(row[k], k);
    for (int lanes = warp_lanes / 2; lanes > 0; lanes /= 2) {
        const T value = __shfl_xor_sync(cuda::whole_warp, best.value, lanes);
        const auto k = __shfl_xor_sync(cuda::whole_warp, best.k, lanes);
        best.meet(value, k);
    }
    return best.k;
}

template <typename T>
__device__ bool is_wrong(const Targets<T>& t, std::int64_t n, std::int64_t K) {
    return t.classes && !is_ignored(t, n) && (t.classes[n] < 0 || t.classes[n] >= K);
}

// What the rows of a block add up to.
struct RowSums {
    double loss, correct;
};

// Adds a step to the tally.  total.loss is the sum over the rows.
template <typename T>
__device__ void add_to_tally(const RowSums& total, double weight, bool wrong, const Targets<T>& t,
                             Tally* tally, std::int64_t N, std::int64_t K) {
    const double loss = double(T(total.loss / weight));
    tally->steps += 1;
    tally->loss = loss;
    tally->correct = total.correct;
    tally->total_loss = cuda::plus(tally->total_loss, cuda::times(loss, double(N)));
    tally->total_correct += total.correct;
    if (!cuda::is_finite(loss) && tally->diverged_step == 0) {
        tally->diverged_step = tally->steps;
        tally->diverged_loss = loss;
    }
    if (wrong && tally->wrong_step == 0) {
        std::int64_t n = 0;
        while (!is_wrong(t, n, K)) ++n;
        tally->wrong_step = tally->steps;
        tally->wrong_label = double(t.classes[n]);
    }
}

// Loss, gradient and right answers in one pass over the rows, whose probabilities stand in dlogits for a
// while.  Each block counts the weights of all rows, as N is small compared to N * K.  Rows with a label
// that is no class count for nothing.  The last block to come adds up what all have left in `partial`, in
// order.
template <typename T>
__global__ void __launch_bounds__(block_threads)
    step_kernel(const T* logits, Targets<T> t, T* dlogits, RowSums* partial, Tally* tally, std::int64_t N,
                std::int64_t K) {
    MINICNN_SHARED(bool, is_last, 1);
    double weight = t.classes ? 0 : double(N), wrong = 0;
    if (t.classes) {
        for (std::int64_t n = threadIdx.x; n < N; n += block_threads) {
            const bool bad = is_wrong(t, n, K);
            weight += bad ? 0 : row_weight(t, n);
            wrong += bad;
        }
        weight = cuda::block_sum(weight);
        wrong = cuda::block_sum(wrong);
    }
    const int lane = threadIdx.x % warp_lanes;
    RowSums sums{0, 0};
    for (std::int64_t n = cuda::row_of_warp(); n < N; n += std::int64_t(gridDim.x) * warp_rows) {
        const T* row = logits + n * K;
        T* probs = dlogits + n * K;
        // Steps 1 to 3, as in loss_kernel.
        const cuda::RowSum<T> softmax = cuda::softmax_row(row, probs, K);
        const T log_sum = log(softmax.sum);
        const bool left_out = is_ignored(t, n) || is_wrong(t, n, K);
        T target_sum = 0;
        for (std::int64_t k = left_out ? K : lane; k < K; k += warp_lanes) {
            const T a = weighted_target(t, n, k, K);
            target_sum += a;
            if (a != T(0)) sums.loss -= double(a) * double(row[k] - softmax.maximum - log_sum);
        }
        target_sum = cuda::warp_sum(target_sum);
        const std::int64_t answer = argmax_row(probs, K);
        const std::int64_t target = t.classes ? t.classes[n] : argmax_row(t.probabilities + n * K, K);
        if (lane == 0) sums.correct += answer == target;
        // Step 4: the gradient: probabilities minus targets.
        for (std::int64_t k = lane; k < K; k += warp_lanes) {
            const T gradient =
                left_out ? T(0) : (probs[k] * target_sum - weighted_target(t, n, k, K)) / T(weight);
            probs[k] = gradient;
        }
    }
    sums.loss = cuda::block_sum(sums.loss);
    sums.correct = cuda::block_sum(sums.correct);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sums;
        __threadfence();
        *is_last = atomicInc(&tally->blocks_done, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!*is_last || threadIdx.x != 0) return;
    __threadfence();
    RowSums total{0, 0};
    for (unsigned i = 0; i < gridDim.x; ++i) {
        total.loss += partial[i].loss;
        total.correct += partial[i].correct;
    }
    add_to_tally(total, weight, wrong > 0, t, tally, N, K);
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

template <typename T>
void cross_entropy_gradient(const T* logits, const Targets<T>& t, T* dlogits, Tally* tally, std::int64_t N,
                            std::int64_t K) {
    const unsigned blocks = blocks_for(N);
    const cuda::Scratch<RowSums> partial(blocks);
    cuda::launch(step_kernel<T>, blocks, block_threads, 0, cuda::current_stream(), logits, t, dlogits,
                 partial.get(), tally, N, K);
}

#define INSTANTIATE(T)                                                                             \
    template void softmax_cross_entropy_forward(const T*, const Targets<T>&, T*, T*, std::int64_t, \
                                                std::int64_t);                                     \
    template void softmax_cross_entropy_backward(const T*, const Targets<T>&, T*, std::int64_t,    \
                                                 std::int64_t);                                    \
    template void cross_entropy_gradient(const T*, const Targets<T>&, T*, Tally*, std::int64_t,    \
                                         std::int64_t)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn
