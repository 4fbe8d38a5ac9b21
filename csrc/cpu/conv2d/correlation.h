// The convolution engine's two steps: filters packed in blocks of output channels, and a correlation
// of a channels-last source with them in register tiles.  Forward is one correlation, the gradient
// to the input one for each phase of the stride.  Fused: see tile.h; a ReLU mask is applied on reading.
#pragma once

#include <cstdint>

#include "../../conv2d_ops.h"
#include "../core/parallel.h"
#include "../core/scratch.h"
#include "../core/tile.h"

namespace minicnn {

// The source rows (or columns) that one output reads: output*stride + first + t*step, t < count.
struct Taps {
    std::int64_t first, step, count, stride;

    std::int64_t lowest() const { return first + (step < 0 ? (count - 1) * step : 0); }
    std::int64_t highest() const { return first + (step > 0 ? (count - 1) * step : 0); }
    std::int64_t begin(std::int64_t output) const { return output * stride + lowest(); }
    std::int64_t end(std::int64_t output) const { return output * stride + highest() + 1; }

    struct Range {
        std::int64_t first, last;
    };

    // The taps that the outputs [from, to) read inside a source of this size; the others read padding.
    Range inside(std::int64_t from, std::int64_t to, std::int64_t size) const {
        const auto reads = [&](std::int64_t tap) {
            const std::int64_t at = first + tap * step;
            return (to - 1) * stride + at >= 0 && from * stride + at < size;
        };
        Range range{0, count};
        while (range.first < count && !reads(range.first)) ++range.first;
        while (range.last > range.first && !reads(range.last - 1)) --range.last;
        return range;
    }
    // Whether so many of the `outputs`' taps read padding that leaving it out saves more than it costs.
    bool reads_much_padding(std::int64_t outputs, std::int64_t size) const {
        std::int64_t used = 0;
        for (std::int64_t tap = 0; tap < count; ++tap) {
            const Range reading = outputs_inside(tap, 0, outputs, size);
            used += reading.last - reading.first;
        }
        return 8 * used < 7 * outputs * count;
    }
    // The outputs of [from, to) that read inside a source of this size through one tap.
    Range outputs_inside(std::int64_t tap, std::int64_t from, std::int64_t to, std::int64_t size) const {
        const auto reads = [&](std::int64_t output) {
            const std::int64_t at = output * stride + first + tap * step;
            return at >= 0 && at < size;
        };
        while (from < to && !reads(from)) ++from;
        while (to > from && !reads(to - 1)) --to;
        return {from, to};
    }
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

// Packs filters; fill(group, lane, count, width, block) writes the lanes [lane, lane + count) of a group as
// block[k][width], zero beyond the count.
template <typename T, typename F>
PackedFilters<T> pack_filters(std::int64_t groups, std::int64_t channels, std::int64_t depth, const T* bias,
                              const F& fill);

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

// Whether leaving out products with padding changes nothing: it makes NaN of values that are not finite.
template <typename T>
bool all_finite(const T* values, std::int64_t size);

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
PackedFilters<T> pack_filters(std::int64_t groups, std::int64_t channels, std::int64_t depth, const T* bias,
                              const F& fill) {
    const std::int64_t padded = padded_lanes<T>(channels);
    T* blocks = scratch<T>(Slot::shared_weights, groups * padded * (depth + 1));
    T* padded_bias = blocks + groups * padded * depth;
    const int wide = block_lanes<T>(two_vectors);
    const std::int64_t per_group = (channels + wide - 1) / wide;
    parallel_for(0, groups * per_group, std::max<std::int64_t>(1, 65536 / (wide * depth + 1)),
                 [&](std::int64_t first, std::int64_t last) {
                     for (std::int64_t i = first; i < last; ++i) {
                         const std::int64_t g = i / per_group, lane = i % per_group * wide;
                         const int width = block_lanes<T>(block_width<T>(channels - lane));
                         const std::int64_t count = std::min<std::int64_t>(width, channels - lane);
                         fill(g, lane, count, width, blocks + (g * padded + lane) * depth);
                         for (int l = 0; l < width; ++l) {
                             padded_bias[g * padded + lane + l] =
                                 bias && l < count ? bias[g * channels + lane + l] : T(0);
                         }
                     }
                 });
    return {blocks, padded_bias, depth, padded};
}

}  // namespace minicnn
