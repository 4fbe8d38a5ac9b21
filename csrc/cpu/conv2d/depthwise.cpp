// Depthwise convolution with channels in the vector lanes.  An output is the sum over its taps of a
// pixel's channels times the tap's channels.
// Fused: bias and ReLU into the forward pass, the ReLU mask into the reading of the gradient.
#include "depthwise.h"

#include "../core/batch_split.h"
#include "../core/parallel.h"
#include "../core/scratch.h"
#include "../core/tile.h"
#include "window.h"

namespace minicnn {
namespace {

// Images with a mask, of which the columns [first, last) are read: some may lie in the padding on either
// side.
template <typename T>
struct Padded {
    const T *images, *mask;  // (N,H,W,C)
    int64_t H, W, C, first, last;
    int64_t reach;   // so many rows are read at a time
    const T* zeros;  // a row of padding, which is multiplied with too: 0 * NaN is NaN

    Padded(const T* images, const T* mask, int64_t H, int64_t W, int64_t C, int64_t first, int64_t last,
           int64_t reach, Scratch& scratch)
        : images(images),
          mask(mask),
          H(H),
          W(W),
          C(C),
          first(first),
          last(last),
          reach(std::min(reach, H)) {
        T* row = scratch.take<T>((last - first) * C);
        std::fill_n(row, (last - first) * C, T(0));
        zeros = row;
    }
};

// The rows of padded images for one thread: in place, or as copies, of which the last `reach` are kept.
template <typename T>
class Rows {
  public:
    Rows(const Padded<T>& p, Scratch& scratch)
        : p_(p), in_place_(!p.mask && p.first >= 0 && p.last <= p.W), size_((p.last - p.first) * p.C) {
        if (in_place_) return;
        copies_ = scratch.take<T>(p.reach * size_);
        held_ = scratch.take<int64_t>(p.reach);
        std::fill_n(held_, p.reach, int64_t{-1});
    }

    // Where column 0 of row h of image n lies.
    const T* operator()(int64_t n, int64_t h) {
        if (h < 0 || h >= p_.H) return p_.zeros - p_.first * p_.C;
        const int64_t row = n * p_.H + h, at = row * p_.W * p_.C, slot = h % p_.reach;
        if (in_place_) return p_.images + at;
        T* copy = copies_ + slot * size_;
        if (held_[slot] != row) {
            copy_window(p_.images + at, p_.mask ? p_.mask + at : nullptr, 1, p_.W, p_.C, 0, 1, p_.first,
                        p_.last, copy);
            held_[slot] = row;
        }
        return copy - p_.first * p_.C;
    }

