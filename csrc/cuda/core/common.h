// What the kernels share: 128-bit vectors, index arithmetic, and loops over elements.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../ops.h"
#include "launch.h"

namespace minicnn::cuda {

// ---- vectors ---------------------------------------------------------------------------------------

template <typename T>
constexpr int full_width = 16 / sizeof(T);

// V neighbours, loaded and stored at once; V is 1 or full_width.
template <typename T, int V>
struct alignas(V * sizeof(T)) Vector {
    T v[V];
};

template <int V, typename T>
__device__ __forceinline__ Vector<T, V> load(const T* at) {
    return *reinterpret_cast<const Vector<T, V>*>(at);
}

template <int V, typename T>
__device__ __forceinline__ void store(T* at, const Vector<T, V>& values) {
    *reinterpret_cast<Vector<T, V>*>(at) = values;
}

// The first `count` of the values; all at once where there are so many and the place allows it.
template <typename T, int V>
__device__ __forceinline__ void store_some(T* at, const Vector<T, V>& values, int count) {
    if (count >= V && reinterpret_cast<std::uintptr_t>(at) % sizeof(values) == 0) {
        store(at, values);
    } else {
#pragma unroll
        for (int k = 0; k < V; ++k) {
            if (k < count) at[k] = values.v[k];
        }
    }
}

template <typename T>
bool aligned(const T* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;  // so is nullptr
}

// ---- arithmetic ------------------------------------------------------------------------------------

__host__ __device__ inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <typename A>
__host__ __device__ __forceinline__ A smaller(A a, A b) {
    return a < b ? a : b;
}
template <typename A>
__host__ __device__ __forceinline__ A larger(A a, A b) {
    return a > b ? a : b;
}

// 64-bit division is slow on a GPU; most indices fit 32 bits.
__device__ __forceinline__ std::int64_t divide(std::int64_t a, std::int64_t b) {
    if (((a | b) >> 32) == 0) return std::uint32_t(a) / std::uint32_t(b);
    return a / b;
}

template <typename T>
__device__ __forceinline__ bool is_finite(T x) {
    return x - x == T(0);
}

template <typename T>
__device__ __forceinline__ T relu(T x) {
    return x <= T(0) ? T(0) : x;  // NaN stays
}

// dy where the ReLU whose output is y lets it through
template <typename T>
__device__ __forceinline__ T relu_gradient(T dy, T y) {
    return y <= T(0) ? T(0) : dy;
}

// A size that a kernel counts in 32 bits.
inline int narrow(std::int64_t size, const char* what, int bits = 31) {
    if (size >= std::int64_t{1} << bits) {
        throw std::invalid_argument("[cuda] " + std::string(what) + ": expected fewer than 2**" +
                                    std::to_string(bits) + ", got " + std::to_string(size));
    }
    return int(size);
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

// Calls f.at<V>(i) for every V-th i in [0, size): V is the full width if `wide`, else 1.  A wide loop
// needs a size that is a multiple of V.
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

// A flat loop: wide where the pointers allow it, and the few elements after the last whole vector singly.
template <typename T, typename F, typename... Pointers>
void elementwise(const F& f, std::int64_t size, const Pointers*... pointers) {
    constexpr int V = full_width<T>;
    const bool wide = (aligned(pointers) && ...) && size >= V;
    const std::int64_t whole = wide ? size / V * V : 0;
    if (whole) for_each<T>(f, whole, true);
    if (size > whole) for_each<T>(f.from(whole), size - whole, false);
}

}  // namespace minicnn::cuda
