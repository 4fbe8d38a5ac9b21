// The product that every way of the tile unit is made of: 16 or 32 pixels times 16 or 32 filters, summed in
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

// sums[pixel][filter], rows of block_filters: 16 pixels from a0 on, and if pixel_tiles is 2 those from a1
// on.
template <typename Unit, int pixel_tiles, int filter_tiles>
MINICNN_INLINE void sum_tiles(const TileOperands& in, const bfloat16* a0, const bfloat16* a1, float* sums) {
    constexpr std::int64_t sums_bytes = block_filters * sizeof(float);
    constexpr bool two_a = pixel_tiles == 2, two_b = filter_tiles == 2;
    Unit::template load<0>(in.bias, 0);
    if constexpr (two_b) Unit::template load<1>(in.bias + tile_cols, 0);
    if constexpr (two_a) Unit::template load<2>(in.bias, 0);
    if constexpr (two_a && two_b) Unit::template load<3>(in.bias + tile_cols, 0);
    const std::int64_t pixel_bytes = in.pixel_bytes;
    const bfloat16* b = in.filters;
    for (const std::int64_t *offset = in.offset, *end = offset + in.steps; offset != end; ++offset) {
        Unit::template load<4>(a0 + *offset, pixel_bytes);
        Unit::template load<6>(b, tile_bytes);
        Unit::template multiply<0, 4, 6>();
        if constexpr (two_b) {
            Unit::template load<7>(b + tile_values, tile_bytes);
            Unit::template multiply<1, 4, 7>();
        }
        if constexpr (two_a) {
            Unit::template load<5>(a1 + *offset, pixel_bytes);
            Unit::template multiply<2, 5, 6>();
            if constexpr (two_b) Unit::template multiply<3, 5, 7>();
        }
        b += filter_tiles * tile_values;
    }
    Unit::template store<0>(sums, sums_bytes);
    if constexpr (two_b) Unit::template store<1>(sums + tile_cols, sums_bytes);
    if constexpr (two_a) Unit::template store<2>(sums + tile_rows * block_filters, sums_bytes);
    if constexpr (two_a && two_b) {
        Unit::template store<3>(sums + tile_rows * block_filters + tile_cols, sums_bytes);
    }
}

// The same for `groups` of 16 pixels; a(g) is where group g begins.
template <typename Unit, typename A>
MINICNN_INLINE void sum_groups(const TileOperands& in, bool wide, std::int64_t groups, const A& a,
                               float* sums) {
    constexpr std::int64_t group_sums = tile_rows * block_filters;
    std::int64_t g = 0;
    for (; g + 2 <= groups; g += 2) {
        if (wide) {
            sum_tiles<Unit, 2, 2>(in, a(g), a(g + 1), sums + g * group_sums);
        } else {
            sum_tiles<Unit, 2, 1>(in, a(g), a(g + 1), sums + g * group_sums);
        }
    }
    if (g == groups) return;
    if (wide) {
        sum_tiles<Unit, 1, 2>(in, a(g), nullptr, sums + g * group_sums);
    } else {
        sum_tiles<Unit, 1, 1>(in, a(g), nullptr, sums + g * group_sums);
    }
}

}  // namespace minicnn
