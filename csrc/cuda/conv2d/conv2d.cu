// Convolution, alone and with ReLU: which kernels compute the forward and the backward pass.

#include "conv2d.h"
#include "depthwise.h"
#include "first_layer.h"

namespace minicnn {
namespace {

template <typename T, int W, typename A>
void multiply(const A& patches, const T* weight, const cuda::ForwardOutput<T>& out, const ConvParams& p) {
    const std::int64_t depth = p.KH * p.KW * (p.C / p.groups), filters = p.F / p.groups;
    const cuda::Matrix<T, true> b{weight, depth, filters * depth};
    // Step 2: multiply them by the filter and add up.
    const cuda::GemmSize s{p.N * p.OH * p.OW, depth, cuda::narrow(filters, "F"), 0, int(p.groups), 1, 0};
    cuda::with_math<T>(
        filters, [&](auto math) { cuda::gemm<typename decltype(math)::type, W, W>(patches, b, out, s); });
}

template <typename T, int W>
void forward(const T* x, const T* weight, const cuda::ForwardOutput<T>& out, const ConvParams& p) {
    if (cuda::is_pointwise(p)) {
        multiply<T, W>(cuda::Matrix<T, true>{x, p.C, p.C / p.groups}, weight, out, p);
    } else {
        multiply<T, W>(cuda::Patches<T, true>(x, p, cuda::Pixels(p.OH, p.OW)), weight, out, p);
    }
}

}  // namespace

template <typename T>
void conv2d_forward(const T* x, const T* weight, const T* bias, T* y, const ConvParams& p, bool relu) {
    constexpr int V = cuda::full_width<T>;
    cuda::check_sizes(p);
    const bool whole = cuda::aligned(x) && cuda::aligned(weight);
    if (is_depthwise(p)) {
        const cuda::DepthwiseForward<T> f{x, weight, bias, y, p, relu};
        const bool wide = cuda::aligned(x) && cuda::aligned(y) && p.C % V == 0;
        return cuda::for_each<T>(f, p.N * p.OH * p.OW * p.C, wide);
    }
    // Step 3: add the bias before a sum is stored.
    const cuda::ForwardOutput<T> out{y, bias, p.F, int(p.F / p.groups), relu};
    if (cuda::is_first_layer(p)) {
        cuda::first_layer_forward(x, weight, out, p);
    } else if (cuda::uses_tensor_cores<T>()) {
        if constexpr (std::is_same_v<T, float>) cuda::tensor_conv2d_forward(x, weight, bias, y, p, relu);
    } else if (whole && p.C / p.groups % V == 0) {
        forward<T, V>(x, weight, out, p);
    } else {
        forward<T, 1>(x, weight, out, p);
    }
}

template <typename T>
void conv2d_backward(const T* dy, const T* relu_y, const T* x, const T* weight, T* dx, T* dw, T* db,
                     const ConvParams& p) {
    const cuda::Fused f{relu_y, nullptr, {}};
    cuda::check_sizes(p);
    if (cuda::uses_tensor_cores<T>() && !is_depthwise(p)) {
        if constexpr (std::is_same_v<T, float>)
            cuda::gradients_in_tf32(dy, f, x, weight, dx, dw, p, cuda::is_first_layer(p));
    } else if (relu_y) {
        // Step 4: the gradient to x: each output gives its pixels dy times the weights.
        if (dx) cuda::conv2d_input_gradient<T, true>(dy, f, weight, dx, p);
        // Step 5: the gradient to the weights: each output adds dy times its window.
        if (dw) cuda::conv2d_weight_gradient<T, true>(dy, f, x, dw, p);
    } else {
        if (dx) cuda::conv2d_input_gradient<T, false>(dy, f, weight, dx, p);
        if (dw) cuda::conv2d_weight_gradient<T, false>(dy, f, x, dw, p);
    }
    // Step 6: the gradient to the bias: the sum of dy.
    if (db) cuda::conv2d_bias_gradient(dy, f, db, p);
}

#define INSTANTIATE(T)                                                                       \
    template void conv2d_forward(const T*, const T*, const T*, T*, const ConvParams&, bool); \
    template void conv2d_backward(const T*, const T*, const T*, const T*, T*, T*, T*, const ConvParams&)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn
