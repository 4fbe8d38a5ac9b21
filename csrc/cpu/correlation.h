// The convolution engine's two steps: filters packed in blocks of output channels, and a correlation
// of a channels-last source with them in register tiles.  Forward is one correlation, the gradient
// to the input one for each phase of the stride.  Fused: see tile.h; a ReLU mask is applied on reading.
#pragma once

#include <cstdint>

#include "../conv_ops.h"
#include "../parallel.h"
#include "scratch.h"
#include "tile.h"

namespace minicnn {

// The source rows (or columns) that one output reads: output*stride + first + t*step, t < count.
struct Taps {
    std::int64_t first, step, count, stride;

    std::int64_t lowest() const { return first + (step < 0 ? (count - 1) * step : 0); }
    std::int64_t highest() const { return first + (step > 0 ? (count - 1) * step : 0); }
    std::int64_t begin(std::int64_t output) const { return output * stride + lowest(); }
    std::int64_t end(std::int64_t output) const { return output * stride + highest() + 1; }
};

// Filters of `groups` groups, each in blocks of output channels: block[k][lane], zero where there is no
// channel.
template <typename T>
struct PackedFilters {
    const T* blocks;
    const T* bias;  // padded like the lanes of the blocks
    std::int64_t depth, padded;

    const T* block(std::int64_t group, std::int64_t lane) const {
        return blocks + (group * padded + lane) * depth;
    }
    const T* block_bias(std::int64_t group, std::int64_t lane) const {
        return bias + group * padded + lane;
    }
};

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

// Lanes that `channels` output channels take in blocks.
template <typename T>
std::int64_t padded_lanes(std::int64_t channels) {
    std::int64_t lane = 0;
    while (lane < channels) lane += block_lanes<T>(block_width<T>(channels - lane));
    return lane;
}

// Packs filters; weight_at(group, channel, u, v, c) is read for u < taps_h, v < taps_w, c < C/groups.
template <typename T, typename F>
PackedFilters<T> pack_filters(std::int64_t groups, std::int64_t channels, std::int64_t taps_h,
                              std::int64_t taps_w, std::int64_t depth_c, const T* bias, const F& weight_at);

template <typename T>
void correlate(const Correlation<T>& c, const PlainOutput<T>& out);

// With max-pooling; y and winner (may be nullptr) are (N, pool.OH, pool.OW, F).
template <typename T>
void correlate_pooled(const Correlation<T>& c, const PoolParams& pool, T* y, std::uint8_t* winner,
                      bool relu);

// Whether every window is a whole 2x2 square of its own, which is pooled inside the register tiles.
bool is_two_by_two(const PoolParams& pool, std::int64_t rows, std::int64_t cols);

// The part [h0,h1) x [w0,w1) of an image (H,W,C), zero outside it and where the mask is <= 0.
template <typename T>
void copy_window(const T* image, const T* mask, std::int64_t H, std::int64_t W, std::int64_t C,
                 std::int64_t h0, std::int64_t h1, std::int64_t w0, std::int64_t w1, T* out);

// How the images of a batch are cut in bands of rows: by size of a band's source, and finer for small
// batches.
struct Bands {
    std::int64_t rows, per_image;  // rows of a band (the last may have fewer), bands of an image
    Bands(std::int64_t N, std::int64_t all_rows, std::int64_t unit, std::int64_t source_bytes_per_row,
          double flops_per_row);
};

// Tasks to hand a thread at once, so that a piece is worth a thread's while.
std::int64_t grain_for(double flops_per_task);

template <typename T, typename F>
PackedFilters<T> pack_filters(std::int64_t groups, std::int64_t channels, std::int64_t taps_h,
                              std::int64_t taps_w, std::int64_t depth_c, const T* bias,
                              const F& weight_at) {
    const std::int64_t depth = taps_h * taps_w * depth_c, padded = padded_lanes<T>(channels);
    T* blocks = scratch<T>(Slot::shared_weights, groups * padded * (depth + 1));
    T* padded_bias = blocks + groups * padded * depth;
    const int wide = block_lanes<T>(two_vectors);
    const std::int64_t per_group = (channels + wide - 1) / wide;
    parallel_for(0, groups * per_group, std::max<std::int64_t>(1, 65536 / (wide * depth + 1)),
                 [&](std::int64_t first, std::int64_t last) {
                     for (std::int64_t i = first; i < last; ++i) {
                         const std::int64_t g = i / per_group, lane = i % per_group * wide,
                                            left = channels - lane;
                         const int width = block_lanes<T>(block_width<T>(left));
                         const int count = static_cast<int>(std::min<std::int64_t>(width, left));
                         T* b = blocks + (g * padded + lane) * depth;
                         for (std::int64_t u = 0; u < taps_h; ++u) {
                             for (std::int64_t v = 0; v < taps_w; ++v) {
                                 for (std::int64_t c = 0; c < depth_c; ++c, b += width) {
                                     for (int l = 0; l < count; ++l) b[l] = weight_at(g, lane + l, u, v, c);
                                     for (int l = count; l < width; ++l) b[l] = T(0);
                                 }
                             }
                         }
                         for (int l = 0; l < width; ++l) {
                             padded_bias[g * padded + lane + l] =
                                 bias && l < count ? bias[g * channels + lane + l] : T(0);
                         }
                     }
                 });
    return {blocks, padded_bias, depth, padded};
}

}  // namespace minicnn
