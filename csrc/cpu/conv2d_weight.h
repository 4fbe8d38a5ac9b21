// The gradient of a convolution to its filters and bias.
#pragma once

#include "../conv_ops.h"

namespace minicnn {

// dw and db may each be nullptr; arguments as in conv2d_backward.
template <typename T>
void backward_weight(const T* dy, const T* relu_y, const T* x, T* dw, T* db, const ConvParams& p);

// db (F) = sum of dy (pixels,F) over the pixels, where relu_y (as dy; or nullptr) is not <= 0.
template <typename T>
void sum_channels(const T* dy, const T* relu_y, T* db, std::int64_t pixels, std::int64_t F);

}  // namespace minicnn
