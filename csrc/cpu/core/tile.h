// The register tile of convolution's direct sums and of matrix products: a few pixels (or rows) times a
// block of output channels, summed in registers over the whole depth.
// Fused: bias, ReLU, and 2x2 max-pooling with its winners, all before the tile leaves the registers.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "simd.h"

namespace minicnn {

// A winner is the number of its cell in a 2x2 window, 0 to 3 in row-major order, or this where ReLU
// switched the value off.
constexpr std::uint8_t no_winner = 255;

// What a tile sums:
// sum(row, col, lane) = bias[lane] + sum over k of a[row*row_stride + col*col_stride + offset[k]] *
// b[k*ldb + lane]
template <typename T>
struct TileInput {
    const T* a;
    std::int64_t row_stride, col_stride;
    const std::int64_t* offset;
    std::int64_t depth;
    const T* b;
    std::int64_t ldb;
    const T* bias;  // as wide as the block; never nullptr
};

// Where it goes: y[row*row_stride + col*col_stride + lane] for the first `channels` lanes.  A pooled tile
// has one row of results.
template <typename T>
struct TileOutput {
    T* y;
    std::int64_t row_stride, col_stride;
    int channels;
    bool relu;
    std::uint8_t* winner;  // of pooled tiles, with the strides of y; may be nullptr
};

template <typename T>
using TileKernel = void (*)(const TileInput<T>&, const TileOutput<T>&);

// A block of output channels is two vectors wide, one vector, or half a vector.
enum BlockWidth { two_vectors, one_vector, half_vector };

template <typename T>
constexpr int block_lanes(BlockWidth width) {
    return width == two_vectors ? 2 * lanes<T> : width == one_vector ? lanes<T> : lanes<T> / 2;
}

// The width of the next block where so many output channels are left.
template <typename T>
BlockWidth block_width(std::int64_t channels) {
    if (channels > lanes<T>) return two_vectors;
    return vector_bytes >= 32 && channels <= lanes<T> / 2 ? half_vector : one_vector;
}

template <int L, int NV, int ROWS, int COLS, typename T>
MINICNN_INLINE void accumulate(const TileInput<T>& in, Vec<T, L> (&acc)[ROWS * COLS][NV]) {
    unroll<ROWS * COLS>([&](auto i) __attribute__((always_inline)) {
        unroll<NV>([&](auto v) __attribute__((always_inline)) { acc[i][v] = load<L>(in.bias + v * L); });
    });
    // A tile of few pixels waits for its filters where they come from far away.  The processor itself reads
    // ahead no further than to the end of a page.
    constexpr int few_pixels = 8, reach = 4096 / sizeof(T);
    const std::int64_t row_stride = in.row_stride, col_stride = in.col_stride, ldb = in.ldb;
    const std::int64_t* offset = in.offset;
    const T* b = in.b;
    for (const std::int64_t* end = offset + in.depth; offset != end; ++offset, b += ldb) {
        Vec<T, L> bv[NV];
        if constexpr (ROWS * COLS <= few_pixels) {
            unroll<NV>([&](auto v)
                           __attribute__((always_inline)) { __builtin_prefetch(b + v * L + reach); });
        }
        unroll<NV>([&](auto v) __attribute__((always_inline)) { bv[v] = load<L>(b + v * L); });
        const T* a = in.a + *offset;
        unroll<ROWS>([&](auto r) __attribute__((always_inline)) {
            const T* p = a + r * row_stride;
            unroll<COLS>([&](auto c) __attribute__((always_inline)) {
                const T x = *p;
                unroll<NV>([&](auto v)
                               __attribute__((always_inline)) { acc[r * COLS + c][v] += bv[v] * x; });
                p += col_stride;
            });
        });
    }
}

template <int L, int NV, int ROWS, int COLS, typename T>
void plain_tile(const TileInput<T>& in, const TileOutput<T>& out) {
    Vec<T, L> acc[ROWS * COLS][NV];
    accumulate<L, NV, ROWS, COLS>(in, acc);
    unroll<ROWS * COLS>([&](auto i) __attribute__((always_inline)) {
        T* y = out.y + i / COLS * out.row_stride + i % COLS * out.col_stride;
        unroll<NV>([&](auto v) __attribute__((always_inline)) {
            if (v * L >= out.channels) return;
            Vec<T, L> value = acc[i][v];
            if (out.relu) value = relu(value);
            store_part<L>(y + v * L, value, std::min(L, out.channels - v * L));
        });
    });
}

// Keeps the larger of `best` and v.  Of equal values the first stays, of several NaN the last.
template <typename V, typename I>
MINICNN_INLINE void take_larger(V& best, I& place, V v, int v_place) {
    const auto wins = (v > best) | (v != v);
    best = wins ? v : best;
    place = wins ? I{} + v_place : place;
}

template <int L, typename T>
MINICNN_INLINE void store_winner(std::uint8_t* winner, decltype(Vec<T, L>{} < Vec<T, L>{}) place,
                                 int count) {
    Vec<std::uint8_t, L> number;
    convert_numbers<L>(place, number);
    store_part<L>(winner, number, count);
}

// The 2x2 max-pool of a tile of two rows.
template <int L, int NV, int COLS, typename T>
void pooled_tile(const TileInput<T>& in, const TileOutput<T>& out) {
    using Place = decltype(Vec<T, L>{} < Vec<T, L>{});
    Vec<T, L> acc[2 * COLS][NV];
    accumulate<L, NV, 2, COLS>(in, acc);
    unroll<COLS / 2>([&](auto c) __attribute__((always_inline)) {
        unroll<NV>([&](auto v) __attribute__((always_inline)) {
            if (v * L >= out.channels) return;
            Vec<T, L> best = acc[2 * c][v];
            Place place{};
            take_larger(best, place, acc[2 * c + 1][v], 1);
            take_larger(best, place, acc[COLS + 2 * c][v], 2);
            take_larger(best, place, acc[COLS + 2 * c + 1][v], 3);
            const int count = std::min(L, out.channels - v * L);
            if (out.winner) {
                if (out.relu) place = best <= 0 ? Place{} + no_winner : place;
                store_winner<L, T>(out.winner + c * out.col_stride + v * L, place, count);
            }
            store_part<L>(out.y + c * out.col_stride + v * L, out.relu ? relu(best) : best, count);
        });
    });
}

// The most columns of a tile for which sums, operands and one temporary value still fit the registers.
constexpr int plain_cols(int vectors) { return vector_registers >= 32 ? 14 : vectors == 2 ? 6 : 12; }
constexpr int pooled_cols(int vectors) {
    return vector_registers >= 32 ? (vectors == 2 ? 6 : 14) : (vectors == 2 ? 2 : 6);
}

template <typename T>
struct TileKernels {
    std::array<TileKernel<T>, 14> plain{}, pooled{};  // [columns - 1]; nullptr where there is none
};

// The kernels for blocks of this width.
template <typename T>
const TileKernels<T>& tile_kernels(BlockWidth width);

// Cuts the columns [0, cols) of a row into tiles of nearly equal width, each a multiple of `unit` and at
// most `most`, and calls f(kernel for that width, first column) for each.
template <typename Kernels, typename F>
void for_each_tile(const Kernels& kernels, std::int64_t cols, std::int64_t most, std::int64_t unit,
                   const F& f) {
    const std::int64_t units = cols / unit, tiles = (units * unit + most - 1) / most;
    for (std::int64_t t = 0; t < tiles; ++t) {
        const std::int64_t from = units * t / tiles, to = units * (t + 1) / tiles;
        f(kernels[(to - from) * unit - 1], from * unit);
    }
}

}  // namespace minicnn
