// ReLU6 and its gradient.

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
        // Step 1: keep what is above 0 and below 6.
        for (int k = 0; k < V; ++k) {
            const Sum<T> value = cuda::relu(values.v[k]);
            values.v[k] = value > Sum<T>(6) ? Sum<T>(6) : value;  // NaN stays
        }
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
        // Step 2: pass the gradient where the output is above 0 and below 6.
        for (int k = 0; k < V; ++k) {
            const Sum<T> value = output.v[k];
            if (value <= Sum<T>(0) || value >= Sum<T>(6)) gradient.v[k] = Sum<T>(0);
        }
        cuda::store(dx + i, gradient);
    }
    Backward from(std::int64_t i) const { return {dy + i, y + i, dx + i}; }
};

}  // namespace

template <typename T>
void relu6_forward(const T* x, T* y, std::int64_t size) {
    cuda::elementwise<T>(Forward<T>{x, y}, size, x, y);
}

template <typename T>
void relu6_backward(const T* dy, const T* y, T* dx, std::int64_t size) {
    cuda::elementwise<T>(Backward<T>{dy, y, dx}, size, dy, y, dx);
}

template void relu6_forward(const float*, float*, std::int64_t);
template void relu6_backward(const float*, const float*, float*, std::int64_t);
template void relu6_forward(const double*, double*, std::int64_t);
template void relu6_backward(const double*, const double*, double*, std::int64_t);
template void relu6_forward(const bfloat16*, bfloat16*, std::int64_t);
template void relu6_backward(const bfloat16*, const bfloat16*, bfloat16*, std::int64_t);

}  // namespace minicnn
