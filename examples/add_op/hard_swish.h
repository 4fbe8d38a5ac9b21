// hard_swish: y = x * min(max(x + 3, 0), 6) / 6, elementwise.  In the library these lines stand in
// csrc/ops.h.
#pragma once

#include <cstdint>

namespace minicnn {

template <typename T>
void hard_swish_forward(const T* x, T* y, std::int64_t size);

// dy/dx is 0 up to -3, 1 from 3 on, and (2x + 3) / 6 between.
template <typename T>
void hard_swish_backward(const T* dy, const T* x, T* dx, std::int64_t size);

}  // namespace minicnn
