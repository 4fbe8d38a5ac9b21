// ReLU6.  Its gradient is dy where 0 < y < 6, and where y is NaN.  Both only select values.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

// dy is an argument, so that it is read in any case, as in relu_gradient.
template <typename T>
T relu6_gradient(T y, T dy) {
    return (y <= 0) | (y >= 6) ? T{0} : dy;
}

// The same on bits, of which the compiler makes vectors.
bfloat16 relu6_gradient(bfloat16 y, bfloat16 dy) {
    constexpr std::uint16_t six = 0x40c0, magnitude = 0x7fff, infinity = 0x7f80;
    const bool passes = (y.bits > 0 && y.bits < six) || (y.bits & magnitude) > infinity;
    return {static_cast<std::uint16_t>(passes ? dy.bits : 0)};
}

}  // namespace

template <typename T>
void relu6_forward(const T* x, T* y, std::int64_t size) {
    // Step 1: keep what is above 0 and below 6.
    elementwise<Denormals::kept>(size, [=](std::int64_t i) {
        const Sum<T> value = widen(x[i]);
        y[i] = narrow<T>(value < 0 ? 0 : value > 6 ? 6 : value);
    });
}

template <typename T>
void relu6_backward(const T* dy, const T* y, T* dx, std::int64_t size) {
    // Step 2: pass the gradient where the output is above 0 and below 6.
    elementwise<Denormals::kept>(size, [=](std::int64_t i) { dx[i] = relu6_gradient(y[i], dy[i]); });
}

template void relu6_forward(const float*, float*, std::int64_t);
template void relu6_forward(const double*, double*, std::int64_t);
template void relu6_forward(const bfloat16*, bfloat16*, std::int64_t);
template void relu6_backward(const float*, const float*, float*, std::int64_t);
template void relu6_backward(const double*, const double*, double*, std::int64_t);
template void relu6_backward(const bfloat16*, const bfloat16*, bfloat16*, std::int64_t);

}  // namespace minicnn
