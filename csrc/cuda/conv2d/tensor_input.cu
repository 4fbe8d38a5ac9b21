// The gradient of a convolution to its input by tensor cores: inputs x channels, with k along cells and
// filters; one product for each phase of the stride (axis.h).

#include "tensor_conv2d.h"
#include "tensor_operands.h"

namespace minicnn::cuda {
namespace {

// Near the border a tap may meet no dy, and a zero enters the product in its place.  If the weight is
// infinite there, zero times infinity is NaN, although there is nothing to add.  So a result that is not
// finite is computed again without these zeros.
template <typename T>
struct TensorInputOutput {
    using A = TensorPatches<T, true>;
    using B = TensorFilters<T>;
    T* dx;
    A a;
    B b;
    std::int64_t H, W, C;
    int phase_h, phase_w, stride_h, stride_w, group_channels, cells_h, cells_w;
    static constexpr bool doubts = true;
    using Stored = T;
    struct Column {};

    __device__ std::int64_t row(std::int64_t m) const {
        const Pixel at = a.pixels.at(m);
        const std::int64_t h = phase_h + std::int64_t(at.h) * stride_h;
        const std::int64_t w = phase_w + std::int64_t(at.w) * stride_w;
        return ((at.n * H + h) * W + w) * C;
    }
    __device__ Column column(int, int, int) const { return {}; }
    __device__ T* at(int group, std::int64_t row, int n) const {
        return dx + row + group * group_channels + n;
    }
    __device__ Vector<float, 2> value(const Column&, const Vector<float, 2>& sum) const { return sum; }
    __device__ void put(int group, std::int64_t row, int n, const Column&, const Vector<float, 2>& sum,
                        int count) const {
        const Vector<T, 2> values{minicnn::narrow<T>(sum.v[0]), minicnn::narrow<T>(sum.v[1])};
        store_some(at(group, row, n), values, count);
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
        float sum = 0;
        for (int u = 0; u < cells_h; ++u) {
            for (int v = 0; v < cells_w; ++v) {
                if (!a.meets(pixel, u, v)) continue;
                for (int f = 0; f < int(b.filters); ++f) {
                    const std::int64_t k = (std::int64_t(u) * cells_w + v) * b.filters + f;
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
    const TensorPatches<T, true> a{gradient,
                                   p.groups * many,
                                   int(many),
                                   place,
                                   Pixels(down.inputs, across.inputs),
                                   Taps(across.taps, many)};
    const TensorFilters<T> b{filters,
                             p.KH,
                             p.KW,
                             padded<T>(channels),
                             many,
                             int(down.start),
                             int(across.start),
                             int(down.every),
                             int(across.every),
                             Taps(across.taps, many)};
    const TensorInputOutput<T> out{dx,
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
                                   int(down.taps),
                                   int(across.taps)};
    tensor_product<ShapesOfRows<T>>(
        a, b, out,
        {p.N * down.inputs * across.inputs, depth, narrow(channels, "C"), 0, int(p.groups), 1, 0});
}

}  // namespace

template <typename T>
void tensor_input_gradient(const T* gradient, const T* filters, T* dx, const ConvParams& p) {
    for (std::int64_t i = 0; i < std::min(p.stride_h, p.H); ++i) {
        for (std::int64_t j = 0; j < std::min(p.stride_w, p.W); ++j) {
            one_phase(gradient, filters, dx, p, axis_of(i, p.H, p.stride_h, p.dil_h, p.pad_h, p.KH),
                      axis_of(j, p.W, p.stride_w, p.dil_w, p.pad_w, p.KW));
        }
    }
}

template void tensor_input_gradient(const float*, const float*, float*, const ConvParams&);
template void tensor_input_gradient(const bfloat16*, const bfloat16*, bfloat16*, const ConvParams&);

}  // namespace minicnn::cuda
