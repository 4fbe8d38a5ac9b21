// The gradient of a convolution to its input.  For each phase of the stride (Axis in operands.h) it is a
// product: the patches of dy times the taps that reach the inputs of this phase.

#include <numeric>

#include "conv2d.h"
#include "depthwise.h"

namespace minicnn::cuda {
namespace {

Axis axis_of(std::int64_t phase, std::int64_t inputs, std::int64_t stride, std::int64_t dilation,
             std::int64_t padding, std::int64_t kernel) {
    const std::int64_t every = stride / std::gcd(stride, dilation);
    const std::int64_t count = ceil_div(inputs - phase, stride);
    for (std::int64_t u = 0; u < std::min(every, kernel); ++u) {
        const std::int64_t from = phase + padding - u * dilation;
        if (from % stride != 0) continue;
        const std::int64_t taps = ceil_div(kernel - u, every);
        return {phase, stride, count, u, every, taps, from / stride, every * dilation / stride};
    }
    return {phase, stride, count, 0, 1, 0, 0, 0};
}

// Near the border a tap may meet no dy, and a zero enters the product in its place.  If the weight is
// infinite there, zero times infinity is NaN, although there is nothing to add.  So a result that is not
// finite is computed again without these zeros.
template <typename T, typename A, typename B>
struct InputOutput {
    T* dx;
    A a;
    B b;
    std::int64_t H, W, C;
    Axis down, across;
    Pixels inputs;
    int group_channels, depth;
    static constexpr bool doubts = true, contiguous = true;

    __device__ std::int64_t row(std::int64_t m) const {
        const Pixel at = inputs.at(m);
        const std::int64_t h = down.phase + at.h * down.stride, w = across.phase + at.w * across.stride;
        return ((at.n * H + h) * W + w) * C;
    }
    __device__ T* at(int group, int, std::int64_t row, int n) const {
        return dx + row + group * group_channels + n;
    }
    __device__ T value(int, int, T sum) const { return sum; }
    __device__ void put_again(int group, std::int64_t row_of_dx, std::int64_t m, int n) const {
        A of_group = a;
        B filters = b;
        of_group.select(group);
        filters.select(group);
        const auto row = of_group.row(m, true);
        const auto channel = filters.row(n, true);
        T sum = 0;
        for (int k = 0; k < depth; ++k) {
            const auto at = of_group.depth(k, true);
            if (!of_group.meets(row, at)) continue;
            sum += of_group.template values<1>(row, at).v[0] * *filters.at(channel, filters.depth(k, true));
        }
        *at(group, 0, row_of_dx, n) = sum;
    }
};

template <typename T, int WA, int WB, bool fused>
void one_phase(const T* dy, const Fused& f, const T* weight, T* dx, const ConvParams& p, const Axis& down,
               const Axis& across) {
    using A = GradientPatches<T, fused>;
    using B = TapFilters<T>;
    const std::int64_t channels = p.C / p.groups, depth = down.taps * across.taps * (p.F / p.groups);
    const A a(dy, p, f, down, across);
    const B b(weight, p, down, across);
    const InputOutput<T, A, B> out{dx,
                                   a,
                                   b,
                                   p.H,
                                   p.W,
                                   p.C,
                                   down,
                                   across,
                                   Pixels(down.inputs, across.inputs),
                                   int(channels),
                                   narrow(depth, "the taps and filters of a convolution")};
    const GemmSize s{
        p.N * down.inputs * across.inputs, depth, narrow(channels, "C"), 0, int(p.groups), 1, 0};
    with_math<T, (WB > 1)>(channels,
                           [&](auto math) { gemm<typename decltype(math)::type, WA, WB>(a, b, out, s); });
}

// For a window of one cell that visits every pixel: every tap meets a dy, so that no result needs a second
// look.
template <typename T>
struct PointwiseOutput {
    T* dx;
    std::int64_t C;
    int group_channels;
    static constexpr bool doubts = false, contiguous = true;
    __device__ std::int64_t row(std::int64_t m) const { return m * C; }
    __device__ T* at(int group, int, std::int64_t row, int n) const {
        return dx + row + group * group_channels + n;
    }
    __device__ T value(int, int, T sum) const { return sum; }
};

template <typename T, int WA, int WB>
void pointwise(const T* dy, const T* weight, T* dx, const ConvParams& p) {
    const std::int64_t channels = p.C / p.groups, filters = p.F / p.groups;
    const Matrix<T, true> a{dy, p.F, filters};
    const Matrix<T, false> b{weight, channels, filters * channels};
    const GemmSize s{p.N * p.H * p.W, filters, narrow(channels, "C"), 0, int(p.groups), 1, 0};
    const PointwiseOutput<T> out{dx, p.C, int(channels)};
    with_math<T, (WB > 1)>(channels,
                           [&](auto math) { gemm<typename decltype(math)::type, WA, WB>(a, b, out, s); });
}

template <typename T, int WA, int WB, bool fused>
void all_phases(const T* dy, const Fused& f, const T* weight, T* dx, const ConvParams& p) {
    if constexpr (!fused) {
        if (is_pointwise(p)) return pointwise<T, WA, WB>(dy, weight, dx, p);
    }
    for (std::int64_t i = 0; i < std::min(p.stride_h, p.H); ++i) {
        for (std::int64_t j = 0; j < std::min(p.stride_w, p.W); ++j) {
            one_phase<T, WA, WB, fused>(dy, f, weight, dx, p,
                                        axis_of(i, p.H, p.stride_h, p.dil_h, p.pad_h, p.KH),
                                        axis_of(j, p.W, p.stride_w, p.dil_w, p.pad_w, p.KW));
        }
    }
}

}  // namespace

template <typename T, bool fused>
void conv2d_input_gradient(const T* dy, const Fused& f, const T* weight, T* dx, const ConvParams& p) {
    constexpr int V = full_width<T>;
    const bool wide_dy = aligned(dy) && aligned(f.relu_y) && aligned(f.winner) && p.F / p.groups % V == 0;
    if (is_depthwise(p)) {
        const DepthwiseInput<T, fused> body{Upstream<T, fused>(dy, p, f), weight, dx, p};
        return for_each<T>(body, p.N * p.H * p.W * p.C, wide_dy && aligned(dx));
    }
    const bool wide_weight = aligned(weight) && p.C / p.groups % V == 0;
    if (wide_dy && wide_weight) {
        all_phases<T, V, V, fused>(dy, f, weight, dx, p);
    } else if (wide_dy) {
        all_phases<T, V, 1, fused>(dy, f, weight, dx, p);
    } else {
        all_phases<T, 1, 1, fused>(dy, f, weight, dx, p);
    }
}

// Half of the kernels are compiled here, and half in conv2d_input_fused.cu, at the same time.
#ifndef MINICNN_FUSED
#define MINICNN_FUSED false
#endif
#define INSTANTIATE(T)                                                                          \
    template void conv2d_input_gradient<T, MINICNN_FUSED>(const T*, const Fused&, const T*, T*, \
                                                          const ConvParams&)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn::cuda
