// Elementwise sum, with or without a ReLU.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {

template <typename T>
void add_forward(const T* a, const T* b, T* y, std::int64_t size, bool relu) {
    if (relu) {
        elementwise(size, [=](std::int64_t i) {
            const Sum<T> sum = widen(a[i]) + widen(b[i]);
            y[i] = narrow<T>(sum < 0 ? Sum<T>(0) : sum);
        });
    } else {
        elementwise(size, [=](std::int64_t i) { y[i] = narrow<T>(widen(a[i]) + widen(b[i])); });
    }
}

template void add_forward(const float*, const float*, float*, std::int64_t, bool);
template void add_forward(const double*, const double*, double*, std::int64_t, bool);
template void add_forward(const bfloat16*, const bfloat16*, bfloat16*, std::int64_t, bool);

}  // namespace minicnn
