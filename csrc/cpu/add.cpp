// Elementwise sum.

#include "elementwise.h"

namespace minicnn {

template <typename T>
void add_forward(const T* a, const T* b, T* y, std::int64_t size) {
    elementwise(size, [=](std::int64_t i) { y[i] = a[i] + b[i]; });
}

template void add_forward(const float*, const float*, float*, std::int64_t);
template void add_forward(const double*, const double*, double*, std::int64_t);

}  // namespace minicnn
