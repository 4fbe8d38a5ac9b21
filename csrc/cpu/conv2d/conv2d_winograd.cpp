// Convolution's passes by Winograd's way: each as a correlation of stride 1 with 3x3 filters.
// Fused: as winograd.h and winograd_weight.cpp say.
#include "conv2d_winograd.h"

namespace minicnn {
namespace {

bool suits(const ConvParams& p) {
    return p.KH == 3 && p.KW == 3 && p.stride_h == 1 && p.stride_w == 1 && p.dil_h == 1 && p.dil_w == 1 &&
           p.groups == 1 && p.C >= 16 && p.F >= 16;
}

Correlation<float> forward_correlation(const float* x, const ConvParams& p) {
    const Taps h{-p.pad_h, 1, 3, 1}, w{-p.pad_w, 1, 3, 1};
    return {x, nullptr, p.N, p.H, p.W, p.C, h, w, p.OH, p.OW, p.F, 1, {}, nullptr};
}

Correlation<float> gradient_correlation(const float* dy, const float* relu_y, const uint8_t* winner,
                                        const ConvParams& p) {
    const Taps h{p.pad_h - 2, 1, 3, 1}, w{p.pad_w - 2, 1, 3, 1};
    return {dy, relu_y, p.N, p.OH, p.OW, p.F, h, w, p.H, p.W, p.C, 1, {}, winner};
}

}  // namespace

bool forward_winograd(const float* x, const float* weight, const float* bias, const WinogradOutput& out,
                      const ConvParams& p) {
    const Correlation<float> c = forward_correlation(x, p);
    if (!suits(p) || !winograd_pays(c, direct_share)) return false;
    auto weight_at = [&](int64_t f, int64_t u, int64_t v, int64_t i) {
        return weight[((f * 3 + u) * 3 + v) * p.C + i];
    };
    return winograd(c, winograd_filters(p.F, p.C, bias, weight_at), out);
}

bool data_winograd(const float* dy, const float* relu_y, const uint8_t* winner, const float* weight,
                   float* dx, const ConvParams& p, double share) {
    const Correlation<float> c = gradient_correlation(dy, relu_y, winner, p);
    if (!suits(p) || !winograd_pays(c, share)) return false;
    auto weight_at = [&](int64_t i, int64_t u, int64_t v, int64_t f) {
        return weight[((f * 3 + 2 - u) * 3 + 2 - v) * p.C + i];
    };
    const WinogradOutput out{dx, p.H * p.W * p.C, p.W * p.C, p.C, p.H, p.W, false, false, nullptr};
    return winograd(c, winograd_filters(p.C, p.F, nullptr, weight_at), out);
}

bool weight_winograd(const float* dy, const float* relu_y, const uint8_t* winner, const float* x, float* dw,
                     const ConvParams& p, double share) {
    const Correlation<float> c = forward_correlation(x, p);
    if (!suits(p) || !winograd_pays(c, share)) return false;
    return winograd_weight(c, gradient_correlation(dy, relu_y, winner, p), dw);
}

}  // namespace minicnn
