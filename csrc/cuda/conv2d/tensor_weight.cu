// The gradient of a convolution to its weight by tensor cores: filters x (cells and channels), with k along
// the pixels of the whole batch.

#include "tensor_conv2d.h"
#include "tensor_operands.h"

namespace minicnn::cuda {
namespace {

// dw (F,KH,KW,C/groups).  The columns of the product are its cells and padded channels.
struct TensorWeightOutput {
    float* dw;
    std::int64_t depth;
    int group_filters, channels, padded_channels;
    Divisor by_channels;  // the padded ones
    static constexpr bool doubts = false;
    using Stored = float;
    struct Column {
        int to;  // where n lies in a filter; -1 for a channel that is padding
    };

    __device__ std::int64_t row(std::int64_t m) const { return m * depth; }
    __device__ int place(int n) const {
        const int cell = by_channels.quotient(n), c = n - cell * padded_channels;
        return c < channels ? cell * channels + c : -1;
    }
    __device__ Column column(int, int n, int) const { return {place(n)}; }
    __device__ void put(int group, std::int64_t row, int, const Column& column, const Vector<float, 2>& sum,
                        int count) const {
        if (column.to < 0) return;
        // Padded channels are even in number.  So the second number belongs to the same cell, or is
        // padding.
        const int left = channels - column.to % channels;
        float* const to = dw + std::int64_t(group) * group_filters * depth + row + column.to;
        store_some(to, sum, smaller(left, count));
    }
};

}  // namespace

template <typename T>
void tensor_weight_gradient(const T* gradient, const T* images, float* dw, const ConvParams& p) {
    const std::int64_t channels = padded<T>(p.C / p.groups), filters = p.F / p.groups;
    const std::int64_t many = padded<T>(filters);
    const TensorMatrix<T, false> a{gradient, p.groups * many, many};
    const TensorPatches<T, false> b{images,
                                    p.groups * channels,
                                    int(channels),
                                    place_in_input(p),
                                    Pixels(p.OH, p.OW),
                                    Taps(p.KW, channels)};
    const TensorWeightOutput out{dw,
                                 p.KH * p.KW * (p.C / p.groups),
                                 int(filters),
                                 int(p.C / p.groups),
                                 int(channels),
                                 Divisor(channels)};
    const int columns = narrow(p.KH * p.KW * channels, "the taps of a convolution");
    tensor_product<ShapesOfColumns<T>>(a, b, out,
                                       {filters, p.N * p.OH * p.OW, columns, 0, int(p.groups), 1, 0});
}

template void tensor_weight_gradient(const float*, const float*, float*, const ConvParams&);
template void tensor_weight_gradient(const bfloat16*, const bfloat16*, float*, const ConvParams&);

}  // namespace minicnn::cuda
