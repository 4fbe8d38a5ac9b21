// The loop of every elementwise kernel.
#pragma once

#include <cstdint>

#include "../../bfloat16.h"
#include "parallel.h"

namespace minicnn {

// The elements in one piece of work: enough that waking a thread for them is worth it.
constexpr std::int64_t elements_per_piece = 16384;

// ReLU's gradient at one element: 0 where y <= 0, else dy.  dy is an argument, so that it is read in any
// case: if it were read only where y > 0, the compiler could not make vectors of the loop.
template <typename T>
inline T relu_gradient(T y, T dy) {
    return y <= 0 ? T{0} : dy;
}
// The same on bits, of which the compiler makes vectors: numbers above zero have no sign, and a NaN with a
// sign lies beyond minus infinity.
inline bfloat16 relu_gradient(bfloat16 y, bfloat16 dy) {
    constexpr std::uint16_t sign = 0x8000, minus_infinity = 0xff80;
    const bool passes = (y.bits > 0 && y.bits < sign) || y.bits > minus_infinity;
    return {static_cast<std::uint16_t>(passes ? dy.bits : 0)};
}

// How many items of so many elements make such a piece.  The number of elements may have overflowed if
// there is no item at all.
inline std::int64_t items_per_piece(std::int64_t elements_per_item) {
    if (elements_per_item < 0 || elements_per_item >= elements_per_piece) return 1;
    return elements_per_piece / (elements_per_item + 1);
}

// Calls f(i) for every i in [0, size).  The calls must not depend on each other, so that the compiler can
// make vectors of them.
template <Denormals denormals = Denormals::zero, typename F>
void elementwise(std::int64_t size, const F& f) {
    parallel_for<denormals>(0, size, elements_per_piece, [f](std::int64_t first, std::int64_t last) {
#pragma GCC ivdep
        for (std::int64_t i = first; i < last; ++i) f(i);
    });
}

}  // namespace minicnn
