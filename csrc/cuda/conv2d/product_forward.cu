// The forward pass of a convolution as a product: pixels x filters, with k along cells and channels.

#include "operands.h"
#include "products.h"

namespace minicnn::cuda {

template <typename T>
void product_forward(const T* x, const Sum<T>* weight, const ForwardOutput<T>& out, const ConvParams& p) {
    const std::int64_t channels = padded<T>(p.C / p.groups), filters = p.F / p.groups;
    const std::int64_t depth = p.KH * p.KW * channels;
    const PaddedArray<T> images = padded_images(x, p), weights = padded_filters<T>(weight, p);
    const Patches<T, true> a{images.get(),      p.groups * channels, int(channels),
                             place_in_input(p), Pixels(p.OH, p.OW),  Taps(p.KW, channels)};
    const Matrix<T, true> b{weights.get(), depth, padded<T>(filters) * depth};
    // Step 2: multiply them by the filter and add up.
    product<ManyRows>(a, b, out, {p.N * p.OH * p.OW, depth, narrow(filters, "F"), int(p.groups)});
}

#define INSTANTIATE(T) \
    template void product_forward(const T*, const Sum<T>*, const ForwardOutput<T>&, const ConvParams&)
INSTANTIATE(float);
INSTANTIATE(double);
INSTANTIATE(bfloat16);

}  // namespace minicnn::cuda
