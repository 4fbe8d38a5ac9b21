// Dense layers: convolutions of images of one pixel.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

ConvParams as_convolution(std::int64_t N, std::int64_t in, std::int64_t out) {
    return {N, in, 1, 1, out, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1};
}

}  // namespace

template <typename T>
void dense_forward(const T* x, const T* weight, const T* bias, T* y, std::int64_t N, std::int64_t in,
                   std::int64_t out, bool relu) {
    // Step 1: multiply the inputs by the weights and add up.
    // Step 2: add the bias.
    conv2d_forward(x, weight, bias, y, as_convolution(N, in, out), relu);
}

template <typename T>
void dense_backward(const T* dy, const T* relu_y, const T* x, const T* weight, T* dx, T* dw, T* db,
                    std::int64_t N, std::int64_t in, std::int64_t out) {
    // Step 3: the gradient to x: dy times the weights.
    // Step 4: the gradient to the weights: dy times x.
    // Step 5: the gradient to the bias: the sum of dy.
    conv2d_backward(dy, relu_y, x, weight, dx, dw, db, as_convolution(N, in, out));
}

#define INSTANTIATE(T)                                                                             \
    template void dense_forward(const T*, const T*, const T*, T*, std::int64_t, std::int64_t,      \
                                std::int64_t, bool);                                               \
    template void dense_backward(const T*, const T*, const T*, const T*, T*, T*, T*, std::int64_t, \
                                 std::int64_t, std::int64_t)
INSTANTIATE(float);
INSTANTIATE(double);

void dense_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y, std::int64_t N,
                   std::int64_t in, std::int64_t out, bool relu) {
    conv2d_forward(x, weight, bias, y, as_convolution(N, in, out), relu);
}

void dense_backward(const bfloat16* dy, const bfloat16* relu_y, const bfloat16* x, const float* weight,
                    bfloat16* dx, float* dw, float* db, std::int64_t N, std::int64_t in, std::int64_t out) {
    conv2d_backward(dy, relu_y, x, weight, dx, dw, db, as_convolution(N, in, out));
}

}  // namespace minicnn
