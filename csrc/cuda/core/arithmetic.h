// Arithmetic with indices and sizes.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace minicnn::cuda {

__host__ __device__ inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <typename A>
__host__ __device__ __forceinline__ A smaller(A a, A b) {
    return a < b ? a : b;
}
template <typename A>
__host__ __device__ __forceinline__ A larger(A a, A b) {
    return a > b ? a : b;
}

// 64-bit division is slow on a GPU, and most indices fit 32 bits.
__device__ __forceinline__ std::int64_t divide(std::int64_t a, std::int64_t b) {
    if (((a | b) >> 32) == 0) return std::uint32_t(a) / std::uint32_t(b);
    return a / b;
}

template <typename T>
__device__ __forceinline__ bool is_finite(T x) {
    return x - x == T(0);
}

// A product and a sum that the compiler does not join to a fused multiply-add, which would round only once.
__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double times(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double plus(double a, double b) { return __dadd_rn(a, b); }

// A size that a kernel counts in 32 bits.
inline int narrow(std::int64_t size, const char* what, int bits = 31) {
    if (size >= std::int64_t{1} << bits) {
        throw std::invalid_argument("[cuda] " + std::string(what) + ": expected fewer than 2**" +
                                    std::to_string(bits) + ", got " + std::to_string(size));
    }
    return int(size);
}

}  // namespace minicnn::cuda
