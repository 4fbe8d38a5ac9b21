// Depthwise convolution with channels in the vector lanes: each pixel sums its taps.
// Fused: bias and ReLU into the forward pass, the ReLU mask into the backward pass.
#include "depthwise.h"

#include "batch_split.h"
#include "correlation.h"

namespace minicnn {
namespace {

// Filters (C,KH,KW) as [tap][channel], so that channels are contiguous.
template <typename T>
const T* taps_first(const T* weight, const ConvParams& p) {
    const int64_t taps = p.KH * p.KW;
    T* out = scratch<T>(Slot::shared_weights, taps * p.C);
    for (int64_t c = 0; c < p.C; ++c) {
        for (int64_t t = 0; t < taps; ++t) out[t * p.C + c] = weight[c * taps + t];
    }
    return out;
}

// dy where the ReLU was on.
template <int L, typename T>
MINICNN_INLINE Vec<T, L> masked(const T* dy, const T* relu_y, int64_t at) {
    const Vec<T, L> v = load<L>(dy + at);
    if (!relu_y) return v;
    return load<L>(relu_y + at) <= 0 ? Vec<T, L>{} : v;
}

template <typename T>
T masked_one(const T* dy, const T* relu_y, int64_t at) {
    return relu_y && relu_y[at] <= 0 ? T(0) : dy[at];
}

// The t in [0, count) for which start + t*step, step > 0, lies in [0, limit).
struct Range {
    int64_t first, last;
    Range(int64_t start, int64_t step, int64_t count, int64_t limit)
        : first(start < 0 ? steps(-start, step) : 0),
          last(std::max(first, limit > start ? std::min(count, steps(limit - start, step)) : 0)) {}
    static int64_t steps(int64_t distance, int64_t step) {
        return step == 1 ? distance : (distance + step - 1) / step;
    }
};

// An image and the pixel of zeros that stands for its padding, which counts: 0 * NaN is NaN.
template <typename T>
struct Source {
    const T *image, *zeros;
};

template <typename T>
const T* zero_pixel(const ConvParams& p) {
    T* zeros = scratch<T>(Slot::shared_map, p.C);
    std::fill_n(zeros, p.C, T(0));
    return zeros;
}

// Calls f(tap, the source's pixel) for each tap of output (i, j).
template <typename T, typename F>
MINICNN_INLINE void for_each_tap(const ConvParams& p, int64_t i, int64_t j, const Source<T>& x,
                                 const F& f) {
    const int64_t h = i * p.stride_h - p.pad_h, w = j * p.stride_w - p.pad_w;
    const Range us(h, p.dil_h, p.KH, p.H), vs(w, p.dil_w, p.KW, p.W);
    for (int64_t u = us.first; u < us.last; ++u) {
        const T* row = x.image + ((h + u * p.dil_h) * p.W + w) * p.C;
        for (int64_t v = vs.first; v < vs.last; ++v) f(u * p.KW + v, row + v * p.dil_w * p.C);
    }
    if ((us.last - us.first) * (vs.last - vs.first) == p.KH * p.KW) return;
    for (int64_t u = 0; u < p.KH; ++u) {
        for (int64_t v = 0; v < p.KW; ++v) {
            const bool inside = u >= us.first && u < us.last && v >= vs.first && v < vs.last;
            if (!inside) f(u * p.KW + v, x.zeros);
        }
    }
}

// Calls f(tap, index of dy's pixel) for each output that reads input (h, w); taps are counted from the
// last.
template <typename F>
MINICNN_INLINE void for_each_reader(const ConvParams& p, int64_t h, int64_t w, const F& f) {
    const int64_t i0 = h + p.pad_h - (p.KH - 1) * p.dil_h, j0 = w + p.pad_w - (p.KW - 1) * p.dil_w;
    const Range us(i0, p.dil_h, p.KH, p.OH * p.stride_h), vs(j0, p.dil_w, p.KW, p.OW * p.stride_w);
    for (int64_t u = us.first; u < us.last; ++u) {
        const int64_t i = i0 + u * p.dil_h;
        if (p.stride_h > 1 && i % p.stride_h) continue;
        const int64_t row = (p.stride_h > 1 ? i / p.stride_h : i) * p.OW, taps = (p.KH - u) * p.KW - 1;
        for (int64_t v = vs.first; v < vs.last; ++v) {
            const int64_t j = j0 + v * p.dil_w;
            if (p.stride_w > 1 && j % p.stride_w) continue;
            f(taps - v, row + (p.stride_w > 1 ? j / p.stride_w : j));
        }
    }
}

double flops_per_row(const ConvParams& p) { return 2.0 * p.OW * p.C * p.KH * p.KW; }

}  // namespace

template <typename T>
void depthwise_forward(const T* x, const T* weight, const T* bias, T* y, const ConvParams& p, bool on) {
    constexpr int L = lanes<T>;
    const T *taps = taps_first(weight, p), *zeros = zero_pixel<T>(p);
    parallel_for(0, p.N * p.OH, grain_for(flops_per_row(p)), [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
            const Source<T> source{x + row / p.OH * p.H * p.W * p.C, zeros};
            for (int64_t j = 0; j < p.OW; ++j) {
                T* out = y + (row * p.OW + j) * p.C;
                int64_t c = 0;
                for (; c + L <= p.C; c += L) {
                    Vec<T, L> sum = bias ? load<L>(bias + c) : Vec<T, L>{};
                    for_each_tap(p, row % p.OH, j, source, [&](int64_t tap, const T* pixel) {
                        sum += load<L>(pixel + c) * load<L>(taps + tap * p.C + c);
                    });
                    store(out + c, on ? relu(sum) : sum);
                }
                for (; c < p.C; ++c) {
                    T sum = bias ? bias[c] : T(0);
                    for_each_tap(p, row % p.OH, j, source, [&](int64_t tap, const T* pixel) {
                        sum += pixel[c] * taps[tap * p.C + c];
                    });
                    out[c] = on && sum <= 0 ? T(0) : sum;
                }
            }
        }
    });
}

