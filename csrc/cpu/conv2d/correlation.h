// The convolution engine's two steps: filters packed in blocks of output channels, and a correlation
// of a channels-last source with them in register tiles.  Forward is one correlation, the gradient
// to the input one for each phase of the stride.  Fused: see tile.h; a ReLU mask is applied on reading.
#pragma once

#include <cstdint>

#include "../core/packing.h"
#include "taps.h"

namespace minicnn {

// A correlation: out(n,i,j,f) = bias(f) + sum over taps u,v and channels c of source(n, h(i,u), w(j,v), c)
// * filter.
template <typename T>
struct Correlation {
    const T* source;  // (N,H,W,C)
    const T* mask;    // as source: where it is <= 0 the source counts as 0; or nullptr
    std::int64_t N, H, W, C;
    Taps h, w;
    std::int64_t rows, cols;  // of the output
    std::int64_t F, groups;
    PackedFilters<T> filters;
    const std::uint8_t* winner = nullptr;  // if given, source and winner are a 2x2 max-pool's (N,H/2,W/2,C)
};

template <typename T>
struct PlainOutput {
    T* y;
    std::int64_t image_stride, row_stride, col_stride;
    bool relu;
};

template <typename T>
void correlate(const Correlation<T>& c, const PlainOutput<T>& out);

// With max-pooling; y and winner (may be nullptr) are (N, pool.OH, pool.OW, F).  in_tiles: every window is
// a 2x2 square of its own inside the map, and is pooled in the register tiles.
template <typename T>
void correlate_pooled(const Correlation<T>& c, const PoolParams& pool, bool in_tiles, T* y,
                      std::uint8_t* winner, bool relu);

// The tiles store a winner as the contract has it.
static_assert(no_winner == relu_off);

// How the images of a batch are cut in bands of rows: by size of a band's source, and finer for small
// batches.
struct Bands {
    std::int64_t rows, per_image;  // rows of a band (the last may have fewer), bands of an image
    Bands(std::int64_t N, std::int64_t all_rows, std::int64_t unit, std::int64_t source_bytes_per_row,
          double flops_per_row);
};

}  // namespace minicnn
