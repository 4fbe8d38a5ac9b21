// ReLU.  Its gradient is dy where y > 0, and where y is NaN.  Both only select values, denormal ones too.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {

template <typename T>
void relu_forward(const T* x, T* y, std::int64_t size) {
    // Step 1: keep what is above 0.
    elementwise<Denormals::kept>(size, [=](std::int64_t i) { y[i] = x[i] < 0 ? T(0) : x[i]; });
}

template <typename T>
void relu_backward(const T* dy, const T* y, T* dx, std::int64_t size) {
    // Step 2: pass the gradient where the output is above 0.
    elementwise<Denormals::kept>(size, [=](std::int64_t i) { dx[i] = relu_gradient(y[i], dy[i]); });
}

template void relu_forward(const float*, float*, std::int64_t);
template void relu_forward(const double*, double*, std::int64_t);
template void relu_backward(const float*, const float*, float*, std::int64_t);
template void relu_backward(const double*, const double*, double*, std::int64_t);

}  // namespace minicnn
