// With a stride, the gradient to the input is one product for each phase of the stride.
#pragma once

#include <numeric>

#include "../core/arithmetic.h"

namespace minicnn::cuda {

// The inputs of one phase are those at phase, phase + stride, phase + 2 * stride and so on.  All of them
// are reached by the same taps of the window, u = start + t * every.  Input number i of the phase meets tap
// t at output i + first - t * step.  For example, with a stride of 2 and a window of 3 cells, the even
// inputs meet two of the cells and the odd inputs one, or the other way round.  This is so along each of
// the two axes.
struct Axis {
    std::int64_t phase, stride, inputs, start, every, taps, first, step;
};

inline Axis axis_of(std::int64_t phase, std::int64_t inputs, std::int64_t stride, std::int64_t dilation,
                    std::int64_t padding, std::int64_t kernel) {
    const std::int64_t every = stride / std::gcd(stride, dilation);
    const std::int64_t count = ceil_div(inputs - phase, stride);
    for (std::int64_t u = 0; u < smaller(every, kernel); ++u) {
        const std::int64_t from = phase + padding - u * dilation;
        if (from % stride != 0) continue;
        const std::int64_t taps = ceil_div(kernel - u, every);
        return {phase, stride, count, u, every, taps, from / stride, every * dilation / stride};
    }
    return {phase, stride, count, 0, 1, 0, 0, 0};
}

}  // namespace minicnn::cuda
