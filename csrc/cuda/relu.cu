// ReLU and its gradient.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

template <typename T>
struct Forward {
    const T* x;
    T* y;
    template <int V>
    __device__ void at(std::int64_t i) const {
        auto values = cuda::load<V>(x + i);
        // Step 1: keep what is above 0.
        for (int k = 0; k < V; ++k) values.v[k] = cuda::relu(values.v[k]);
        cuda::store(y + i, values);
    }
    Forward from(std::int64_t i) const { return {x + i, y + i}; }
};

template <typename T>
struct Backward {
    const T *dy, *y;
    T* dx;
    template <int V>
    __device__ void at(std::int64_t i) const {
        auto gradient = cuda::load<V>(dy + i);
        const auto output = cuda::load<V>(y + i);
        // Step 2: pass the gradient where the output is above 0.
        for (int k = 0; k < V; ++k) gradient.v[k] = cuda::relu_gradient(output.v[k], gradient.v[k]);
        cuda::store(dx + i, gradient);
    }
    Backward from(std::int64_t i) const { return {dy + i, y + i, dx + i}; }
};

}  // namespace

template <typename T>
void relu_forward(const T* x, T* y, std::int64_t size) {
    cuda::elementwise<T>(Forward<T>{x, y}, size, x, y);
}

template <typename T>
void relu_backward(const T* dy, const T* y, T* dx, std::int64_t size) {
    cuda::elementwise<T>(Backward<T>{dy, y, dx}, size, dy, y, dx);
}

template void relu_forward(const float*, float*, std::int64_t);
template void relu_forward(const double*, double*, std::int64_t);
template void relu_backward(const float*, const float*, float*, std::int64_t);
template void relu_backward(const double*, const double*, double*, std::int64_t);

}  // namespace minicnn
