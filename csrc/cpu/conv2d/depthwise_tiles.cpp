// A tile of outputs in registers.  Each pixel is loaded once, in place, for all taps of a filter's row
// that read it.
#include "depthwise_tiles.h"

#include <algorithm>
#include <array>

#include "../core/parallel.h"
#include "../core/scratch.h"
#include "../core/tile.h"

namespace minicnn {
namespace {

constexpr int L = lanes<float>;

// A row of outputs, with the pixels that it reads as [row of the filter][column].
struct OutputRow {
    const float* const* pixels;
    int64_t columns, KH, C;
    const float *values, *bias;  // bias may be nullptr
    float* y;
    bool relu;
};

// Computes the outputs [first, first + COUNT) for filters RUN wide at a stride of STEP.  The last vector
// of channels may overlap the one before.
template <int RUN, int STEP, int COUNT>
void sum_tile(const OutputRow& row, int64_t first) {
    const int64_t C = row.C;
    for (int64_t c = 0; c < C; c += L) {
        const int64_t channel = std::min(c, C - L);
        const float* const* pixel = row.pixels + first * STEP;
        const float* values = row.values + channel;
        Vec<float, L> sum[COUNT];
        const Vec<float, L> bias = row.bias ? load<L>(row.bias + channel) : Vec<float, L>{};
        unroll<COUNT>([&](auto i) __attribute__((always_inline)) { sum[i] = bias; });
        for (int64_t u = 0; u < row.KH; ++u, pixel += row.columns) {
            Vec<float, L> value[RUN];
            unroll<RUN>([&](auto v) __attribute__((always_inline)) {
                value[v] = load<L>(values);
                values += C;
            });
            unroll<(COUNT - 1) * STEP + RUN>([&](auto q) __attribute__((always_inline)) {
                const Vec<float, L> x = load<L>(pixel[q] + channel);
                unroll<RUN>([&](auto v) __attribute__((always_inline)) {
                    constexpr int at = q - v, i = at / STEP;
                    if constexpr (at >= 0 && at % STEP == 0 && i < COUNT) sum[i] += x * value[v];
                });
            });
        }
        float* y = row.y + first * C + channel;
        unroll<COUNT>([&](auto i) __attribute__((always_inline)) {
            store(y + i * C, row.relu ? relu(sum[i]) : sum[i]);
        });
    }
}

constexpr int most_outputs = 8;
using Kernels =
    std::array<void (*)(const OutputRow&, int64_t), most_outputs>;  // by [number of outputs - 1]

template <int RUN, int STEP, int... I>
constexpr Kernels kernels_of(std::integer_sequence<int, I...>) {
    return {sum_tile<RUN, STEP, I + 1>...};
}

// The kernels for filters RUN wide at a stride of 1 or 2.
template <int RUN>
const Kernels& kernels_for(int64_t stride) {
    constexpr std::make_integer_sequence<int, most_outputs> outputs;
    static constexpr Kernels kernels[2] = {kernels_of<RUN, 1>(outputs), kernels_of<RUN, 2>(outputs)};
    return kernels[stride - 1];
}

// Sets the pixels that row i of image n reads.  Padding is multiplied with too, because 0 * NaN is NaN.
void set_pixels(const ConvParams& p, const float* x, const float* zeros, int64_t n, int64_t i,
                int64_t columns, const float** pixels) {
    const int64_t from = std::min(p.pad_w, columns), to = std::clamp(p.W + p.pad_w, from, columns);
    for (int64_t u = 0; u < p.KH; ++u, pixels += columns) {
        const int64_t h = i * p.stride_h - p.pad_h + u * p.dil_h;
        std::fill_n(pixels, columns, zeros);
        if (h < 0 || h >= p.H) continue;
        const float* first = x + (n * p.H + h) * p.W * p.C;
        for (int64_t q = from; q < to; ++q) pixels[q] = first + (q - p.pad_w) * p.C;
    }
}

}  // namespace

void depthwise_tiles_forward(const float* x, const float* values, const float* bias, float* y,
                             const ConvParams& p, bool relu) {
    const Kernels& kernels = p.KW == 3 ? kernels_for<3>(p.stride_w) : kernels_for<5>(p.stride_w);
    Scratch scratch;
    float* zeros = scratch.take<float>(p.C);
    std::fill_n(zeros, p.C, 0.0f);
    const int64_t columns = (p.OW - 1) * p.stride_w + p.KW;
    const double flops = 2.0 * static_cast<double>(p.OW * p.C * p.KH * p.KW);
    parallel_for(0, p.N * p.OH, grain_for(flops), [&](int64_t first, int64_t last) {
        Scratch own;
        const float** pixels = own.take<const float*>(p.KH * columns);
        for (int64_t i = first; i < last; ++i) {
            set_pixels(p, x, zeros, i / p.OH, i % p.OH, columns, pixels);
            const OutputRow row{pixels, columns, p.KH, p.C, values, bias, y + i * p.OW * p.C, relu};
            for_each_tile(kernels, p.OW, most_outputs, 1, [&](auto sum, int64_t j) { sum(row, j); });
        }
    });
}

}  // namespace minicnn
