// Winograd's F(4x4, 3x3) (Lavin and Gray 2015, arXiv:1509.09308).  It computes a 3x3 correlation of
// stride 1 in tiles of 4x4 results, each from a 6x6 patch of the source.  Patches and filters are
// transformed into 36 planes; plane by plane the products are one matrix product, with a quarter of the
// direct way's multiplications.  It computes in float only; its rounding error is about ten times that of
// a direct sum.
// Fused: zero padding and ReLU mask on reading; bias, ReLU and 2x2 max-pool on the way back.
#pragma once

#include "correlation.h"
#include "window.h"
#include "winograd_filters.h"

namespace minicnn {

constexpr int winograd_planes = 36;  // a 6x6 patch has so many values, and its transform as well

// Where the results go: the map, with strides as in PlainOutput, or if `pooled` its 2x2 max-pool and the
// winners.
struct WinogradOutput {
    float* y;
    std::int64_t image_stride, row_stride, col_stride;
    std::int64_t rows, cols;  // of y
    bool relu, pooled;
    std::uint8_t* winner;  // with the strides of y; may be nullptr
};

// Copies the window [h0,h1) x [w0,w1) of the source of image n: padded, masked, or with its 2x2 max-pool
// undone.
void read_window(const Correlation<float>& c, std::int64_t n, std::int64_t h0, std::int64_t h1,
                 std::int64_t w0, std::int64_t w1, float* out);

// The rows of 4x4 tiles of all images, cut into blocks of rows whose planes stay near the second-level
// cache.
struct TileRows {
    std::int64_t across, down, total, per_block;
    explicit TileRows(const Correlation<float>& c);
    std::int64_t tiles() const { return across * per_block; }
};

// Transforms one 6x6 patch of a vector of channels into the 36 planes, which lie `plane` apart.
void transform_source(const float* patch, std::int64_t row_stride, std::int64_t col_stride, float* planes,
                      std::int64_t plane);

// v / 9, exact for multiples of 9.  So the results of integer-valued inputs are exact, and ties stay
// ties, which decide max-pool and ReLU.
template <typename V>
MINICNN_INLINE V ninth(V v) {
    const V quotient = v * (1.0f / 9);
    return quotient + (v - quotient * 9) * (1.0f / 9);
}

// dw (F,3,3,C) from x and dy in the same way, by F(3x3, 4x4).  `x` is the forward correlation; of `dy`
// only the source is read, which is the gradient.  Returns false if a result is not finite.
bool winograd_weight_sums(const Correlation<float>& x, const Correlation<float>& dy, float* dw);

// Runs the correlation, whose own filters are not read.  Returns false if a result is not finite.  Then
// what was written counts for nothing: a direct sum may have finite results there, or other ones that are
// not.
bool winograd(const Correlation<float>& c, const WinogradFilters& filters, const WinogradOutput& out);

// 3 G g, the six values of a column of three taps.  They are multiplied by 3 so that every factor is a
// power of two or 3/4, and the results come out exactly nine times too large.
template <typename V>
MINICNN_INLINE void winograd_filter_column(const V (&g)[3], V (&u)[6]) {
    const V ends = g[0] + g[2], outer = g[0] * 0.125f + g[2] * 0.5f, middle = g[1] * 0.25f;
    u[0] = g[0] * 0.75f;
    u[1] = (ends + g[1]) * -0.5f;
    u[2] = (ends - g[1]) * -0.5f;
    u[3] = outer + middle;
    u[4] = outer - middle;
    u[5] = g[2] * 3;
}

// Transforms the taps of a vector of filters into the 36 planes, and stores `count` lanes of each.
MINICNN_INLINE void transform_filters(const float (&taps)[9][lanes<float>], float* planes,
                                      std::int64_t plane, int count) {
    constexpr int L = lanes<float>;
    Vec<float, L> half[3][6], column[6];
    for (int v = 0; v < 3; ++v) {
        const Vec<float, L> g[3] = {load<L>(taps[v]), load<L>(taps[3 + v]), load<L>(taps[6 + v])};
        winograd_filter_column(g, half[v]);
    }
    for (int a = 0; a < 6; ++a) {
        const Vec<float, L> g[3] = {half[0][a], half[1][a], half[2][a]};
        winograd_filter_column(g, column);
        for (int b = 0; b < 6; ++b) store_part<L>(planes + (a * 6 + b) * plane, column[b], count);
    }
}

// Transforms the filters.  weight_at(channel, u, v, c) is tap (u, v) of channel c of the source, in the
// order of the source's rows and columns.
template <typename F>
WinogradFilters winograd_filters(std::int64_t channels, std::int64_t depth, const float* bias,
                                 Memory& memory, const F& weight_at) {
    constexpr int L = lanes<float>;
    const std::int64_t padded = (channels + L - 1) / L * L, plane = padded * depth + L;
    float* blocks = memory.take<float>(winograd_planes * plane + padded);
    float* padded_bias = blocks + winograd_planes * plane;
    for (std::int64_t f = 0; f < padded; ++f) padded_bias[f] = bias && f < channels ? bias[f] : 0.0f;
    // All vectors of a block are stored for one c before the next, because they share cache lines of the
    // planes.
    auto fill_block = [&](std::int64_t f0) {
        const int width = block_lanes<float>(block_width<float>(channels - f0));
        for (std::int64_t c = 0; c < depth; ++c) {
            for (int from = 0; from < width; from += L) {
                const std::int64_t f = f0 + from, count = std::clamp<std::int64_t>(channels - f, 0, L);
                float taps[9][L] = {};
                for (std::int64_t t = 0; t < 9; ++t) {
                    for (std::int64_t l = 0; l < count; ++l) taps[t][l] = weight_at(f + l, t / 3, t % 3, c);
                }
                transform_filters(taps, blocks + f0 * depth + c * width + from, plane,
                                  std::min(L, width - from));
            }
        }
    };
    parallel_for(0, (padded + L) / (2 * L), std::max<std::int64_t>(1, 1024 / depth),
                 [&](std::int64_t first, std::int64_t last) {
                     for (std::int64_t i = first; i < last; ++i) fill_block(i * 2 * L);
                 });
    return {blocks, padded_bias, plane, padded};
}

}  // namespace minicnn
