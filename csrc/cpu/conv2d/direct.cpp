// The direct way's passes as correlations.  The forward pass is one.  The gradient to the input is one
// for each phase of the stride, because the inputs of a phase all meet the same taps of a filter.
// Fused: bias, ReLU and max-pool into the forward pass, the ReLU mask into the reading of the gradient.
#include "direct.h"

#include "../core/scratch.h"
#include "../core/transpose.h"
#include "correlation.h"
#include "phase.h"

namespace minicnn {
namespace {

template <typename T>
Correlation<T> forward_correlation(const T* x, const PackedFilters<T>& filters, const ConvParams& p) {
    return {x,    nullptr, p.N, p.H,      p.W,    p.C, taps_down(p), taps_across(p),
            p.OH, p.OW,    p.F, p.groups, filters};
}

}  // namespace

template <typename T>
PackedFilters<T> direct_filters(const T* weight, const T* bias, const ConvParams& p, Memory& memory) {
    const int64_t Fg = p.F / p.groups, depth = p.KH * p.KW * (p.C / p.groups);
    const auto fill = [&](int64_t g, int64_t f, int64_t count, int width, T* block) {
        pack_block(weight + (g * Fg + f) * depth, depth, count, depth, block, width);
    };
    return pack_filters<T>(p.groups, Fg, depth, bias, memory, fill);
}

template <typename T>
void direct_forward(const T* x, const PackedFilters<T>& filters, T* y, const ConvParams& p, bool relu) {
    // Step 3: add the bias; the sums begin with it.
    correlate(forward_correlation(x, filters, p),
              PlainOutput<T>{y, p.OH * p.OW * p.F, p.OW * p.F, p.F, relu});
}

template <typename T>
void direct_pooled_forward(const T* x, const PackedFilters<T>& filters, T* y, uint8_t* winner,
                           const ConvParams& p, const PoolParams& pool, bool relu, bool in_tiles) {
    correlate_pooled(forward_correlation(x, filters, p), pool, in_tiles, y, winner, relu);
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

#define INSTANTIATE(T)                                                                            \
    template PackedFilters<T> direct_filters(const T*, const T*, const ConvParams&, Memory&);     \
    template void direct_forward(const T*, const PackedFilters<T>&, T*, const ConvParams&, bool); \
    template void direct_data(const T*, const T*, const T*, T*, const ConvParams&);               \
    template void direct_pooled_forward(const T*, const PackedFilters<T>&, T*, uint8_t*,          \
                                        const ConvParams&, const PoolParams&, bool, bool);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
