// The forward pass of a convolution by tensor cores: pixels x filters, with k along cells and channels.

#include "tensor_conv2d.h"
#include "tensor_operands.h"

namespace minicnn::cuda {
namespace {

// y = sum + bias, and then ReLU if `relu`.
template <typename T>
struct TensorForwardOutput {
    T* y;
    const float* bias;
    std::int64_t F;
    int group_filters;
    bool relu;
    static constexpr bool doubts = false;
    using Stored = T;
    using Column = Vector<float, 2>;

    __device__ std::int64_t row(std::int64_t m) const { return m * F; }
    __device__ Column column(int group, int n, int count) const {
        Column offset{};
        for (int q = 0; q < 2; ++q) {
            if (bias && q < count) offset.v[q] = bias[group * group_filters + n + q];
        }
        return offset;
    }
    __device__ T* at(int group, std::int64_t row, int n) const {
        return y + row + group * group_filters + n;
    }
    __device__ Vector<float, 2> value(const Column& offset, Vector<float, 2> sum) const {
        for (int q = 0; q < 2; ++q) {
            sum.v[q] += offset.v[q];
            if (relu) sum.v[q] = cuda::relu(sum.v[q]);
        }
        return sum;
    }
    __device__ void put(int group, std::int64_t row, int n, const Column& offset,
                        const Vector<float, 2>& sum, int count) const {
        const auto values = value(offset, sum);
        const Vector<T, 2> stored{minicnn::narrow<T>(values.v[0]), minicnn::narrow<T>(values.v[1])};
        store_some(at(group, row, n), stored, count);
    }
};

}  // namespace

template <typename T>
void tensor_conv2d_forward(const T* x, const float* weight, const float* bias, T* y, const ConvParams& p,
                           bool relu) {
    const std::int64_t channels = padded<T>(p.C / p.groups), filters = p.F / p.groups;
    const std::int64_t depth = p.KH * p.KW * channels;
    const TensorArray<T> images = tensor_images(x, p), weights = tensor_filters<T>(weight, p);
    const TensorPatches<T, true> a{images.get(),      p.groups * channels, int(channels),
                                   place_in_input(p), Pixels(p.OH, p.OW),  Taps(p.KW, channels)};
    const TensorMatrix<T, true> b{weights.get(), depth, padded<T>(filters) * depth};
    const TensorForwardOutput<T> out{y, bias, p.F, int(filters), relu};
    tensor_product<ShapesOfRows<T>>(
        a, b, out, {p.N * p.OH * p.OW, depth, narrow(filters, "F"), 0, int(p.groups), 1, 0});
}

#define INSTANTIATE(T) \
    template void tensor_conv2d_forward(const T*, const float*, const float*, T*, const ConvParams&, bool)
INSTANTIATE(float);
INSTANTIATE(bfloat16);

}  // namespace minicnn::cuda
