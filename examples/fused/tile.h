// The register tile of steps 3 to 6: 2 rows x COLS columns of output pixels x `vectors` vectors of filters.
// Its sums stay in registers while all 3 x 3 x C products are added.  Each loaded vector of weights is used
// for 2 * COLS pixels, and each loaded input value for `vectors` vectors.
#pragma once

#include "common.h"

// The 2 x 4 x vectors sums must leave some registers free for weights and input values.  They take 16 of
// AVX-512's 32 registers, and 8 of AVX2's 16.
#ifdef __AVX512F__
constexpr int vectors = 2;
#else
constexpr int vectors = 1;
#endif
constexpr int block = vectors * lanes;  // filters of a tile

template <int COLS>
struct Tile {
    static constexpr int cols = COLS;
    Vec sum[2][COLS][vectors];  // [row][column][vector of filters]
};

// x is the padded image (H+2,W+2,C) at the tile's upper left corner; w is (3,3,C,F) at the tile's first
// filter.
template <int COLS>
inline __attribute__((always_inline)) void accumulate(Tile<COLS>& tile, const float* x, const float* w,
                                                      const float* b, const Shape& s) {
    const int row = (s.W + 2) * s.C;
#pragma GCC unroll 2
    for (int r = 0; r < 2; ++r)
#pragma GCC unroll 4
        for (int c = 0; c < COLS; ++c)
#pragma GCC unroll 2
            for (int v = 0; v < vectors; ++v) tile.sum[r][c][v] = load(b + v * lanes);
    for (int u = 0; u < 3; ++u) {
        // the three pixels below one row of the filter lie side by side: 3 * C values
        for (int k = 0; k < 3 * s.C; ++k, w += s.F) {
            const float* from = x + u * row + k;
#pragma GCC unroll 2
            for (int r = 0; r < 2; ++r)
#pragma GCC unroll 4
                for (int c = 0; c < COLS; ++c) {
                    const float value = from[r * row + c * s.C];
#pragma GCC unroll 2
                    for (int v = 0; v < vectors; ++v) tile.sum[r][c][v] += load(w + v * lanes) * value;
                }
        }
    }
}

// A copy of one image with a border of zeros, so that the tile need not check for edges.
inline const float* padded(const float* x, const Shape& s) {
    static thread_local std::vector<float> copy;
    copy.assign(std::size_t(s.H + 2) * (s.W + 2) * s.C, 0.0f);
    for (int i = 0; i < s.H; ++i) {
        std::memcpy(&copy[((i + 1) * (s.W + 2) + 1) * s.C], x + i * s.W * s.C, s.W * s.C * sizeof(float));
    }
    return copy.data();
}

// Calls finish(tile, n, i, j, f) for every tile of the images from `first` to before `last`, where (i,j) is
// the tile's upper left pixel and f its first filter.  It is not inlined: otherwise the caller's variables
// would take registers that the tile's addresses need.
template <typename F>
__attribute__((noinline)) void for_each_tile(const float* x, const float* w, const float* b, const Shape& s,
                                             int first, int last, const F& finish) {
    for (int n = first; n < last; ++n) {
        const float* image = padded(x + std::int64_t(n) * s.H * s.W * s.C, s);
        for (int f = 0; f < s.F; f += block) {
            for (int i = 0; i < s.H; i += 2) {
                int j = 0;
                for (; j + 4 <= s.W; j += 4) {
                    Tile<4> tile;
                    accumulate(tile, image + (i * (s.W + 2) + j) * s.C, w + f, b + f, s);
                    finish(tile, n, i, j, f);
                }
                if (j < s.W) {
                    Tile<2> tile;
                    accumulate(tile, image + (i * (s.W + 2) + j) * s.C, w + f, b + f, s);
                    finish(tile, n, i, j, f);
                }
            }
        }
    }
}
