// Convolution forward and backward, and convolution + max-pool forward: each a correlation, or one
// for each phase of the stride, through the engine in correlation.h.
// Fused: bias, ReLU and max-pool into the forward pass, the ReLU mask into the backward pass.
#include <numeric>
#include <type_traits>

#include "../core/transpose.h"
#include "conv2d_columns.h"
#include "conv2d_weight.h"
#include "conv2d_winograd.h"
#include "correlation.h"
#include "depthwise.h"

namespace minicnn {
namespace {

// The correlation of the forward pass, without its filters.
template <typename T>
Correlation<T> forward_correlation(const T* x, const ConvParams& p) {
    const Taps h{-p.pad_h, p.dil_h, p.KH, p.stride_h}, w{-p.pad_w, p.dil_w, p.KW, p.stride_w};
    return {x, nullptr, p.N, p.H, p.W, p.C, h, w, p.OH, p.OW, p.F, p.groups, {}};
}

template <typename T>
PackedFilters<T> forward_filters(const T* weight, const T* bias, const ConvParams& p) {
    const int64_t Fg = p.F / p.groups, depth = p.KH * p.KW * (p.C / p.groups);
    return pack_filters<T>(p.groups, Fg, depth, bias,
                           [&](int64_t g, int64_t f, int64_t count, int width, T* block) {
                               pack_block(weight + (g * Fg + f) * depth, depth, count, depth, block, width);
                           });
}

// The taps that reach the inputs phase, phase + stride, ...: every `every`-th from `start`, read at taps.
struct Phase {
    int64_t start, every;
    Taps taps;
};

Phase phase_of(int64_t phase, int64_t stride, int64_t dilation, int64_t padding, int64_t kernel) {
    const int64_t every = stride / std::gcd(stride, dilation);
    for (int64_t u = 0; u < std::min(every, kernel); ++u) {
        const int64_t from = phase + padding - u * dilation;
        if (from % stride != 0) continue;
        return {u, every, {from / stride, -every * dilation / stride, (kernel - u + every - 1) / every, 1}};
    }
    return {0, 1, {0, 0, 0, 1}};
}

template <typename T>
void backward_data(const T* dy, const T* relu_y, const T* weight, T* dx, const ConvParams& p) {
    const int64_t Cg = p.C / p.groups, Fg = p.F / p.groups;
    for (int64_t i = 0; i < std::min(p.stride_h, p.H); ++i) {
        const Phase ph = phase_of(i, p.stride_h, p.dil_h, p.pad_h, p.KH);
        for (int64_t j = 0; j < std::min(p.stride_w, p.W); ++j) {
            const Phase pw = phase_of(j, p.stride_w, p.dil_w, p.pad_w, p.KW);
            const auto fill = [&](int64_t g, int64_t lane, int64_t count, int width, T* block) {
                for (int64_t u = 0; u < ph.taps.count; ++u) {
                    for (int64_t v = 0; v < pw.taps.count; ++v) {
                        const int64_t row = ph.start + u * ph.every, col = pw.start + v * pw.every;
                        const T* filter = weight + ((g * Fg * p.KH + row) * p.KW + col) * Cg + lane;
                        for (int64_t f = 0; f < Fg; ++f, filter += p.KH * p.KW * Cg, block += width) {
                            std::copy_n(filter, count, block);
                            std::fill(block + count, block + width, T(0));
                        }
                    }
                }
            };
            Correlation<T> c{dy, relu_y, p.N, p.OH, p.OW, p.F, ph.taps, pw.taps, 0, 0, p.C, p.groups, {}};
            c.rows = (p.H - i + p.stride_h - 1) / p.stride_h;
            c.cols = (p.W - j + p.stride_w - 1) / p.stride_w;
            c.filters = pack_filters<T>(p.groups, Cg, ph.taps.count * pw.taps.count * Fg, nullptr, fill);
            correlate(c, PlainOutput<T>{dx + (i * p.W + j) * p.C, p.H * p.W * p.C, p.stride_h * p.W * p.C,
                                        p.stride_w * p.C, false});
        }
    }
}

}  // namespace

template <typename T>
void conv2d_forward(const T* x, const T* weight, const T* bias, T* y, const ConvParams& p, bool relu) {
    if (is_depthwise(p)) return depthwise_forward(x, weight, bias, y, p, relu);
    Correlation<T> c = forward_correlation(x, p);
    const PlainOutput<T> out{y, p.OH * p.OW * p.F, p.OW * p.F, p.F, relu};
    if constexpr (std::is_same_v<T, float>) {
        const WinogradOutput to{y, out.image_stride, out.row_stride, p.F, p.OH, p.OW, relu, false, nullptr};
        if (forward_winograd(x, weight, bias, to, p)) return;
    }
    if (columns_forward_pays(p, sizeof(T))) return columns_forward(x, weight, bias, y, p, relu);
    c.filters = forward_filters(weight, bias, p);
    correlate(c, out);
}

template <typename T>
void conv2d_backward(const T* dy, const T* relu_y, const T* x, const T* weight, T* dx, T* dw, T* db,
                     const ConvParams& p) {
    if (is_depthwise(p)) {
        if (dx) depthwise_backward_data(dy, relu_y, weight, dx, p);
        if (dw) depthwise_backward_weight(dy, relu_y, x, dw, p);
        dx = dw = nullptr;
    }
    if (dx && data_winograd(dy, relu_y, nullptr, weight, dx, p, direct_share)) dx = nullptr;
    if (dw && weight_winograd(dy, relu_y, nullptr, x, dw, p, direct_share)) dw = nullptr;
    if (dx && columns_data_pays(p, sizeof(T))) {
        columns_backward_data(dy, relu_y, weight, dx, p);
    } else if (dx) {
        backward_data(dy, relu_y, weight, dx, p);
    }
    if (dw && columns_weight_pays(p, sizeof(T))) {
        columns_backward_weight(dy, relu_y, x, dw, p);
        dw = nullptr;
    }
    if (dw || db) backward_weight(dy, relu_y, x, dw, db, p);
}

bool conv2d_pool_fuses(const ConvParams&, const PoolParams& pool, bool need_saved) {
    // Where windows overlap, the kernel gains only from the backward pass over the winners.  Without one,
    // storing the whole map is faster.
    const bool overlapping = pool.KH > pool.stride_h || pool.KW > pool.stride_w;
    if (overlapping && !need_saved) return false;
    return pool.KH * pool.KW <= relu_off;
}

template <typename T>
void conv2d_pool_forward(const T* x, const T* weight, const T* bias, T* y, uint8_t* winner,
                         const ConvParams& p, const PoolParams& pool, bool relu) {
    Correlation<T> c = forward_correlation(x, p);
    if constexpr (std::is_same_v<T, float>) {
        const WinogradOutput out{
            y, pool.OH * pool.OW * p.F, pool.OW * p.F, p.F, pool.OH, pool.OW, relu, true, winner};
        if (is_two_by_two(pool, p.OH, p.OW) && forward_winograd(x, weight, bias, out, p)) return;
    }
    c.filters = forward_filters(weight, bias, p);
    correlate_pooled(c, pool, y, winner, relu);
}

#define INSTANTIATE(T)                                                                                    \
    template void conv2d_forward(const T*, const T*, const T*, T*, const ConvParams&, bool);              \
    template void conv2d_backward(const T*, const T*, const T*, const T*, T*, T*, T*, const ConvParams&); \
    template void conv2d_pool_forward(const T*, const T*, const T*, T*, uint8_t*, const ConvParams&,      \
                                      const PoolParams&, bool);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
