// The register tile of gradients to filters: a few pairs of a tap and a channel, times a block of
// filters, summed over pixels.
#pragma once

#include "tile.h"

namespace minicnn {

// What a tile sums over: rows x cols pixels of dy, and for each pair the pixels of x that lie `offset`
// further.
template <typename T>
struct GradientInput {
    const T* x;
    std::int64_t x_row, x_col;
    const std::int64_t* offset;
    const T* dy;
    std::int64_t dy_row, dy_col, rows, cols;
    bool first = false;  // whether dst holds nothing yet, so that the sum begins with 0
};

// dst[k][lane] += the sum over pixels of x[pixel + offset[k]] * dy[pixel][lane], for k < depth and a
// block of lanes.
template <typename T>
void add_gradient(GradientInput<T> in, std::int64_t depth, BlockWidth width, T* dst);

}  // namespace minicnn
