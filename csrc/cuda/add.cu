// The sum of two arrays.

#include "common.h"

namespace minicnn {
namespace {

template <typename T>
struct Add {
    const T *a, *b;
    T* y;
    template <int V>
    __device__ void at(std::int64_t i) const {
        auto sum = cuda::load<V>(a + i);
        const auto other = cuda::load<V>(b + i);
        for (int k = 0; k < V; ++k) sum.v[k] += other.v[k];
        cuda::store(y + i, sum);
    }
    Add from(std::int64_t i) const { return {a + i, b + i, y + i}; }
};

}  // namespace

template <typename T>
void add_forward(const T* a, const T* b, T* y, std::int64_t size) {
    cuda::elementwise<T>(Add<T>{a, b, y}, size, a, b, y);
}

template void add_forward(const float*, const float*, float*, std::int64_t);
template void add_forward(const double*, const double*, double*, std::int64_t);

}  // namespace minicnn
