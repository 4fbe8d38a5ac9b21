// Transposes of small blocks in registers, for packing an operand whose lanes are not next to each other
// in memory.
#pragma once

#include <algorithm>

#include "simd.h"

namespace minicnn {

// One of the log2(L) steps of a transpose: exchanges the lanes of a whose number has the bit `step` with
// the lanes of b whose number has not.
template <int step, typename V, int... lane>
MINICNN_INLINE void exchange(V& a, V& b, std::integer_sequence<int, lane...>) {
    constexpr int L = sizeof...(lane);
#if defined(__clang__)
    const V first = __builtin_shufflevector(a, b, (lane & step ? L + lane - step : lane)...);
    b = __builtin_shufflevector(a, b, (lane & step ? L + lane : lane + step)...);
#else
    using Lanes = decltype(a < b);
    const V first = __builtin_shuffle(a, b, Lanes{(lane & step ? L + lane - step : lane)...});
    b = __builtin_shuffle(a, b, Lanes{(lane & step ? L + lane : lane + step)...});
#endif
    a = first;
}

template <int L, int step = L / 2, typename V>
MINICNN_INLINE void transpose(V (&v)[L]) {
    unroll<L>([&](auto i) __attribute__((always_inline)) {
        if constexpr (!(i & step)) {
            exchange<step>(v[i], v[i + step], std::make_integer_sequence<int, L>{});
        }
    });
    if constexpr (step > 1) transpose<L, step / 2>(v);
}

// For k < depth: to[k*ldt + l] = from[l*ldf + k] where l < count, and 0 where count <= l < L.
template <int L, typename T>
void pack_transposed(const T* from, std::int64_t ldf, std::int64_t count, std::int64_t depth, T* to,
                     std::int64_t ldt) {
    std::int64_t k = 0;
    for (; k + L <= depth; k += L) {
        Vec<T, L> v[L];
        unroll<L>([&](auto l) __attribute__((always_inline)) {
            v[l] = l < count ? load<L>(from + l * ldf + k) : Vec<T, L>{};
        });
        transpose<L>(v);
        unroll<L>([&](auto i) __attribute__((always_inline)) { store(to + (k + i) * ldt, v[i]); });
    }
    for (; k < depth; ++k) {
        for (std::int64_t l = 0; l < L; ++l) to[k * ldt + l] = l < count ? from[l * ldf + k] : T(0);
    }
}

// The same for a block of `width` lanes: one or two vectors, or half of one.
template <typename T>
void pack_block(const T* from, std::int64_t ldf, std::int64_t count, std::int64_t depth, T* to, int width) {
    if (width < lanes<T>) return pack_transposed<lanes<T> / 2>(from, ldf, count, depth, to, width);
    for (int l = 0; l < width; l += lanes<T>) {
        const std::int64_t left = std::clamp<std::int64_t>(count - l, 0, lanes<T>);
        pack_transposed<lanes<T>>(from + l * ldf, ldf, left, depth, to + l, width);
    }
}

}  // namespace minicnn
