// The CUDA kernels: a thread for each element.  nvcc builds them for a GPU.  With csrc/cuda_emulation in
// front of the include path the host's compiler builds the same file for the CPU.

#include "cuda/core/launch.h"
#include "hard_swish.h"

namespace minicnn {
namespace {

constexpr unsigned block_threads = 256;

__device__ std::int64_t element() { return std::int64_t(blockIdx.x) * block_threads + threadIdx.x; }

template <typename T>
__global__ void forward_kernel(const T* x, T* y, std::int64_t size) {
    const std::int64_t i = element();
    if (i >= size) return;
    const T gate = x[i] + 3;
    y[i] = x[i] * (gate < 0 ? T(0) : gate > 6 ? T(6) : gate) / 6;
}

template <typename T>
__global__ void backward_kernel(const T* dy, const T* x, T* dx, std::int64_t size) {
    const std::int64_t i = element();
    if (i >= size) return;
    const T slope = x[i] <= -3 ? T(0) : x[i] >= 3 ? T(1) : (2 * x[i] + 3) / 6;
    dx[i] = dy[i] * slope;
}

unsigned blocks_for(std::int64_t size) { return unsigned((size + block_threads - 1) / block_threads); }

}  // namespace

// A kernel of the library would run in cuda::current_stream(), where nullptr stands here.
template <typename T>
void hard_swish_forward(const T* x, T* y, std::int64_t size) {
    cuda::launch(forward_kernel<T>, blocks_for(size), block_threads, 0, nullptr, x, y, size);
}

template <typename T>
void hard_swish_backward(const T* dy, const T* x, T* dx, std::int64_t size) {
    cuda::launch(backward_kernel<T>, blocks_for(size), block_threads, 0, nullptr, dy, x, dx, size);
}

template void hard_swish_forward(const float*, float*, std::int64_t);
template void hard_swish_forward(const double*, double*, std::int64_t);
template void hard_swish_backward(const float*, const float*, float*, std::int64_t);
template void hard_swish_backward(const double*, const double*, double*, std::int64_t);

}  // namespace minicnn
