// Convolution's passes by Winograd's way: each as a correlation of stride 1 with 3x3 filters.
// What is fused into them is told in winograd.h and winograd_weight.cpp.
#include "winograd_passes.h"

#include "../core/scratch.h"
#include "winograd.h"

namespace minicnn {
namespace {

Correlation<float> forward_correlation(const float* x, const ConvParams& p) {
    return {x, nullptr, p.N, p.H, p.W, p.C, taps_down(p), taps_across(p), p.OH, p.OW, p.F, 1, {}, nullptr};
}

// The gradient at the convolution's map as a source: with the filters turned by half a turn, its
// correlation is the gradient to the input.
Correlation<float> gradient_correlation(const float* dy, const float* relu_y, const uint8_t* winner,
                                        const ConvParams& p) {
    const Taps h{p.pad_h - 2, 1, 3, 1}, w{p.pad_w - 2, 1, 3, 1};
    return {dy, relu_y, p.N, p.OH, p.OW, p.F, h, w, p.H, p.W, p.C, 1, {}, winner};
}

}  // namespace

WinogradFilters winograd_forward_filters(const float* weight, const float* bias, const ConvParams& p,
                                         Memory& memory) {
    const auto weight_at = [&](int64_t f, int64_t u, int64_t v, int64_t i) {
        return weight[((f * 3 + u) * 3 + v) * p.C + i];
    };
    return winograd_filters(p.F, p.C, bias, memory, weight_at);
}

bool winograd_forward(const float* x, const WinogradFilters& filters, float* y, const ConvParams& p,
                      bool relu) {
    const WinogradOutput out{y, p.OH * p.OW * p.F, p.OW * p.F, p.F, p.OH, p.OW, relu, false, nullptr};
    return winograd(forward_correlation(x, p), filters, out);
}

bool winograd_pooled_forward(const float* x, const WinogradFilters& filters, float* y, uint8_t* winner,
                             const ConvParams& p, const PoolParams& pool, bool relu) {
    const WinogradOutput out{
        y, pool.OH * pool.OW * p.F, pool.OW * p.F, p.F, pool.OH, pool.OW, relu, true, winner};
    return winograd(forward_correlation(x, p), filters, out);
}

bool winograd_data(const float* dy, const float* relu_y, const uint8_t* winner, const float* weight,
                   float* dx, const ConvParams& p) {
    const auto weight_at = [&](int64_t i, int64_t u, int64_t v, int64_t f) {
        return weight[((f * 3 + 2 - u) * 3 + 2 - v) * p.C + i];
    };
    const WinogradOutput out{dx, p.H * p.W * p.C, p.W * p.C, p.C, p.H, p.W, false, false, nullptr};
    Scratch scratch;
    return winograd(gradient_correlation(dy, relu_y, winner, p),
                    winograd_filters(p.C, p.F, nullptr, scratch, weight_at), out);
}

bool winograd_weight(const float* dy, const float* relu_y, const uint8_t* winner, const float* x, float* dw,
                     const ConvParams& p) {
    return winograd_weight_sums(forward_correlation(x, p), gradient_correlation(dy, relu_y, winner, p), dw);
}

}  // namespace minicnn
