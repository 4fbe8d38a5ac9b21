// Whether an array has a NaN or an infinity.
#pragma once

#include <cstdint>

namespace minicnn {

// Where all values are finite, products with the zeros of padding are 0 and may be left out.  Where one is
// not, they make NaN of it and have to be added.
template <typename T>
bool all_finite(const T* values, std::int64_t size);

}  // namespace minicnn
