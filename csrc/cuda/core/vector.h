// Vectors of 128 bits, the most that a thread loads or stores at once.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../../bfloat16.h"

namespace minicnn::cuda {

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

// Each value as it is stored in an array of T.
template <typename T, int V>
__device__ __forceinline__ Vector<T, V> narrowed(const Vector<Sum<T>, V>& values) {
    Vector<T, V> result;
#pragma unroll
    for (int k = 0; k < V; ++k) result.v[k] = minicnn::narrow<T>(values.v[k]);
    return result;
}

// bfloat16 is widened as it is loaded and rounded as it is stored.
template <int V>
__device__ __forceinline__ Vector<float, V> load(const bfloat16* at) {
    const auto stored = *reinterpret_cast<const Vector<bfloat16, V>*>(at);
    Vector<float, V> values;
#pragma unroll
    for (int k = 0; k < V; ++k) values.v[k] = widen(stored.v[k]);
    return values;
}

template <int V>
__device__ __forceinline__ void store(bfloat16* at, const Vector<float, V>& values) {
    *reinterpret_cast<Vector<bfloat16, V>*>(at) = narrowed<bfloat16>(values);
}

// Stores the first `count` of the values.  It is one store where the vector is full and its place is
// aligned.
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

}  // namespace minicnn::cuda
