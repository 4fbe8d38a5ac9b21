// Convolution, alone and with ReLU: which kernels compute the forward and the backward pass.

#include "conv2d.h"
#include "depthwise.h"
#include "first_layer.h"

namespace minicnn {

template <typename T>
void conv2d_forward(const T* x, const T* weight, const T* bias, T* y, const ConvParams& p, bool relu) {
    cuda::check_sizes(p);
    if (is_depthwise(p)) {
        const cuda::DepthwiseForward<T> f{x, weight, bias, y, p, relu};
        const bool wide = cuda::aligned(x) && cuda::aligned(y) && p.C % cuda::full_width<T> == 0;
        return cuda::for_each<T>(f, p.N * p.OH * p.OW * p.C, wide);
    }
    // Step 3: add the bias before a sum is stored.
    const cuda::ForwardOutput<T> out{y, bias, p.F, int(p.F / p.groups), relu};
    if (cuda::is_first_layer(p)) {
        cuda::first_layer_forward(x, weight, out, p);
    } else {
        cuda::product_forward(x, weight, out, p);
    }
}

template <typename T>
void conv2d_backward(const T* dy, const T* relu_y, const T* x, const T* weight, T* dx, T* dw, T* db,
                     const ConvParams& p) {
    cuda::conv2d_gradients(dy, {relu_y, nullptr, {}}, x, weight, dx, dw, db, p);
}

#define INSTANTIATE(T)                                                                       \
    template void conv2d_forward(const T*, const T*, const T*, T*, const ConvParams&, bool); \
    template void conv2d_backward(const T*, const T*, const T*, const T*, T*, T*, T*, const ConvParams&)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn
