// Portable SIMD: vector extensions of GCC and Clang with the widest register that the target has, with
// loads, stores, ReLU and compile-time loops.  No intrinsics of one instruction set are used, so that the
// same source compiles for AVX-512, AVX2, SSE2 and NEON.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "../../bfloat16.h"

#define MINICNN_INLINE inline __attribute__((always_inline))

namespace minicnn {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64, vector_registers = 32;
#elif defined(__AVX__)
constexpr int vector_bytes = 32, vector_registers = 16;
#elif defined(__aarch64__)
constexpr int vector_bytes = 16, vector_registers = 32;
#else
constexpr int vector_bytes = 16, vector_registers = 16;
#endif

// How many lanes the widest vector of T has.
template <typename T>
constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

template <typename T, int L>
struct VecType {
    typedef T type __attribute__((vector_size(L * sizeof(T))));
};

template <typename T, int L>
using Vec = typename VecType<T, L>::type;

template <int L, typename T>
MINICNN_INLINE Vec<T, L> load(const T* p) {
    Vec<T, L> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <typename V, typename T>
MINICNN_INLINE void store(T* p, const V& v) {
    std::memcpy(p, &v, sizeof v);
}

// Puts the L whole numbers of v into lanes of another width; bytes are unsigned.  It goes in steps of a
// factor of two, because GCC 12 takes a longer step lane by lane.  (A returned vector must fit a register.)
template <int L, typename From, typename To>
MINICNN_INLINE void convert_numbers(const From& v, To& converted) {
    constexpr int from = sizeof(From) / L, to = sizeof(To) / L;
    if constexpr ((from == 1 && to > 2) || (from == 4 && to == 1)) {
        convert_numbers<L>(__builtin_convertvector(v, Vec<std::uint16_t, L>), converted);
    } else if constexpr ((from == 2 && to > 4) || (from == 8 && to < 4)) {
        convert_numbers<L>(__builtin_convertvector(v, Vec<std::uint32_t, L>), converted);
    } else {
        converted = __builtin_convertvector(v, To);
    }
}

// L values of float, double or bfloat16, as vectors of what they are computed in; and back, rounded.
template <int L, typename T>
MINICNN_INLINE Vec<Sum<T>, L> load_wide(const T* p) {
    if constexpr (std::is_same_v<T, bfloat16>) {
        const auto bits = __builtin_convertvector(load<L>(&p->bits), Vec<std::uint32_t, L>) << 16;
        Vec<float, L> v;
        std::memcpy(&v, &bits, sizeof v);
        return v;
    } else {
        return load<L>(p);
    }
}

// The bits of the nearest bfloat16 of each lane, as to_bfloat16 gives it.
template <int L>
MINICNN_INLINE Vec<std::uint16_t, L> nearest_bfloat16(const Vec<float, L>& v) {
    Vec<std::uint32_t, L> bits;
    std::memcpy(&bits, &v, sizeof v);
    const auto nearest = bits + 0x7fffu + ((bits >> 16) & 1u);
    bits = (v == v ? nearest : bits | 0x00400000u) >> 16;
    return __builtin_convertvector(bits, Vec<std::uint16_t, L>);
}

template <int L, typename T>
MINICNN_INLINE void store_narrow(T* p, const Vec<Sum<T>, L>& v) {
    if constexpr (std::is_same_v<T, bfloat16>) {
        store(p, nearest_bfloat16<L>(v));
    } else {
        store(p, v);
    }
}

// Stores the first `count` lanes, where 0 < count <= L.
template <int L, typename T>
MINICNN_INLINE void store_part(T* p, const Vec<T, L>& v, int count) {
    if (count == L) return store(p, v);
    T lane[L];
    std::memcpy(lane, &v, sizeof v);
    int i = 0;
    if constexpr (L > 8) {
        if (count & 8) std::memcpy(p, lane, 8 * sizeof(T)), i = 8;
    }
    if constexpr (L > 4) {
        if (count & 4) std::memcpy(p + i, lane + i, 4 * sizeof(T)), i += 4;
    }
    if constexpr (L > 2) {
        if (count & 2) std::memcpy(p + i, lane + i, 2 * sizeof(T)), i += 2;
    }
    if (count & 1) p[i] = lane[i];
}

// ReLU, which keeps NaN.
template <typename V>
MINICNN_INLINE V relu(V v) {
    return v <= 0 ? V{} : v;
}

template <typename F, int... I>
MINICNN_INLINE void unroll(F&& f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>{}), ...);
}

// Calls f(0) ... f(N-1) with compile-time indices, so that arrays indexed by them live in registers.
template <int N, typename F>
MINICNN_INLINE void unroll(F&& f) {
    unroll(f, std::make_integer_sequence<int, N>{});
}

}  // namespace minicnn
