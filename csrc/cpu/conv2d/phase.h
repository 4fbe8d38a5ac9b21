// The phases of a gradient to the input: which taps of a filter the inputs meet.
#pragma once

#include <algorithm>
#include <numeric>

#include "taps.h"

namespace minicnn {

// The inputs phase, phase + stride, phase + 2*stride, ... meet the same taps of a filter: start, start +
// every, start + 2*every, ...  `taps` says where in the gradient they meet them.
// For example with a stride of 2, a padding of 1 and a kernel of 3, the inputs 0, 2, 4, ... meet tap 1,
// and the inputs 1, 3, 5, ... meet taps 0 and 2.
struct Phase {
    std::int64_t start, every;
    Taps taps;
};

inline Phase phase_of(std::int64_t phase, std::int64_t stride, std::int64_t dilation, std::int64_t padding,
                      std::int64_t kernel) {
    const std::int64_t every = stride / std::gcd(stride, dilation);
    for (std::int64_t u = 0; u < std::min(every, kernel); ++u) {
        const std::int64_t from = phase + padding - u * dilation;
        if (from % stride != 0) continue;
        return {u, every, {from / stride, -every * dilation / stride, (kernel - u + every - 1) / every, 1}};
    }
    return {0, 1, {0, 0, 0, 1}};
}

}  // namespace minicnn
