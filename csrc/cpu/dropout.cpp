// Dropout with a mask drawn by the caller.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {

// The value is multiplied instead of replaced by 0: a dropped infinity or NaN becomes NaN, as in torch.
template <typename T>
void dropout(const T* x, const std::uint8_t* keep, Sum<T> factor, T* y, std::int64_t size) {
    elementwise(size,
                [=](std::int64_t i) { y[i] = narrow<T>(widen(x[i]) * (keep[i] ? factor : Sum<T>(0))); });
}

template void dropout(const float*, const std::uint8_t*, float, float*, std::int64_t);
template void dropout(const double*, const std::uint8_t*, double, double*, std::int64_t);
template void dropout(const bfloat16*, const std::uint8_t*, float, bfloat16*, std::int64_t);

}  // namespace minicnn
