// The gradient of a convolution to its weight as a product: filters x (cells and channels), with k along
// the pixels of the whole batch.

#include "operands.h"
#include "products.h"

namespace minicnn::cuda {
namespace {

// dw (F,KH,KW,C/groups).  The columns of the product are its cells and padded channels.
template <typename T>
struct WeightOutput {
    T* dw;
    std::int64_t depth;
    int group_filters, channels, padded_channels;
    Divisor by_channels;  // the padded ones
    static constexpr bool doubts = false;
    using Stored = T;
    struct Column {
        int to;  // where n lies in a filter; -1 for a channel that is padding
    };

    __device__ std::int64_t row(std::int64_t m) const { return m * depth; }
    template <int V>
    __device__ Column column(int, int n, int) const {
        const int cell = by_channels.quotient(n), c = n - cell * padded_channels;
        return {c < channels ? cell * channels + c : -1};
    }
    template <int V>
    __device__ void put(int group, std::int64_t row, int, const Column& column, const Vector<T, V>& sum,
                        int count) const {
        if (column.to < 0) return;
        // V divides the number of padded channels.  So all numbers belong to the same cell, or are padding.
        const int left = channels - column.to % channels;
        T* const to = dw + std::int64_t(group) * group_filters * depth + row + column.to;
        store_some(to, sum, smaller(left, count));
    }
};

}  // namespace

template <typename T>
void product_weight_gradient(const T* gradient, const T* images, Sum<T>* dw, const ConvParams& p) {
    const std::int64_t channels = padded<T>(p.C / p.groups), filters = p.F / p.groups;
    const std::int64_t many = padded<T>(filters);
    const Matrix<T, false> a{gradient, p.groups * many, many};
    const Patches<T, false> b{images,
                              p.groups * channels,
                              int(channels),
                              place_in_input(p),
                              Pixels(p.OH, p.OW),
                              Taps(p.KW, channels)};
    const WeightOutput<Sum<T>> out{dw,
                                   p.KH * p.KW * (p.C / p.groups),
                                   int(filters),
                                   int(p.C / p.groups),
                                   int(channels),
                                   Divisor(channels)};
    const int columns = narrow(p.KH * p.KW * channels, "the taps of a convolution");
    product<ManyColumns>(a, b, out, {filters, p.N * p.OH * p.OW, columns, int(p.groups)});
}

#define INSTANTIATE(T) template void product_weight_gradient(const T*, const T*, Sum<T>*, const ConvParams&)
INSTANTIATE(float);
INSTANTIATE(double);
INSTANTIATE(bfloat16);

}  // namespace minicnn::cuda
