// Correlations: what the direct and Winograd's way make of a pass.  Filters packed in blocks of output
// channels meet a channels-last source in register tiles.  What is fused is told in tile.h; a ReLU mask
// is applied while the source is read.
#pragma once

#include <cstdint>

#include "../core/packing.h"
#include "taps.h"

namespace minicnn {

// A correlation: out(n,i,j,f) = bias(f) + the sum over taps u,v and channels c of source(n, h(i,u),
// w(j,v), c) * filter.
template <typename T>
struct Correlation {
    const T* source;  // (N,H,W,C)
    const T* mask;    // like source, or nullptr: where it is <= 0, the source counts as 0
    std::int64_t N, H, W, C;
    Taps h, w;
    std::int64_t rows, cols;  // of the output
    std::int64_t F, groups;
    PackedFilters<T> filters;
    const std::uint8_t* winner =
        nullptr;  // Winograd's way: if given, source and winner are (N,H/2,W/2,C) of a 2x2 pool
};

// Where the results go, and whether a ReLU comes first.
template <typename T>
struct PlainOutput {
    T* y;
    std::int64_t image_stride, row_stride, col_stride;
    bool relu;
};

template <typename T>
void correlate(const Correlation<T>& c, const PlainOutput<T>& out);

// A correlation with max-pooling.  y and winner (which may be nullptr) are (N, pool.OH, pool.OW, F).
// in_tiles: every window is a 2x2 square of its own inside the map, and is pooled in the register tiles.
template <typename T>
void correlate_pooled(const Correlation<T>& c, const PoolParams& pool, bool in_tiles, T* y,
                      std::uint8_t* winner, bool relu);

// A tile stores the winners that the contract describes.
static_assert(no_winner == relu_off);

// How the images of a batch are cut into bands of rows: so that the source of a band stays in the cache,
// and into more bands where there are few images.  A band has a multiple of `unit` rows.
struct Bands {
    std::int64_t rows, per_image;  // rows of a band, of which the last may have fewer; bands of an image
    Bands(std::int64_t N, std::int64_t all_rows, std::int64_t unit, std::int64_t source_bytes_per_row,
          double flops_per_row);
};

}  // namespace minicnn
