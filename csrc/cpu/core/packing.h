// Packing an operand of the register tiles: filters, or columns of a matrix, in blocks of output
// channels.
#pragma once

#include "memory.h"
#include "parallel.h"
#include "tile.h"

namespace minicnn {

// Filters of a convolution with groups.  The filters of each group lie in blocks of as many lanes as a
// register tile is wide: block[k][lane] is value k of the filter in that lane, and 0 in lanes without a
// filter.
template <typename T>
struct PackedFilters {
    const T* blocks;
    const T* bias;  // one for each lane, 0 in lanes without a filter
    std::int64_t depth, padded;
    bool finite = false;  // whether it is known that all values are finite

    const T* block(std::int64_t group, std::int64_t lane) const {
        return blocks + (group * padded + lane) * depth;
    }
    const T* block_bias(std::int64_t group, std::int64_t lane) const {
        return bias + group * padded + lane;
    }
};

// How many lanes the blocks of so many output channels have together.
template <typename T>
std::int64_t padded_lanes(std::int64_t channels) {
    std::int64_t lane = 0;
    while (lane < channels) lane += block_lanes<T>(block_width<T>(channels - lane));
    return lane;
}

// Packs filters.  fill(group, lane, count, width, block) writes the filters [lane,
// lane + count) of a group as block[k][width], with zeros in the lanes from count on.
template <typename T, typename F>
PackedFilters<T> pack_filters(std::int64_t groups, std::int64_t channels, std::int64_t depth, const T* bias,
                              Memory& memory, const F& fill) {
    const std::int64_t padded = padded_lanes<T>(channels);
    T* blocks = memory.take<T>(groups * padded * (depth + 1));
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
