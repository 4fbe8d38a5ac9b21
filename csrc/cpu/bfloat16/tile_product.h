// The product that every way of the tile unit is made of: up to 64 pixels times 16 or 32 filters, summed in
// the unit's registers over the whole depth.
#pragma once

#include <cstdint>

#include "tile_packing.h"

namespace minicnn {

// Step s of the depth reads 32 values of each pixel at offset[s] from where the pixel begins, and the tile
// or the two tiles of step s of the filters.
struct TileOperands {
    std::int64_t pixel_bytes;    // from one pixel to the next
    const std::int64_t* offset;  // in values
    std::int64_t steps;
    const bfloat16* filters;
    const float* bias;
};

// Which registers a product of so many tiles takes: first those of the sums.  The tiles of filters stay in
// theirs for all pixels where there is room; else they share one, and so do the pixels.
template <int pixel_tiles, int filter_tiles>
struct TileRegisters {
    static constexpr int sums = pixel_tiles * filter_tiles, free = tile_registers - sums;
    static constexpr bool filters_stay = free > filter_tiles;
    static constexpr int sum(int i, int j) { return i * filter_tiles + j; }
    static constexpr int filter(int j) { return sums + (filters_stay ? j : 0); }
    static constexpr int pixel(int i) {
        return filters_stay ? sums + filter_tiles + i % (free - filter_tiles) : sums + 1;
    }
    static_assert(free >= 2);
};

// sums[pixel][filter], rows of block_filters, of `pixel_tiles` groups of 16 pixels; a(i) is where group i
// begins.  after_step() is called once a step: what it does goes on beside the unit's work, if it is short.
template <typename Unit, int pixel_tiles, int filter_tiles, typename A, typename AfterStep>
MINICNN_INLINE void sum_tiles(const TileOperands& in, const A& a, float* sums,
                              const AfterStep& after_step) {
    using Registers = TileRegisters<pixel_tiles, filter_tiles>;
    constexpr std::int64_t sums_bytes = block_filters * sizeof(float);
    const bfloat16* pixels[pixel_tiles];
    unroll<pixel_tiles>([&](auto i) __attribute__((always_inline)) {
        pixels[i] = a(i);
        unroll<filter_tiles>([&](auto j) __attribute__((always_inline)) {
            Unit::template load<Registers::sum(i, j)>(in.bias + j * tile_cols, 0);
        });
    });
    const bfloat16* b = in.filters;
    for (const std::int64_t *offset = in.offset, *end = offset + in.steps; offset != end; ++offset) {
        unroll<pixel_tiles>([&](auto i) __attribute__((always_inline)) {
            Unit::template load<Registers::pixel(i)>(pixels[i] + *offset, in.pixel_bytes);
            unroll<filter_tiles>([&](auto turn) __attribute__((always_inline)) {
                // To and fro, so that the last tile of filters is the first one for the next pixels.
                constexpr int j = i % 2 ? filter_tiles - 1 - turn : turn;
                if constexpr (i == 0 || (!Registers::filters_stay && turn > 0)) {
                    Unit::template load<Registers::filter(j)>(b + j * tile_values, tile_bytes);
                }
                Unit::template multiply<Registers::sum(i, j), Registers::pixel(i), Registers::filter(j)>();
            });
        });
        b += filter_tiles * tile_values;
        after_step();
    }
    unroll<pixel_tiles>([&](auto i) __attribute__((always_inline)) {
        unroll<filter_tiles>([&](auto j) __attribute__((always_inline)) {
            float* to = sums + i * tile_rows * block_filters + j * tile_cols;
            Unit::template store<Registers::sum(i, j)>(to, sums_bytes);
        });
    });
}

// The same for `groups` of 16 pixels; a(g) is where group g begins.  They are summed in batches, meanwhile
// `store` stores what earlier batches left:
//     store.begin_batch(steps), store.after_step() so many times, and store.end_batch(groups so far)
template <typename Unit, typename A, typename Store>
MINICNN_INLINE void sum_groups(const TileOperands& in, bool wide, std::int64_t groups, const A& a,
                               float* sums, Store& store) {
    std::int64_t g = 0;
    const auto sum = [&](auto pixel_tiles, auto filter_tiles) __attribute__((always_inline)) {
        const auto here = [&](std::int64_t i) { return a(g + i); };
        store.begin_batch(in.steps);
        sum_tiles<Unit, pixel_tiles, filter_tiles>(in, here, sums + g * tile_rows * block_filters,
                                                   [&] { store.after_step(); });
        g += pixel_tiles;
        store.end_batch(g);
    };
    constexpr std::integral_constant<int, 1> one{};
    constexpr std::integral_constant<int, 2> two{};
    constexpr std::integral_constant<int, 3> three{};
    if (wide) {
        while (groups - g >= 4 || groups - g == 2) sum(two, two);
        if (groups - g == 3) sum(three, two);
        if (groups - g == 1) sum(one, two);
    } else {
        while (groups - g >= 2) sum(two, one);
        if (groups - g == 1) sum(one, one);
    }
}

}  // namespace minicnn
