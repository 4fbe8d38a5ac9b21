// The kernels of csrc/cpu for a page in a browser: plain C functions over the memory of a WebAssembly
// module. It has no threads, and no Python: docs/live/kernels.js calls these functions with addresses and
// sizes.
//
// Convolutions and pools are square here, and convolutions have stride 1, as in the nets of the page.
#include <cstdint>
#include <cstdlib>

#include "../ops.h"

namespace minicnn {

int num_threads() { return 1; }

void run_on_threads(int count, void (*body)(void*, int), void* context) {
    for (int i = 0; i < count; ++i) body(context, i);
}

void rouse_threads(int) {}

namespace {

ConvParams convolution(int N, int C, int H, int W, int F, int K, int padding) {
    return {N, C, H,       W,       F, K, K, H + 2 * padding - K + 1, W + 2 * padding - K + 1,
            1, 1, padding, padding, 1, 1, 1};
}

PoolParams pooling(int H, int W, int K) { return {K, K, H / K, W / K, K, K, 0, 0, 1, 1, 0, 0}; }

Targets<float> targets(const std::int64_t* classes) {
    return {classes, nullptr, nullptr, 0.0, -100, Reduction::mean};
}

}  // namespace
}  // namespace minicnn

#define MINICNN_EXPORT(name) __attribute__((export_name(#name), used)) name

extern "C" {

using namespace minicnn;

void* MINICNN_EXPORT(allocate)(int bytes) { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); }
void MINICNN_EXPORT(release)(void* memory) { std::free(memory); }

void MINICNN_EXPORT(conv2d)(const float* x, const float* weight, const float* bias, float* y, int N, int C,
                            int H, int W, int F, int K, int padding) {
    conv2d_forward<float>(x, weight, bias, y, convolution(N, C, H, W, F, K, padding), false);
}

void MINICNN_EXPORT(conv2d_gradients)(const float* dy, const float* x, const float* weight, float* dx,
                                      float* dw, float* db, int N, int C, int H, int W, int F, int K,
                                      int padding) {
    conv2d_backward<float>(dy, nullptr, x, weight, dx, dw, db, convolution(N, C, H, W, F, K, padding));
}

void MINICNN_EXPORT(relu)(const float* x, float* y, int size) { relu_forward<float>(x, y, size); }
void MINICNN_EXPORT(relu_gradients)(const float* dy, const float* y, float* dx, int size) {
    relu_backward<float>(dy, y, dx, size);
}

void MINICNN_EXPORT(max_pool2d)(const float* x, float* y, std::uint8_t* argmax, int N, int C, int H, int W,
                                int K) {
    max_pool2d_forward<float, std::uint8_t>(x, y, argmax, {N, C, H, W}, pooling(H, W, K));
}
void MINICNN_EXPORT(max_pool2d_gradients)(const float* dy, const std::uint8_t* argmax, float* dx, int N,
                                          int C, int H, int W, int K) {
    max_pool2d_backward<float, std::uint8_t>(dy, argmax, dx, {N, C, H, W}, pooling(H, W, K));
}

void MINICNN_EXPORT(flatten)(const float* x, float* y, int N, int C, int H, int W) {
    flatten_forward<float>(x, y, {N, C, H, W});
}
void MINICNN_EXPORT(flatten_gradients)(const float* dy, float* dx, int N, int C, int H, int W) {
    flatten_backward<float>(dy, dx, {N, C, H, W});
}

void MINICNN_EXPORT(dense)(const float* x, const float* weight, const float* bias, float* y, int N, int in,
                           int out) {
    dense_forward<float>(x, weight, bias, y, N, in, out, false);
}
void MINICNN_EXPORT(dense_gradients)(const float* dy, const float* x, const float* weight, float* dx,
                                     float* dw, float* db, int N, int in, int out) {
    dense_backward<float>(dy, nullptr, x, weight, dx, dw, db, N, in, out);
}

void MINICNN_EXPORT(softmax_cross_entropy)(const float* logits, const std::int64_t* classes, float* loss,
                                           float* probs, int N, int K) {
    softmax_cross_entropy_forward<float>(logits, targets(classes), loss, probs, N, K);
}
void MINICNN_EXPORT(softmax_cross_entropy_gradients)(const float* probs, const std::int64_t* classes,
                                                     float* dlogits, int N, int K) {
    softmax_cross_entropy_backward<float>(probs, targets(classes), dlogits, N, K);
}

void MINICNN_EXPORT(sgd)(float* value, const float* gradient, float* momentum_buffer, int size, double lr,
                         double momentum) {
    const Parameter<float> one{value, gradient, momentum_buffer, nullptr, size};
    sgd_step<float>(&one, 1, {lr, momentum, 0.0, false});
}
}