template <typename T>
void depthwise_backward_data(const T* dy, const T* relu_y, const T* weight, T* dx, const ConvParams& p) {
    constexpr int L = lanes<T>;
    const T* taps = taps_first(weight, p);
    parallel_for(0, p.N * p.H, grain_for(flops_per_row(p)), [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
            const int64_t image = row / p.H * p.OH * p.OW;
            for (int64_t w = 0; w < p.W; ++w) {
                T* out = dx + (row * p.W + w) * p.C;
                int64_t c = 0;
                for (; c + L <= p.C; c += L) {
                    Vec<T, L> sum{};
                    for_each_reader(p, row % p.H, w, [&](int64_t tap, int64_t pixel) {
                        sum += masked<L>(dy, relu_y, (image + pixel) * p.C + c) *
                               load<L>(taps + tap * p.C + c);
                    });
                    store(out + c, sum);
                }
                for (; c < p.C; ++c) {
                    T sum = 0;
                    for_each_reader(p, row % p.H, w, [&](int64_t tap, int64_t pixel) {
                        sum += masked_one(dy, relu_y, (image + pixel) * p.C + c) * taps[tap * p.C + c];
                    });
                    out[c] = sum;
                }
            }
        }
    });
}

template <typename T>
void depthwise_backward_weight(const T* dy, const T* relu_y, const T* x, T* dw, const ConvParams& p) {
    constexpr int L = lanes<T>;
    const int64_t size = p.KH * p.KW * p.C;
    const BatchSplit split(p.N * p.OH, 1, size * static_cast<int64_t>(sizeof(T)));
    T* partials = scratch<T>(Slot::shared_partials, split.chunks * size);
    const T* zeros = zero_pixel<T>(p);
    const double flops =
        flops_per_row(p) * static_cast<double>(split.units) / static_cast<double>(split.chunks);
    parallel_for(0, split.chunks, grain_for(flops), [&](int64_t first, int64_t last) {
        for (int64_t chunk = first; chunk < last; ++chunk) {
            T* sums = partials + chunk * size;
            std::fill_n(sums, size, T(0));
            for (int64_t row = split.first_unit(chunk); row < split.first_unit(chunk + 1); ++row) {
                const Source<T> source{x + row / p.OH * p.H * p.W * p.C, zeros};
                for (int64_t j = 0; j < p.OW; ++j) {
                    const int64_t at = (row * p.OW + j) * p.C;
                    int64_t c = 0;
                    for (; c + L <= p.C; c += L) {
                        const Vec<T, L> d = masked<L>(dy, relu_y, at + c);
                        for_each_tap(p, row % p.OH, j, source, [&](int64_t tap, const T* pixel) {
                            T* sum = sums + tap * p.C + c;
                            store(sum, load<L>(sum) + d * load<L>(pixel + c));
                        });
                    }
                    for (; c < p.C; ++c) {
                        const T d = masked_one(dy, relu_y, at + c);
                        for_each_tap(p, row % p.OH, j, source, [&](int64_t tap, const T* pixel) {
                            sums[tap * p.C + c] += d * pixel[c];
                        });
                    }
                }
            }
        }
    });
    for (int64_t c = 0; c < p.C; ++c) {
        for (int64_t t = 0; t < p.KH * p.KW; ++t) {
            T sum = partials[t * p.C + c];
            for (int64_t chunk = 1; chunk < split.chunks; ++chunk)
                sum += partials[chunk * size + t * p.C + c];
            dw[c * p.KH * p.KW + t] = sum;
        }
    }
}

#define INSTANTIATE(T)                                                                          \
    template void depthwise_forward(const T*, const T*, const T*, T*, const ConvParams&, bool); \
    template void depthwise_backward_data(const T*, const T*, const T*, T*, const ConvParams&); \
    template void depthwise_backward_weight(const T*, const T*, const T*, T*, const ConvParams&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
