// The softmax of one row, computed by one warp.  The kernels of softmax and of the loss both use it.
#pragma once

#include <cmath>

#include "core/reduce.h"

namespace minicnn::cuda {

constexpr int warp_rows = block_threads / warp_lanes;  // how many rows a block computes at once, one a warp

// The first row that this thread's warp computes.
__device__ __forceinline__ std::int64_t row_of_warp() {
    return std::int64_t(blockIdx.x) * warp_rows + threadIdx.x / warp_lanes;
}

// The row's maximum, and the sum of exp(x - maximum).
template <typename T>
struct RowSum {
    T maximum, sum;
};

// p = exp(x - max x) / sum.  If x contains a NaN or +inf, or only -inf, every p is NaN, as in torch.
template <typename T>
__device__ RowSum<T> softmax_row(const T* x, T* p, std::int64_t K) {
    const int lane = threadIdx.x % warp_lanes;
    T maximum = -T(INFINITY);
    for (std::int64_t k = lane; k < K; k += warp_lanes) maximum = x[k] > maximum ? x[k] : maximum;
    maximum = warp_max(maximum);
    T sum = 0;
    for (std::int64_t k = lane; k < K; k += warp_lanes) sum += p[k] = exp(x[k] - maximum);
    sum = warp_sum(sum);
    for (std::int64_t k = lane; k < K; k += warp_lanes) p[k] /= sum;
    return {maximum, sum};
}

}  // namespace minicnn::cuda
