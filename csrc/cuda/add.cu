// The sum of two arrays, with or without a ReLU.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

template <typename T>
struct Add {
    const T *a, *b;
    T* y;
    bool relu;
    template <int V>
    __device__ void at(std::int64_t i) const {
        auto sum = cuda::load<V>(a + i);
        const auto other = cuda::load<V>(b + i);
        for (int k = 0; k < V; ++k) {
            sum.v[k] += other.v[k];
            if (relu) sum.v[k] = cuda::relu(sum.v[k]);
        }
        cuda::store(y + i, sum);
    }
    Add from(std::int64_t i) const { return {a + i, b + i, y + i, relu}; }
};

}  // namespace

template <typename T>
void add_forward(const T* a, const T* b, T* y, std::int64_t size, bool relu) {
    cuda::elementwise<T>(Add<T>{a, b, y, relu}, size, a, b, y);
}

template void add_forward(const float*, const float*, float*, std::int64_t, bool);
template void add_forward(const double*, const double*, double*, std::int64_t, bool);
template void add_forward(const bfloat16*, const bfloat16*, bfloat16*, std::int64_t, bool);

}  // namespace minicnn
