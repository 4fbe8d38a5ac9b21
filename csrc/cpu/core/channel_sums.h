// The sums of a gradient over all pixels, or over all rows of a dense layer: the gradient to a bias.
#pragma once

#include <cstdint>

namespace minicnn {

// db (F) = sum of dy (pixels,F) over the pixels, where relu_y (as dy; or nullptr) is not <= 0.
template <typename T>
void sum_channels(const T* dy, const T* relu_y, T* db, std::int64_t pixels, std::int64_t F);

}  // namespace minicnn
