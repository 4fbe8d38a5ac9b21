// The register tile of gradients to filters: a few (tap, channel) pairs times a block of filters, summed
// over pixels.
#pragma once

#include "tile.h"

namespace minicnn {

// What a tile sums over: rows x cols pixels of x (at `offset` for each of its rows) and of dy.
template <typename T>
struct GradientInput {
    const T* x;
    std::int64_t x_row, x_col;
    const std::int64_t* offset;
    const T* dy;
    std::int64_t dy_row, dy_col, rows, cols;
    bool first = false;  // dst holds nothing yet: the sum begins with 0
};

// dst[k][lane] += sum over pixels of x[pixel + offset[k]] * dy[pixel][lane] for k < depth and a block of
// lanes.
template <typename T>
void add_gradient(GradientInput<T> in, std::int64_t depth, BlockWidth width, T* dst);

}  // namespace minicnn
