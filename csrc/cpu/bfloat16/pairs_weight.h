// Packing for the gradient to filters, whose sums run over pixels: the values of two neighbouring pixels
// lie side by side for each channel, as one word.  16 words, of 16 channels, are a row of a tile.
//
// Channels are taken in blocks of 32, which are two tiles wide.  The first tile has the even channels and
// the second the odd ones, because that needs no shuffles.  Where the last block has 16 channels or fewer,
// it is one tile wide, with its channels in order.
//
// Reading a block may read channels beyond the last one of a pixel, but never beyond the array.  What it
// finds there makes columns of the product that nobody reads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../core/simd.h"
#include "../core/transpose.h"
#include "rounding.h"
#include "tile_unit.h"

namespace minicnn {

using PairRow = std::uint32_t[tile_cols];
constexpr int block_channels = 2 * tile_cols, pairs_in_tile = tile_rows;

inline std::int64_t tiles_of(std::int64_t channels) { return (channels + tile_cols - 1) / tile_cols; }
inline std::int64_t blocks_of(std::int64_t channels) {
    return (channels + block_channels - 1) / block_channels;
}

// The lanes of the packers.  A row of a tile is one vector or several.
constexpr int word_lanes = std::min(lanes<std::uint32_t>, tile_cols);
using Words = Vec<std::uint32_t, word_lanes>;

// value = L elements at `from`, of which only `room` may be read; the others are 0.
template <int L, typename T>
MINICNN_INLINE void load_within(const T* from, std::int64_t room, Vec<T, L>& value) {
    if (room >= L) {
        std::memcpy(&value, from, sizeof value);
    } else {
        T part[L]{};  // not `value`, which would then have to lie in memory in any case
        std::memcpy(part, from, static_cast<std::size_t>(std::max<std::int64_t>(room, 0)) * sizeof(T));
        std::memcpy(&value, part, sizeof value);
    }
}

// What a pixel of a packed row may be.  `read` gives L channels, the first of which is number c of the
// block; `room` is how many elements lie between the first channel of the block and the end of the array.

struct NoPixel {
    template <int L>
    MINICNN_INLINE void read(int, Bits<L>& value) const {
        value = Bits<L>{};
    }
};

struct PlainPixel {
    const bfloat16* at;
    std::int64_t room;
    template <int L>
    MINICNN_INLINE void read(int c, Bits<L>& value) const {
        load_within<L>(reinterpret_cast<const std::uint16_t*>(at) + c, room - c, value);
    }
};

// A gradient after a ReLU.
struct MaskedPixel {
    const bfloat16 *dy, *relu_y;
    std::int64_t room;
    template <int L>
    MINICNN_INLINE void read(int c, Bits<L>& value) const {
        Bits<L> y;
        load_within<L>(reinterpret_cast<const std::uint16_t*>(dy) + c, room - c, value);
        load_within<L>(reinterpret_cast<const std::uint16_t*>(relu_y) + c, room - c, y);
        value = masked<L>(value, y);
    }
};

// A gradient after a 2x2 max-pool: cell `cell` of the window gets it if it is the winner.
struct PooledPixel {
    const bfloat16* dy;
    const std::uint8_t* winner;
    std::uint8_t cell;
    std::int64_t room;
    template <int L>
    MINICNN_INLINE void read(int c, Bits<L>& value) const {
        Vec<std::uint8_t, L> place;
        load_within<L>(reinterpret_cast<const std::uint16_t*>(dy) + c, room - c, value);
        load_within<L>(winner + c, room - c, place);
        value = __builtin_convertvector(place, Bits<L>) == cell ? value : Bits<L>{};
    }
};

// Writes one row of the block's one or two tiles: the second tile's rows lie `apart` words further.
template <int tiles, typename First, typename Second>
MINICNN_INLINE void pack_pair(const First& first, const Second& second, std::uint32_t* to,
                              std::int64_t apart) {
    constexpr int L = word_lanes;
    for (int word = 0; word < tile_cols; word += L) {
        if constexpr (tiles == 2) {
            Bits<2 * L> a, b;
            first.template read<2 * L>(2 * word, a);
            second.template read<2 * L>(2 * word, b);
            const Words u = reinterpret_cast<Words>(a), v = reinterpret_cast<Words>(b);
            store(to + word, (u & 0xffffu) | (v << 16));
            store(to + apart + word, (u >> 16) | (v & 0xffff0000u));
        } else {
            Bits<L> a, b;
            first.template read<L>(word, a);
            second.template read<L>(word, b);
            store(to + word, __builtin_convertvector(a, Words) | (__builtin_convertvector(b, Words) << 16));
        }
    }
}

// Packs the pairs of a row of `pixels` pixels into ceil(pixels / 2) rows of tiles.  at(i) is pixel i.
template <int tiles, typename At>
MINICNN_INLINE void pack_pairs(std::int64_t pixels, const At& at, std::uint32_t* to, std::int64_t apart) {
    std::int64_t i = 0;
    for (; i + 2 <= pixels; i += 2, to += tile_cols) pack_pair<tiles>(at(i), at(i + 1), to, apart);
    if (i < pixels) pack_pair<tiles>(at(i), NoPixel{}, to, apart);
}

// Packs a row of `pixels` output pixels, of which pixel i reads source pixel i*stride + first if that lies
// in [0, W), and else 0.  `source` is the block's first channel of source pixel 0, or nullptr for a row of
// zeros; the array ends at `end`.
template <int tiles>
void pack_source_row(const bfloat16* source, const bfloat16* end, std::int64_t pixels, std::int64_t W,
                     std::int64_t C, std::int64_t stride, std::int64_t first, std::uint32_t* to,
                     std::int64_t apart) {
    static const bfloat16 zeros[block_channels]{};
    const PlainPixel zero{zeros, block_channels};
    const auto at = [&](std::int64_t i) __attribute__((always_inline)) {
        const bfloat16* pixel = source + (i * stride + first) * C;
        return PlainPixel{pixel, end - pixel};
    };
    const auto at_or_zero = [&](std::int64_t i) __attribute__((always_inline)) {
        const std::int64_t w = i * stride + first;
        return source && w >= 0 && w < W ? at(i) : zero;
    };
    const auto pack_edge = [&](std::int64_t i) __attribute__((always_inline)) {
        if (i + 1 < pixels) {
            pack_pair<tiles>(at_or_zero(i), at_or_zero(i + 1), to + i / 2 * tile_cols, apart);
        } else {
            pack_pair<tiles>(at_or_zero(i), NoPixel{}, to + i / 2 * tile_cols, apart);
        }
    };
    // The pixels [from, until) read inside the source, and so do the whole pairs of [begin, end_of_whole).
    const std::int64_t from = first >= 0 ? 0 : std::min(pixels, (-first + stride - 1) / stride);
    const std::int64_t until = W <= first ? 0 : std::min(pixels, (W - 1 - first) / stride + 1);
    const std::int64_t begin = (from + 1) / 2 * 2,
                       end_of_whole = std::max(begin, source ? until / 2 * 2 : 0);
    for (std::int64_t i = 0; i < std::min(begin, pixels); i += 2) pack_edge(i);
    pack_pairs<tiles>(
        end_of_whole - begin, [&](std::int64_t i) __attribute__((always_inline)) { return at(begin + i); },
        to + begin / 2 * tile_cols, apart);
    for (std::int64_t i = end_of_whole; i < pixels; i += 2) pack_edge(i);
}

// Turns 16 rows of pairs, which have a channel in each column, into a tile with a channel in each row.
inline void transpose_tile(const std::uint32_t* from, std::uint32_t* to) {
    constexpr int L = word_lanes;
    for (int row = 0; row < tile_rows; row += L) {
        for (int col = 0; col < tile_cols; col += L) {
            Words v[L];
            unroll<L>([&](auto i) __attribute__((always_inline)) {
                v[i] = load<L>(from + (row + i) * tile_cols + col);
            });
            transpose<L>(v);
            unroll<L>([&](auto i) __attribute__((always_inline)) {
                store(to + (col + i) * tile_cols + row, v[i]);
            });
        }
    }
}

}  // namespace minicnn
