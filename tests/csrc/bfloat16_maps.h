// Drives the kernels that read and write maps of bfloat16: pools, batch norm, elementwise ones, moves.
#pragma once

#include <array>

#include "../../csrc/ops.h"
#include "arrays.h"

namespace minicnn {
namespace {

// Inputs are any bits, NaN and denormals among them; weights and statistics are float.
void bfloat16_pools(const ImageShape& s, const PoolParams& pool) {
    const int64_t xs = s.N * s.H * s.W * s.C, ys = s.N * pool.OH * pool.OW * s.C;
    check<float>("bfloat16 pools", [&](Arrays<float>& a) {
        const auto in = [&](int64_t size) { return a.junk<bfloat16>(size); };
        const auto out = [&](int64_t size) { return a.out_of<bfloat16>(size); };
        auto* argmax = a.out_of<std::uint8_t>(ys);
        const bfloat16* x = in(xs);
        max_pool2d_forward(x, out(ys), argmax, s, pool);
        max_pool2d_backward(in(ys), static_cast<const std::uint8_t*>(argmax), out(xs), s, pool);
        avg_pool2d_forward(x, out(ys), s, pool, true);
        avg_pool2d_backward(in(ys), out(xs), s, pool, false);
        bfloat16* y = out(ys);
        float *mean = a.out(s.C), *invstd = a.out(s.C);
        batch_norm2d_pool_forward(x, a.in(s.C), a.in(s.C), a.inout(s.C), a.positive(s.C), y, argmax, mean,
                                  invstd, s, {0.1, 1e-5, true}, pool);
        for (bfloat16* dx : {out(xs), static_cast<bfloat16*>(nullptr)}) {
            batch_norm2d_pool_backward(in(ys), static_cast<const bfloat16*>(y),
                                       static_cast<const std::uint8_t*>(argmax), x, a.in(s.C),
                                       static_cast<const float*>(mean), static_cast<const float*>(invstd),
                                       dx, a.out(s.C), a.out(s.C), s, true, pool);
        }
    });
}

void bfloat16_images(const ImageShape& s) {
    const int64_t xs = s.N * s.H * s.W * s.C, pixels = s.N * s.H * s.W;
    check<float>("bfloat16 images", [&](Arrays<float>& a) {
        const auto in = [&](int64_t size) { return a.junk<bfloat16>(size); };
        const auto out = [&](int64_t size) { return a.out_of<bfloat16>(size); };
        const bfloat16* x = in(xs);
        adaptive_avg_pool2d_forward(x, out(s.N * 6 * s.C), s, 3, 2);
        adaptive_avg_pool2d_backward(in(s.N * 6 * s.C), out(xs), s, 3, 2);
        bfloat16* y = out(xs);
        float *mean = a.out(s.C), *invstd = a.out(s.C);
        batch_norm2d_forward(x, a.in(s.C), a.in(s.C), a.inout(s.C), a.positive(s.C), in(xs), y, mean,
                             invstd, s, {0.1, 1e-5, true}, true);
        batch_norm2d_backward(in(xs), static_cast<const bfloat16*>(y), x, a.in(s.C),
                              static_cast<const float*>(mean), static_cast<const float*>(invstd), out(xs),
                              out(xs), a.out(s.C), a.out(s.C), s, true);
        flatten_forward(x, out(xs), s);
        flatten_backward(x, out(xs), s);
        const Piece<const bfloat16> pieces[] = {{x, s.C}, {in(pixels * 5), 5}};
        concat_forward(pieces, 2, out(pixels * (s.C + 5)), pixels);
        const Piece<bfloat16> parts[] = {{out(xs), s.C}, {out(pixels * 5), 5}};
        concat_backward(in(pixels * (s.C + 5)), parts, 2, pixels);
        relu_forward(x, out(xs), xs);
        relu_backward(in(xs), in(xs), out(xs), xs);
        relu6_forward(x, out(xs), xs);
        relu6_backward(in(xs), in(xs), out(xs), xs);
        for (const bool relu : {false, true}) add_forward(x, in(xs), out(xs), xs, relu);
        dropout(x, a.junk<std::uint8_t>(xs), 2.0f, out(xs), xs);
        cast(x, a.out(xs), xs);
        cast(a.in(xs), out(xs), xs);
    });
}

void bfloat16_maps() {
    for (const ImageShape& s : {ImageShape{2, 3, 9, 7}, {1, 70, 8, 8}, {3, 1, 5, 6}, {0, 4, 6, 6}}) {
        bfloat16_images(s);
        for (const auto& [kernel, stride, pad] : {std::array<int64_t, 3>{2, 2, 0}, {3, 2, 1}, {3, 1, 1}}) {
            const int64_t OH = out_size(s.H, kernel, stride, pad, 1),
                          OW = out_size(s.W, kernel, stride, pad, 1);
            bfloat16_pools(s, {kernel, kernel, OH, OW, stride, stride, pad, pad, 1, 1, pad, pad});
        }
    }
}

}  // namespace
}  // namespace minicnn
