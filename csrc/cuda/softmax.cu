// Softmax over the classes of each row, a warp a row.

#include "../ops.h"
#include "softmax.h"

namespace minicnn {
namespace {

template <typename T>
__global__ void __launch_bounds__(cuda::block_threads)
    softmax_forward_kernel(const T* x, T* p, std::int64_t N, std::int64_t K) {
    const std::int64_t n = cuda::row_of_warp();
    if (n < N) cuda::softmax_row(x + n * K, p + n * K, K);
}

// dx = p * (dy - sum of dy * p)
template <typename T>
__global__ void __launch_bounds__(cuda::block_threads)
    softmax_backward_kernel(const T* dy, const T* p, T* dx, std::int64_t N, std::int64_t K) {
    const std::int64_t n = cuda::row_of_warp(), first = n * K;
    if (n >= N) return;
    const int lane = threadIdx.x % cuda::warp_lanes;
    T sum = 0;
    for (std::int64_t k = lane; k < K; k += cuda::warp_lanes) sum += dy[first + k] * p[first + k];
    sum = cuda::warp_sum(sum);
    for (std::int64_t k = lane; k < K; k += cuda::warp_lanes)
        dx[first + k] = p[first + k] * (dy[first + k] - sum);
}

unsigned blocks_for(std::int64_t N) {
    return unsigned(cuda::narrow(cuda::ceil_div(N, cuda::warp_rows), "rows of softmax / 8"));
}

}  // namespace

template <typename T>
void softmax_forward(const T* x, T* p, std::int64_t N, std::int64_t K) {
    cuda::launch(softmax_forward_kernel<T>, blocks_for(N), cuda::block_threads, 0, cuda::current_stream(),
                 x, p, N, K);
}

template <typename T>
void softmax_backward(const T* dy, const T* p, T* dx, std::int64_t N, std::int64_t K) {
    cuda::launch(softmax_backward_kernel<T>, blocks_for(N), cuda::block_threads, 0, cuda::current_stream(),
                 dy, p, dx, N, K);
}

template void softmax_forward(const float*, float*, std::int64_t, std::int64_t);
template void softmax_forward(const double*, double*, std::int64_t, std::int64_t);
template void softmax_backward(const float*, const float*, float*, std::int64_t, std::int64_t);
template void softmax_backward(const double*, const double*, double*, std::int64_t, std::int64_t);

}  // namespace minicnn