  private:
    const Padded<T>& p_;
    bool in_place_;
    int64_t size_;
    T* copies_ = nullptr;
    int64_t* held_ = nullptr;  // which row each copy holds
};

// One tap of a row of outputs: the pixel that it reads for output 0, and its value for each channel.
template <typename T, typename Value = const T>
struct Tap {
    const T* pixel;
    Value* values;
};

// y[j*y_step + c] = bias[c] + sum over taps of pixel[j*step + c] * values[c]
template <typename T>
struct RowOfSums {
    const Tap<T>* taps;
    int64_t count, step, C;
    const T* bias;  // or nullptr
    T* y;
    int64_t y_step;
    bool relu;
};

// Computes the outputs [first, first + COUNT).  The last vector of channels may overlap the one before.
template <int L, int COUNT, typename T>
void sum_taps(const RowOfSums<T>& row, int64_t first) {
    const int64_t step = row.step;
    for (int64_t c = 0; c < row.C; c += L) {
        const int64_t at = std::min(c, row.C - L), offset = first * step + at;
        Vec<T, L> sum[COUNT];
        const Vec<T, L> bias = row.bias ? load<L>(row.bias + at) : Vec<T, L>{};
        unroll<COUNT>([&](auto i) __attribute__((always_inline)) { sum[i] = bias; });
        for (const Tap<T>*tap = row.taps, *end = tap + row.count; tap != end; ++tap) {
            const Vec<T, L> value = load<L>(tap->values + at);
            const T* pixel = tap->pixel + offset;
            unroll<COUNT>([&](auto i) __attribute__((always_inline)) {
                sum[i] += load<L>(pixel) * value;
                pixel += step;
            });
        }
        T* y = row.y + first * row.y_step + at;
        unroll<COUNT>([&](auto i) __attribute__((always_inline)) {
            store(y, row.relu ? relu(sum[i]) : sum[i]);
            y += row.y_step;
        });
    }
}

// What a row of outputs adds to the gradient of each tap: dy times the pixels that the tap reads.  Each
// vector of channels has sums of its own, because the last one overlaps the one before.
template <typename T>
struct RowOfProducts {
    int64_t count, step, C;
    const T *dy, *relu_y;
};

template <int L, int COUNT, typename T>
void add_products(const RowOfProducts<T>& row, const Tap<T, T>* taps) {
    for (int64_t c = 0; c < row.C; c += L) {
        const int64_t at = std::min(c, row.C - L);
        Vec<T, L> sum[COUNT];
        const T* pixel[COUNT];
        unroll<COUNT>([&](auto t) __attribute__((always_inline)) {
            sum[t] = load<L>(taps[t].values + c);
            pixel[t] = taps[t].pixel + at;
        });
        int64_t offset = 0;
        for (int64_t j = 0; j < row.count; ++j, offset += row.step) {
            Vec<T, L> d = load<L>(row.dy + j * row.C + at);
            if (row.relu_y) d = load<L>(row.relu_y + j * row.C + at) <= 0 ? Vec<T, L>{} : d;
            unroll<COUNT>([&](auto t)
                              __attribute__((always_inline)) { sum[t] += d * load<L>(pixel[t] + offset); });
        }
        unroll<COUNT>([&](auto t) __attribute__((always_inline)) { store(taps[t].values + c, sum[t]); });
    }
}

constexpr int most_outputs = plain_cols(1), most_taps = 10;

template <typename T>
using Summing = void (*)(const RowOfSums<T>&, int64_t);
template <typename T>
using Adding = void (*)(const RowOfProducts<T>&, const Tap<T, T>*);

// The kernels for one number of lanes, by [number of outputs or taps - 1].
template <typename T>
struct Kernels {
    int lanes;
    std::array<Summing<T>, most_outputs> sum;
    std::array<Adding<T>, most_taps> add;
};

template <typename T, int L, int... I, int... J>
constexpr Kernels<T> kernels_of(std::integer_sequence<int, I...>, std::integer_sequence<int, J...>) {
    return {L, {sum_taps<L, I + 1, T>...}, {add_products<L, J + 1, T>...}};
}

// The kernels with the widest vectors that have no more lanes than there are channels.
template <typename T, int L = lanes<T>>
const Kernels<T>& kernels_for(int64_t channels) {
    if constexpr (L > 2) {
        if (channels < L) return kernels_for<T, L / 2>(channels);
    }
    static constexpr Kernels<T> kernels = kernels_of<T, L>(std::make_integer_sequence<int, most_outputs>{},
                                                           std::make_integer_sequence<int, most_taps>{});
    return kernels;
}

double flops_per_row(const ConvParams& p) { return 2.0 * p.OW * p.C * p.KH * p.KW; }

// The rows of x that the forward pass reads.
template <typename T>
Padded<T> inputs(const T* x, const ConvParams& p, Scratch& scratch) {
    return {x,
            nullptr,
            p.H,
            p.W,
            p.C,
            -p.pad_w,
            (p.OW - 1) * p.stride_w - p.pad_w + (p.KW - 1) * p.dil_w + 1,
            (p.KH - 1) * p.dil_h + 1,
            scratch};
}

// Sets the taps for row i of the outputs of image n; the values of a tap are `value_step` after those of
// the tap before.
template <typename T, typename Value>
void set_taps(const ConvParams& p, Rows<T>& rows, int64_t n, int64_t i, Value* values, int64_t value_step,
              Tap<T, Value>* tap) {
    for (int64_t u = 0; u < p.KH; ++u) {
        const T* row = rows(n, i * p.stride_h - p.pad_h + u * p.dil_h);
        for (int64_t v = 0; v < p.KW; ++v, values += value_step) {
            *tap++ = {row + (v * p.dil_w - p.pad_w) * p.C, values};
        }
    }
}

}  // namespace

template <typename T>
const T* taps_first(const T* weight, const ConvParams& p, Memory& memory) {
    const int64_t taps = p.KH * p.KW;
    T* out = memory.take<T>(taps * p.C);
    for (int64_t c = 0; c < p.C; ++c) {
        for (int64_t t = 0; t < taps; ++t) out[t * p.C + c] = weight[c * taps + t];
    }
    return out;
}

template <typename T>
void depthwise_forward(const T* x, const T* values, const T* bias, T* y, const ConvParams& p, bool on) {
    Scratch scratch;
    const Padded<T> source = inputs(x, p, scratch);
    const Kernels<T>& kernels = kernels_for<T>(p.C);
    parallel_for(0, p.N * p.OH, grain_for(flops_per_row(p)), [&](int64_t first, int64_t last) {
        Scratch own;
        Rows<T> rows(source, own);
        Tap<T>* taps = own.take<Tap<T>>(p.KH * p.KW);
        for (int64_t row = first; row < last; ++row) {
            set_taps(p, rows, row / p.OH, row % p.OH, values, p.C, taps);
            const RowOfSums<T> sums{taps, p.KH * p.KW, p.stride_w * p.C, p.C, bias, y + row * p.OW * p.C,
                                    p.C,  on};
            for_each_tile(kernels.sum, p.OW, most_outputs, 1,
                          [&](Summing<T> sum, int64_t j) { sum(sums, j); });
        }
    });
}

// Each pixel of dx is the sum of the gradients of the outputs that read it.  Row h is read through the
// taps u for which h + pad - u*dil is a multiple of the stride, and likewise for columns.  So every
// stride-th column has the same taps, and these are computed together.
template <typename T>
void depthwise_backward_data(const T* dy, const T* relu_y, const T* weight, T* dx, const ConvParams& p) {
    Scratch scratch;
    const T* values = taps_first(weight, p, scratch);
    const int64_t reach_w = (p.KW - 1) * p.dil_w;
    const int64_t lowest = p.pad_w >= reach_w ? (p.pad_w - reach_w) / p.stride_w
                                              : -((reach_w - p.pad_w + p.stride_w - 1) / p.stride_w);
    const Padded<T> source(dy, relu_y, p.OH, p.OW, p.C, lowest, (p.W - 1 + p.pad_w) / p.stride_w + 1,
                           (p.KH - 1) * p.dil_h / p.stride_h + 1, scratch);
    const Kernels<T>& kernels = kernels_for<T>(p.C);
    parallel_for(0, p.N * p.H, grain_for(flops_per_row(p)), [&](int64_t first, int64_t last) {
        Scratch own;
        Rows<T> rows(source, own);
        Tap<T>* taps = own.take<Tap<T>>(p.KH * p.KW);
        for (int64_t row = first; row < last; ++row) {
            for (int64_t start = 0; start < std::min(p.stride_w, p.W); ++start) {
                Tap<T>* tap = taps;
                for (int64_t u = 0; u < p.KH; ++u) {
                    const int64_t i = row % p.H + p.pad_h - u * p.dil_h;
                    if (i < 0 || i >= p.OH * p.stride_h || i % p.stride_h) continue;
                    const T* gradients = rows(row / p.H, i / p.stride_h);
                    for (int64_t v = 0; v < p.KW; ++v) {
                        const int64_t j = start + p.pad_w - v * p.dil_w;
                        if (j % p.stride_w) continue;
                        *tap++ = {gradients + j / p.stride_w * p.C, values + (u * p.KW + v) * p.C};
                    }
                }
                const RowOfSums<T> sums{
                    taps, tap - taps, p.C, p.C, nullptr, dx + (row * p.W + start) * p.C, p.stride_w * p.C,
                    false};
                for_each_tile(kernels.sum, (p.W - start + p.stride_w - 1) / p.stride_w, most_outputs, 1,
                              [&](Summing<T> sum, int64_t j) { sum(sums, j); });
            }
        }
    });
}

template <typename T>
void depthwise_backward_weight(const T* dy, const T* relu_y, const T* x, T* dw, const ConvParams& p) {
    const Kernels<T>& kernels = kernels_for<T>(p.C);
    const int64_t taps = p.KH * p.KW, per_tap = (p.C + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
    const int64_t size = taps * per_tap;
    const BatchSplit split(p.N * p.OH, 1, size * static_cast<int64_t>(sizeof(T)));
    Scratch scratch;
    T* partials = scratch.take<T>(split.chunks * size);
    const Padded<T> source = inputs(x, p, scratch);
    const double flops =
        flops_per_row(p) * static_cast<double>(split.units) / static_cast<double>(split.chunks);
    parallel_for(0, split.chunks, grain_for(flops), [&](int64_t first, int64_t last) {
        Scratch own;
        Rows<T> rows(source, own);
        Tap<T, T>* tap = own.take<Tap<T, T>>(taps);
        for (int64_t chunk = first; chunk < last; ++chunk) {
            T* sums = partials + chunk * size;
            std::fill_n(sums, size, T(0));
            for (int64_t row = split.first_unit(chunk); row < split.first_unit(chunk + 1); ++row) {
                set_taps(p, rows, row / p.OH, row % p.OH, sums, per_tap, tap);
                const int64_t at = row * p.OW * p.C;
                const RowOfProducts<T> products{p.OW, p.stride_w * p.C, p.C, dy + at,
                                                relu_y ? relu_y + at : nullptr};
                for_each_tile(kernels.add, taps, most_taps, 1,
                              [&](Adding<T> add, int64_t t) { add(products, tap + t); });
            }
        }
    });
    for (int64_t c = 0; c < p.C; ++c) {
        const int64_t block = c / kernels.lanes * kernels.lanes;
        const int64_t at = block + c - std::min(block, p.C - kernels.lanes);
        for (int64_t t = 0; t < taps; ++t) {
            T sum = partials[t * per_tap + at];
            for (int64_t chunk = 1; chunk < split.chunks; ++chunk)
                sum += partials[chunk * size + t * per_tap + at];
            dw[c * taps + t] = sum;
        }
    }
}

#define INSTANTIATE(T)                                                                          \
    template const T* taps_first(const T*, const ConvParams&, Memory&);                         \
    template void depthwise_forward(const T*, const T*, const T*, T*, const ConvParams&, bool); \
    template void depthwise_backward_data(const T*, const T*, const T*, T*, const ConvParams&); \
    template void depthwise_backward_weight(const T*, const T*, const T*, T*, const ConvParams&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
