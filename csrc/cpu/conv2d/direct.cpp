// The direct way's passes as correlations.  The forward pass is one.  The gradient to the input is one
// for each phase of the stride, because the inputs of a phase all meet the same taps of a filter.
// Fused: bias, ReLU and max-pool into the forward pass, the ReLU mask into the reading of the gradient.
#include "direct.h"

#include <numeric>

#include "../core/transpose.h"
#include "correlation.h"

namespace minicnn {
namespace {

template <typename T>
Correlation<T> forward_correlation(const T* x, const T* weight, const T* bias, const ConvParams& p,
                                   Scratch& scratch) {
    const int64_t Fg = p.F / p.groups, depth = p.KH * p.KW * (p.C / p.groups);
    const auto fill = [&](int64_t g, int64_t f, int64_t count, int width, T* block) {
        pack_block(weight + (g * Fg + f) * depth, depth, count, depth, block, width);
    };
    const PackedFilters<T> filters = pack_filters<T>(p.groups, Fg, depth, bias, scratch, fill);
    return {x,    nullptr, p.N, p.H,      p.W,    p.C, taps_down(p), taps_across(p),
            p.OH, p.OW,    p.F, p.groups, filters};
}

// The inputs phase, phase + stride, phase + 2*stride, ... meet the same taps of a filter: start, start +
// every, start + 2*every, ...  `taps` says where in the gradient they meet them.
// For example with a stride of 2, a padding of 1 and a kernel of 3, the inputs 0, 2, 4, ... meet tap 1,
// and the inputs 1, 3, 5, ... meet taps 0 and 2.
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

}  // namespace

template <typename T>
void direct_forward(const T* x, const T* weight, const T* bias, T* y, const ConvParams& p, bool relu) {
    Scratch scratch;
    // Step 3: add the bias; the sums begin with it.
    correlate(forward_correlation(x, weight, bias, p, scratch),
              PlainOutput<T>{y, p.OH * p.OW * p.F, p.OW * p.F, p.F, relu});
}

template <typename T>
void direct_pooled_forward(const T* x, const T* weight, const T* bias, T* y, uint8_t* winner,
                           const ConvParams& p, const PoolParams& pool, bool relu, bool in_tiles) {
    Scratch scratch;
    correlate_pooled(forward_correlation(x, weight, bias, p, scratch), pool, in_tiles, y, winner, relu);
}

template <typename T>
void direct_data(const T* dy, const T* relu_y, const T* weight, T* dx, const ConvParams& p) {
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
            Scratch scratch;
            Correlation<T> c{dy, relu_y, p.N, p.OH, p.OW, p.F, ph.taps, pw.taps, 0, 0, p.C, p.groups, {}};
            c.rows = (p.H - i + p.stride_h - 1) / p.stride_h;
            c.cols = (p.W - j + p.stride_w - 1) / p.stride_w;
            c.filters =
                pack_filters<T>(p.groups, Cg, ph.taps.count * pw.taps.count * Fg, nullptr, scratch, fill);
            correlate(c, PlainOutput<T>{dx + (i * p.W + j) * p.C, p.H * p.W * p.C, p.stride_h * p.W * p.C,
                                        p.stride_w * p.C, false});
        }
    }
}

#define INSTANTIATE(T)                                                                                 \
    template void direct_forward(const T*, const T*, const T*, T*, const ConvParams&, bool);           \
    template void direct_data(const T*, const T*, const T*, T*, const ConvParams&);                    \
    template void direct_pooled_forward(const T*, const T*, const T*, T*, uint8_t*, const ConvParams&, \
                                        const PoolParams&, bool, bool);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
