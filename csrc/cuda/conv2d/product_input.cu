// The gradient of a convolution to its input as products: inputs x channels, with k along cells and
// filters; one product for each phase of the stride (axis.h).

#include "axis.h"
#include "operands.h"
#include "products.h"

namespace minicnn::cuda {
namespace {

// Near the border a tap may meet no dy, and a zero enters the product in its place.  If the weight is
// infinite there, zero times infinity is NaN, although there is nothing to add.  So a result that is not
// finite is computed again without these zeros.
template <typename T>
struct InputOutput {
    using A = Patches<T, true>;
    using B = TapFilters<T>;
    T* dx;
    A a;
    B b;
    std::int64_t H, W, C;
    int phase_h, phase_w, stride_h, stride_w, group_channels, group_filters, cells_h, cells_w;
    static constexpr bool doubts = true;
    using Stored = T;
    struct Column {};

    __device__ std::int64_t row(std::int64_t m) const {
        const Pixel at = a.pixels.at(m);
        const std::int64_t h = phase_h + std::int64_t(at.h) * stride_h;
        const std::int64_t w = phase_w + std::int64_t(at.w) * stride_w;
        return ((at.n * H + h) * W + w) * C;
    }
    template <int V>
    __device__ Column column(int, int, int) const {
        return {};
    }
    __device__ T* at(int group, std::int64_t row, int n) const {
        return dx + row + group * group_channels + n;
    }
    template <int V>
    __device__ Vector<Sum<T>, V> value(const Column&, const Vector<Sum<T>, V>& sum) const {
        return sum;
    }
    template <int V>
    __device__ void put(int group, std::int64_t row, int n, const Column&, const Vector<Sum<T>, V>& sum,
                        int count) const {
        store_some(at(group, row, n), narrowed<T>(sum), count);
    }
    __device__ void put_again(int group, std::int64_t row, std::int64_t m, int n) const {
        T* const to = at(group, row, n);
        if (is_finite(widen(*to))) return;
        A gradient = a;
        B filters = b;
        gradient.select(group);
        filters.select(group);
        const Pixel pixel = a.pixels.at(m);
        const auto window = gradient.row(m, true);
        const auto channel = filters.row(n, true);
        Sum<T> sum = 0;
        for (int u = 0; u < cells_h; ++u) {
            for (int v = 0; v < cells_w; ++v) {
                if (!a.meets(pixel, u, v)) continue;
                for (int f = 0; f < group_filters; ++f) {
                    const std::int64_t k = (std::int64_t(u) * cells_w + v) * group_filters + f;
                    sum += widen(*gradient.at(window, gradient.cursor(k))) *
                           widen(*filters.at(channel, filters.cursor(k)));
                }
            }
        }
        *to = minicnn::narrow<T>(sum);
    }
};

template <typename T>
void one_phase(const T* gradient, const T* filters, T* dx, const ConvParams& p, const Axis& down,
               const Axis& across) {
    const std::int64_t channels = p.C / p.groups, many = padded<T>(p.F / p.groups);
    const std::int64_t depth = down.taps * across.taps * many;
    narrow(depth, "the taps and filters of a convolution");
    narrow(larger(p.OH, down.taps * down.step) * larger(p.OW, across.taps * across.step) * p.groups * many,
           "the elements of an image");
    const WindowPlace place{int(p.OH),       int(p.OW),        1, 1, int(down.first), int(across.first),
                            -int(down.step), -int(across.step)};
    const Patches<T, true> a{gradient,
                             p.groups * many,
                             int(many),
                             place,
                             Pixels(down.inputs, across.inputs),
                             Taps(across.taps, many)};
    const std::int64_t cell = padded<T>(channels), row = p.KW * cell, filter = p.KH * row;
    const TapFilters<T> b{filters + down.start * row + across.start * cell,
                          many * filter,
                          filter,
                          down.every * row,
                          across.every * cell,
                          Taps(across.taps, many)};
    const InputOutput<T> out{dx,
                             a,
                             b,
                             p.H,
                             p.W,
                             p.C,
                             int(down.phase),
                             int(across.phase),
                             int(down.stride),
                             int(across.stride),
                             int(channels),
                             int(many),
                             int(down.taps),
                             int(across.taps)};
    product<ManyRows>(a, b, out,
                      {p.N * down.inputs * across.inputs, depth, narrow(channels, "C"), int(p.groups)});
}

}  // namespace

template <typename T>
void product_input_gradient(const T* gradient, const T* filters, T* dx, const ConvParams& p) {
    for (std::int64_t i = 0; i < std::min(p.stride_h, p.H); ++i) {
        for (std::int64_t j = 0; j < std::min(p.stride_w, p.W); ++j) {
            one_phase(gradient, filters, dx, p, axis_of(i, p.H, p.stride_h, p.dil_h, p.pad_h, p.KH),
                      axis_of(j, p.W, p.stride_w, p.dil_w, p.pad_w, p.KW));
        }
    }
}

#define INSTANTIATE(T) template void product_input_gradient(const T*, const T*, T*, const ConvParams&)
INSTANTIATE(float);
INSTANTIATE(double);
INSTANTIATE(bfloat16);

}  // namespace minicnn::cuda
