// The cast between float and bfloat16.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {

template <typename From, typename To>
void cast(const From* x, To* y, std::int64_t size) {
    elementwise<Denormals::kept>(size, [=](std::int64_t i) { y[i] = narrow<To>(widen(x[i])); });
}

template void cast(const float*, bfloat16*, std::int64_t);
template void cast(const bfloat16*, float*, std::int64_t);

}  // namespace minicnn
