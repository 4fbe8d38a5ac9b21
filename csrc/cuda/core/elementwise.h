// ReLU and its gradient, and loops over the elements of arrays.
#pragma once

#include <algorithm>
#include <cstdint>

#include "arithmetic.h"
#include "launch.h"
#include "vector.h"

namespace minicnn::cuda {

template <typename T>
__device__ __forceinline__ T relu(T x) {
    return x <= T(0) ? T(0) : x;  // NaN stays
}

// The gradient before a ReLU whose output is y: dy where the output is positive or NaN, and 0 elsewhere.
template <typename T>
__device__ __forceinline__ T relu_gradient(T y, T dy) {
    return y <= T(0) ? T(0) : dy;
}

// ---- loops over elements ---------------------------------------------------------------------------

constexpr int block_threads = 256;

template <int V, typename F>
__global__ void __launch_bounds__(block_threads, 1) for_each_kernel(F f, std::int64_t count) {
    const std::int64_t step = std::int64_t(gridDim.x) * block_threads;
    for (std::int64_t i = std::int64_t(blockIdx.x) * block_threads + threadIdx.x; i < count; i += step) {
        f.template at<V>(i * V);
    }
}

// Calls f.at<V>(i) for every V-th i in [0, size).  V is the full width if `wide`, and 1 if not; the size of
// a wide loop must be a multiple of V.
template <typename T, typename F>
void for_each(const F& f, std::int64_t size, bool wide) {
    constexpr int V = full_width<T>;
    const std::int64_t count = wide ? size / V : size;
    const unsigned blocks = unsigned(std::min<std::int64_t>(ceil_div(count, block_threads), 1 << 16));
    if (wide) {
        launch(for_each_kernel<V, F>, blocks, block_threads, 0, current_stream(), f, count);
    } else {
        launch(for_each_kernel<1, F>, blocks, block_threads, 0, current_stream(), f, count);
    }
}

// A loop over the elements of arrays.  It takes whole vectors where the pointers are aligned, and the few
// elements after the last whole vector one by one.
template <typename T, typename F, typename... Pointers>
void elementwise(const F& f, std::int64_t size, const Pointers*... pointers) {
    constexpr int V = full_width<T>;
    const bool wide = (aligned(pointers) && ...) && size >= V;
    const std::int64_t whole = wide ? size / V * V : 0;
    if (whole) for_each<T>(f, whole, true);
    if (size > whole) for_each<T>(f.from(whole), size - whole, false);
}

}  // namespace minicnn::cuda
