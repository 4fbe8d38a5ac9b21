// The sums of a gradient over all pixels, or over all rows of a dense layer: the gradient to a bias.
#pragma once

#include <cstdint>

namespace minicnn {

// db (F) = the sum of dy (pixels,F) over the pixels.  relu_y, an array like dy or nullptr, leaves out the
// values of dy where it is <= 0.
template <typename T>
void sum_channels(const T* dy, const T* relu_y, T* db, std::int64_t pixels, std::int64_t F);

}  // namespace minicnn
