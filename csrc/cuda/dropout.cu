// Dropout with a mask drawn by the caller.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

// A product, not a choice: a dropped infinity or NaN stays NaN, as in torch.
template <typename T>
struct Dropout {
    const T* x;
    const std::uint8_t* keep;
    Sum<T> factor;
    T* y;
    template <int V>
    __device__ void at(std::int64_t i) const {
        auto values = cuda::load<V>(x + i);
        const auto kept = cuda::load<V>(keep + i);
        for (int k = 0; k < V; ++k) values.v[k] *= kept.v[k] ? factor : Sum<T>(0);
        cuda::store(y + i, values);
    }
    Dropout from(std::int64_t i) const { return {x + i, keep + i, factor, y + i}; }
};

}  // namespace

template <typename T>
void dropout(const T* x, const std::uint8_t* keep, Sum<T> factor, T* y, std::int64_t size) {
    cuda::elementwise<T>(Dropout<T>{x, keep, factor, y}, size, x, keep, y);
}

template void dropout(const float*, const std::uint8_t*, float, float*, std::int64_t);
template void dropout(const double*, const std::uint8_t*, double, double*, std::int64_t);
template void dropout(const bfloat16*, const std::uint8_t*, float, bfloat16*, std::int64_t);

}  // namespace minicnn
