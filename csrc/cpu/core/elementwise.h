// The loop of every elementwise kernel.
#pragma once

#include <cstdint>

#include "parallel.h"

namespace minicnn {

// Elements in a piece of work for one thread: enough to be worth waking it.
constexpr std::int64_t elements_per_piece = 16384;

// ReLU's gradient at one element: 0 where y <= 0, else dy.  Both are arguments, so both are read: a read of
// dy that depended on y would keep a loop from becoming vectors.
template <typename T>
inline T relu_gradient(T y, T dy) {
    return y <= 0 ? T(0) : dy;
}

// How many items, each of so many elements, make such a piece.
inline std::int64_t items_per_piece(std::int64_t elements_per_item) {
    return elements_per_item >= elements_per_piece ? 1 : elements_per_piece / (elements_per_item + 1);
}

// Calls f(i) for every i in [0, size); the iterations are independent, so the compiler may vectorise them.
template <typename F>
void elementwise(std::int64_t size, const F& f) {
    parallel_for(0, size, elements_per_piece, [f](std::int64_t first, std::int64_t last) {
#pragma GCC ivdep
        for (std::int64_t i = first; i < last; ++i) f(i);
    });
}

}  // namespace minicnn
