// Convolutions and dense layers of bfloat16, on the tile unit that MINICNN_TILE_UNIT names: the harness
// takes the emulated one, whose reads and writes the sanitizers see.
#pragma once

#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>

#include "arrays.h"
#include "conv_shapes.h"

namespace minicnn {
namespace {

// The arrays of a run, of which the activations are bfloat16.
struct MixedArrays {
    Arrays<float>& arrays;

    bfloat16* activations(int64_t size) {
        const float* values = arrays.in(size);
        auto* rounded = out(size);
        for (int64_t i = 0; i < size; ++i) rounded[i] = to_bfloat16(values[i]);
        return rounded;
    }
    bfloat16* out(int64_t size) { return arrays.out_of<bfloat16>(size); }
};

void bfloat16_convolution(const ConvShape& s, bool relu) {
    const ConvParams p = params_of(s);
    const int64_t xs = s.N * s.C * s.H * s.W, ws = s.F * s.K * s.K * s.C / s.groups,
                  ys = s.N * p.OH * p.OW * s.F;
    const std::string name = "bfloat16 conv2d C" + std::to_string(s.C) + " F" + std::to_string(s.F);
    check<float>(name, [&](Arrays<float>& a) {
        MixedArrays mixed{a};
        const bfloat16 *x = mixed.activations(xs), *dy = mixed.activations(ys);
        const float* w = a.in(ws);
        bfloat16* y = mixed.out(ys);
        conv2d_forward(x, w, relu ? a.in(s.F) : nullptr, y, p, relu);
        conv2d_backward(dy, relu ? y : nullptr, x, w, mixed.out(xs), a.out(ws), a.out(s.F), p);
    });
    for (const PoolParams& pool : {pool_over(p.OH, p.OW, 2, 2, 0), pool_over(p.OH, p.OW, 3, 2, 1)}) {
        if (pool.OH < 1 || pool.OW < 1 || !conv2d_pool_fuses(p, pool, true)) continue;
        const int64_t pooled = s.N * pool.OH * pool.OW * s.F;
        check<float>(name + " pool", [&](Arrays<float>& a) {
            MixedArrays mixed{a};
            const bfloat16 *x = mixed.activations(xs), *dy = mixed.activations(pooled);
            const float* w = a.in(ws);
            auto* winner = a.out_of<std::uint8_t>(pooled);
            conv2d_pool_forward(x, w, a.in(s.F), mixed.out(pooled), winner, p, pool, relu);
            for (const std::uint8_t* saved :
                 {static_cast<const std::uint8_t*>(winner), a.junk<std::uint8_t>(pooled)}) {
                conv2d_pool_backward(dy, saved, x, w, mixed.out(xs), a.out(ws), a.out(s.F), p, pool);
            }
        });
    }
}

void bfloat16_dense_layer(int64_t N, int64_t in, int64_t out) {
    check<float>("bfloat16 dense", [&](Arrays<float>& a) {
        MixedArrays mixed{a};
        const bfloat16* x = mixed.activations(N * in);
        const float* w = a.in(in * out);
        bfloat16* y = mixed.out(N * out);
        dense_forward(x, w, a.in(out), y, N, in, out, true);
        dense_backward(mixed.activations(N * out), y, x, w, mixed.out(N * in), a.out(in * out), a.out(out),
                       N, in, out);
    });
}

// An infinity is multiplied with zeros of a tile that are none of the filter, and is computed again.
void bfloat16_infinity() {
    const ConvParams p = params_of({1, 3, 6, 20, 5, 3, 1, 1, 1, 1});
    const int64_t xs = 3 * 6 * 20, ys = 5 * 6 * 20;
    check<float>("bfloat16 infinity", [&](Arrays<float>& a) {
        MixedArrays mixed{a};
        bfloat16 *x = mixed.activations(xs), *y = mixed.out(ys);
        float* w = a.inout(5 * 27);
        for (int64_t i = 0; i < 5 * 27; ++i) w[i] = 1;
        x[0] = to_bfloat16(std::numeric_limits<float>::infinity());
        conv2d_forward(x, w, nullptr, y, p, false);
        int64_t infinite = 0;
        for (int64_t i = 0; i < ys; ++i) infinite += std::isinf(to_float(y[i]));
        failures += infinite != 4 * 5;  // the pixels of a corner's neighbourhood, for each filter
    });
}

void bfloat16_layers() {
    setenv("MINICNN_TILE_UNIT", "emulated", /*overwrite=*/0);
    // Few channels, a stride, a dilation, groups, a product of pixels, no image, and blocks of
    // filters that are whole or half.
    const ConvShape shapes[] = {{2, 1, 12, 12, 6, 5, 1, 2, 1, 1}, {1, 17, 7, 5, 33, 3, 2, 1, 1, 1},
                                {2, 8, 9, 9, 8, 3, 1, 2, 2, 1},   {2, 12, 6, 7, 18, 3, 1, 1, 1, 3},
                                {2, 40, 5, 5, 24, 1, 1, 0, 1, 1}, {1, 3, 23, 23, 8, 7, 2, 3, 1, 1},
                                {0, 4, 6, 6, 4, 3, 1, 1, 1, 1},   {1, 32, 16, 16, 32, 3, 1, 1, 1, 1},
                                {5, 9, 2, 3, 35, 3, 1, 1, 1, 1},  {1, 4, 6, 6, 16, 3, 1, 1, 1, 1}};
    for (const ConvShape& s : shapes) {
        for (const bool relu : {false, true}) bfloat16_convolution(s, relu);
    }
    for (const auto& [N, in, out] : {std::array<int64_t, 3>{1, 40, 12}, {33, 257, 65}, {0, 7, 5}}) {
        bfloat16_dense_layer(N, in, out);
    }
    bfloat16_infinity();
}

}  // namespace
}  // namespace minicnn
