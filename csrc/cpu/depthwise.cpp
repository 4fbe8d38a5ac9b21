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

constexpr int together =
    4;  // pixels of a row that are summed at once, so that a tap is loaded once for all

// An image and the zeros that stand for its padding (for `together` pixels), which counts: 0 * NaN is NaN.
template <typename T>
struct Source {
    const T *image, *zeros;
};

template <typename T>
const T* zero_pixels(const ConvParams& p) {
    const int64_t size = ((together - 1) * p.stride_w + 1) * p.C;
    T* zeros = scratch<T>(Slot::shared_map, size);
    std::fill_n(zeros, size, T(0));
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

// Calls f(constant of the number of pixels, first pixel) over a row of `count` pixels: those of
// [first, last), whose taps all lie inside the image, together, the others one by one.
template <typename F>
MINICNN_INLINE void for_each_pixels(int64_t count, int64_t first, int64_t last, const F& f) {
    for (int64_t j = 0; j < count;) {
        if (j >= first && j + together <= last) {
            f(std::integral_constant<int, together>{}, j);
            j += together;
        } else {
            f(std::integral_constant<int, 1>{}, j++);
        }
    }
}

// The same over a row of outputs.
template <typename F>
MINICNN_INLINE void for_each_outputs(const ConvParams& p, const F& f) {
    const int64_t room = p.W + p.pad_w - (p.KW - 1) * p.dil_w;
    for_each_pixels(p.OW, Range::steps(p.pad_w, p.stride_w),
                    Range::steps(std::max<int64_t>(0, room), p.stride_w), f);
}

double flops_per_row(const ConvParams& p) { return 2.0 * p.OW * p.C * p.KH * p.KW; }

}  // namespace

template <typename T>
void depthwise_forward(const T* x, const T* weight, const T* bias, T* y, const ConvParams& p, bool on) {
    constexpr int L = lanes<T>;
    const T *taps = taps_first(weight, p), *zeros = zero_pixels<T>(p);
    parallel_for(0, p.N * p.OH, grain_for(flops_per_row(p)), [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
            const Source<T> source{x + row / p.OH * p.H * p.W * p.C, zeros};
            for_each_outputs(p, [&](auto pixels, int64_t j) {
                constexpr int P = pixels;
                T* out = y + (row * p.OW + j) * p.C;
                int64_t c = 0;
                for (; c + L <= p.C; c += L) {
                    Vec<T, L> sum[P];
                    for (Vec<T, L>& s : sum) s = bias ? load<L>(bias + c) : Vec<T, L>{};
                    for_each_tap(p, row % p.OH, j, source, [&](int64_t tap, const T* pixel) {
                        const Vec<T, L> w = load<L>(taps + tap * p.C + c);
                        unroll<P>([&](auto q) __attribute__((always_inline)) {
                            sum[q] += load<L>(pixel + q * p.stride_w * p.C + c) * w;
                        });
                    });
                    for (int q = 0; q < P; ++q) store(out + q * p.C + c, on ? relu(sum[q]) : sum[q]);
                }
                for (; c < p.C; ++c) {
                    for (int q = 0; q < P; ++q) {
                        T sum = bias ? bias[c] : T(0);
                        for_each_tap(p, row % p.OH, j + q, source, [&](int64_t tap, const T* pixel) {
                            sum += pixel[c] * taps[tap * p.C + c];
                        });
                        out[q * p.C + c] = on && sum <= 0 ? T(0) : sum;
                    }
                }
            });
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
            const int64_t inside = p.stride_w == 1 ? p.OW - p.pad_w : 0;
            for_each_pixels(p.W, (p.KW - 1) * p.dil_w - p.pad_w, inside, [&](auto pixels, int64_t w) {
                constexpr int P = pixels;
                T* out = dx + (row * p.W + w) * p.C;
                int64_t c = 0;
                for (; c + L <= p.C; c += L) {
                    Vec<T, L> sum[P] = {};
                    for_each_reader(p, row % p.H, w, [&](int64_t tap, int64_t pixel) {
                        const Vec<T, L> t = load<L>(taps + tap * p.C + c);
                        unroll<P>([&](auto q) __attribute__((always_inline)) {
                            sum[q] += masked<L>(dy, relu_y, (image + pixel + q) * p.C + c) * t;
                        });
                    });
                    for (int q = 0; q < P; ++q) store(out + q * p.C + c, sum[q]);
                }
                for (; c < p.C; ++c) {
                    for (int q = 0; q < P; ++q) {
                        T sum = 0;
                        for_each_reader(p, row % p.H, w + q, [&](int64_t tap, int64_t pixel) {
                            sum += masked_one(dy, relu_y, (image + pixel) * p.C + c) * taps[tap * p.C + c];
                        });
                        out[q * p.C + c] = sum;
                    }
                }
            });
        }
    });
}

template <typename T>
void depthwise_backward_weight(const T* dy, const T* relu_y, const T* x, T* dw, const ConvParams& p) {
    constexpr int L = lanes<T>;
    const int64_t size = p.KH * p.KW * p.C;
    const BatchSplit split(p.N * p.OH, 1, size * static_cast<int64_t>(sizeof(T)));
    T* partials = scratch<T>(Slot::shared_partials, split.chunks * size);
    const T* zeros = zero_pixels<T>(p);
    const double flops =
        flops_per_row(p) * static_cast<double>(split.units) / static_cast<double>(split.chunks);
    parallel_for(0, split.chunks, grain_for(flops), [&](int64_t first, int64_t last) {
        for (int64_t chunk = first; chunk < last; ++chunk) {
            T* sums = partials + chunk * size;
            std::fill_n(sums, size, T(0));
            for (int64_t row = split.first_unit(chunk); row < split.first_unit(chunk + 1); ++row) {
                const Source<T> source{x + row / p.OH * p.H * p.W * p.C, zeros};
                for_each_outputs(p, [&](auto pixels, int64_t j) {
                    constexpr int P = pixels;
                    const int64_t at = (row * p.OW + j) * p.C;
                    int64_t c = 0;
                    for (; c + L <= p.C; c += L) {
                        Vec<T, L> d[P];
                        for (int q = 0; q < P; ++q) d[q] = masked<L>(dy, relu_y, at + q * p.C + c);
                        for_each_tap(p, row % p.OH, j, source, [&](int64_t tap, const T* pixel) {
                            T* to = sums + tap * p.C + c;
                            Vec<T, L> sum = load<L>(to);
                            unroll<P>([&](auto q) __attribute__((always_inline)) {
                                sum += d[q] * load<L>(pixel + q * p.stride_w * p.C + c);
                            });
                            store(to, sum);
                        });
                    }
                    for (; c < p.C; ++c) {
                        for (int q = 0; q < P; ++q) {
                            const T d = masked_one(dy, relu_y, at + q * p.C + c);
                            for_each_tap(p, row % p.OH, j + q, source, [&](int64_t tap, const T* pixel) {
                                sums[tap * p.C + c] += d * pixel[c];
                            });
                        }
                    }
                });
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
