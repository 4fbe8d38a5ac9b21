// Vectors of bfloat16 for the ways of the tile unit: rounding sums, and the mask of a ReLU.
#pragma once

#include <cstdint>
#include <cstring>

#include "../../bfloat16.h"
#include "../core/simd.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace minicnn {

// The bits of L bfloat16 values.
template <int L>
using Bits = Vec<std::uint16_t, L>;

// The nearest bfloat16 of each lane, by one instruction where there is one.  It takes a denormal for zero;
// sums have none, because they are computed with denormals flushed.
template <int L>
MINICNN_INLINE Bits<L> rounded(const Vec<float, L>& v) {
#if defined(__AVX512BF16__)
    if constexpr (L == 16) return Bits<16>(_mm512_cvtneps_pbh(__m512(v)));
#endif
    return nearest_bfloat16<L>(v);
}

// The values of such bits.
template <int L>
MINICNN_INLINE Vec<float, L> wide_values(const Bits<L>& bits) {
    const auto wide = __builtin_convertvector(bits, Vec<std::uint32_t, L>) << 16;
    Vec<float, L> values;
    std::memcpy(&values, &wide, sizeof values);
    return values;
}

// The nearest bfloat16 of the lanes of two vectors, one after the other.
template <int L>
MINICNN_INLINE Bits<2 * L> rounded_pair(const Vec<float, L>& first, const Vec<float, L>& second) {
    Bits<2 * L> pair;
#if defined(__AVX512BF16__)
    if constexpr (L == 16) return Bits<32>(_mm512_cvtne2ps_pbh(__m512(second), __m512(first)));
#endif
    const Bits<L> halves[2] = {rounded<L>(first), rounded<L>(second)};
    std::memcpy(&pair, halves, sizeof pair);
    return pair;
}

// ReLU of numbers, not of NaN.
template <int L>
MINICNN_INLINE Bits<L> relu_bits(const Bits<L>& bits) {
    constexpr std::uint16_t sign = 0x8000;
    return bits < sign ? bits : Bits<L>{};
}

// dy where relu_y is positive or NaN, else 0.  A denormal relu_y counts as zero.
template <int L>
MINICNN_INLINE Bits<L> masked(const Bits<L>& dy, const Bits<L>& relu_y) {
    constexpr std::uint16_t least_normal = 0x0080, sign = 0x8000, minus_infinity = 0xff80;
    return ((relu_y >= least_normal) & (relu_y < sign)) | (relu_y > minus_infinity) ? dy : Bits<L>{};
}

// Calls f(lanes, i) for vectors that cover [0, size) one after the other: of L lanes first, and of fewer
// for the rest, so that nothing beyond the values is read or written.
template <int L, typename F>
MINICNN_INLINE void in_vectors(std::int64_t size, const F& f, std::int64_t i = 0) {
    for (; i + L <= size; i += L) f(std::integral_constant<int, L>{}, i);
    if constexpr (L > 1) {
        if (i < size) in_vectors<L / 2>(size, f, i);
    }
}

inline void copy_masked(const bfloat16* dy, const bfloat16* relu_y, std::int64_t size, bfloat16* to) {
    in_vectors<lanes<std::uint16_t>>(size, [&](auto L, std::int64_t i) __attribute__((always_inline)) {
        store(to + i, masked<L>(load<L>(&dy[i].bits), load<L>(&relu_y[i].bits)));
    });
}

}  // namespace minicnn
