// Packing filters into tiles: each step of the depth, 32 values, is one tile for 16 filters.  A tile holds
// pairs of values: tile[k / 2][filter][k % 2].
#pragma once

#include <algorithm>
#include <cstdint>

#include "../core/memory.h"
#include "../core/parallel.h"
#include "../core/transpose.h"
#include "rounding.h"
#include "tile_unit.h"

namespace minicnn {

constexpr int tile_values = tile_rows * tile_depth;  // bfloat16 values of a tile
constexpr int block_filters = 2 * tile_cols;         // a block is two tiles wide, or the last one one tile

// The depth as runs of values that are contiguous in the source.  Each run begins with a tile of its own;
// its last tile is filled with zeros.
struct TileRuns {
    std::int64_t count, length;
    std::int64_t steps_per_run() const { return (length + tile_depth - 1) / tile_depth; }
    std::int64_t steps() const { return count * steps_per_run(); }
};

// Filters in blocks.  Step s of a block is one tile for its first 16 filters and, in a wide block, a second
// one.
struct PackedTiles {
    const bfloat16* tiles;
    const float* bias;  // one for each filter of each block, 0 beyond the last filter
    std::int64_t filters, steps;

    std::int64_t blocks() const { return (filters + block_filters - 1) / block_filters; }
    const bfloat16* block(std::int64_t b) const { return tiles + 2 * b * steps * tile_values; }
    std::int64_t filters_of(std::int64_t b) const {
        return std::min<std::int64_t>(block_filters, filters - b * block_filters);
    }
    bool is_wide(std::int64_t b) const { return filters_of(b) > tile_cols; }
};

// Packs filters.  fill(filter, filters, run, first, values, tile) writes one tile: the
// values [first, first + values) of the run for so many filters, and zeros elsewhere.
template <typename F>
PackedTiles pack_tiles(std::int64_t filters, const TileRuns& runs, const float* bias, Memory& memory,
                       const F& fill) {
    const std::int64_t columns = (filters + tile_cols - 1) / tile_cols, steps = runs.steps();
    const std::int64_t lanes_of_bias = (columns + 1) / 2 * block_filters;
    auto* tiles = memory.take<bfloat16>(columns * steps * tile_values);
    auto* padded_bias = memory.take<float>(lanes_of_bias);
    std::fill_n(padded_bias, lanes_of_bias, 0.0f);
    if (bias) std::copy_n(bias, filters, padded_bias);
    const PackedTiles packed{tiles, padded_bias, filters, steps};
    const std::int64_t grain =
        std::max<std::int64_t>(1, 64 / std::max<std::int64_t>(1, runs.steps_per_run()));
    parallel_for(0, columns * runs.count, grain, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i) {
            const std::int64_t column = i / runs.count, run = i % runs.count, block = column / 2;
            const std::int64_t count = std::min<std::int64_t>(tile_cols, filters - column * tile_cols);
            const int step_tiles = packed.is_wide(block) ? 2 : 1;
            bfloat16* tile =
                tiles +
                (2 * block * steps + run * runs.steps_per_run() * step_tiles + column % 2) * tile_values;
            for (std::int64_t k = 0; k < runs.length; k += tile_depth, tile += step_tiles * tile_values) {
                const std::int64_t values = std::min<std::int64_t>(tile_depth, runs.length - k);
                fill(column * tile_cols, count, run, k, values, tile);
            }
        }
    });
    return packed;
}

// A tile of filters whose values are contiguous: value k of filter f is from[f * ldf + k].
inline void pack_rows(const float* from, std::int64_t ldf, std::int64_t filters, std::int64_t values,
                      bfloat16* tile) {
    if constexpr (lanes<float> == tile_cols) {
        if (values == tile_depth) {
            Vec<std::int32_t, tile_cols> pairs[tile_cols];
            unroll<tile_cols>([&](auto f) __attribute__((always_inline)) {
                pairs[f] = Vec<std::int32_t, tile_cols>{};
                if (f >= filters) return;
                const Bits<16> half[2] = {rounded<16>(load<16>(from + f * ldf)),
                                          rounded<16>(load<16>(from + f * ldf + 16))};
                std::memcpy(&pairs[f], half, sizeof half);
            });
            transpose<tile_cols>(pairs);
            std::memcpy(tile, pairs, sizeof pairs);
            return;
        }
    }
    std::fill_n(tile, tile_values, bfloat16{});
    for (std::int64_t k = 0; k < values; ++k) {
        for (std::int64_t f = 0; f < filters; ++f) {
            tile[(k / 2 * tile_cols + f) * 2 + k % 2] = to_bfloat16(from[f * ldf + k]);
        }
    }
}

// A tile of filters that lie side by side: next() gives the values of all of them at k = 0, 1, ...
template <typename Next>
void pack_columns(Next&& next, std::int64_t filters, std::int64_t values, bfloat16* tile) {
    if (filters < tile_cols || values < tile_depth) std::fill_n(tile, tile_values, bfloat16{});
    for (std::int64_t k = 0; k < values; k += 2) {
        const float *even = next(), *odd = k + 1 < values ? next() : nullptr;
        bfloat16* to = tile + k * tile_cols;
        in_vectors<lanes<float>>(filters, [&](auto L, std::int64_t f) __attribute__((always_inline)) {
            using Pair = Vec<std::uint32_t, L>;
            Pair pair = __builtin_convertvector(rounded<L>(load<L>(even + f)), Pair);
            if (odd) pair |= __builtin_convertvector(rounded<L>(load<L>(odd + f)), Pair) << 16;
            store(&to[2 * f], pair);
        });
    }
}

}  // namespace minicnn
