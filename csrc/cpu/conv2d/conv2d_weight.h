// The gradient of a convolution to its filters and bias.
#pragma once

#include "../../conv2d_ops.h"

namespace minicnn {

// dw and db may each be nullptr; arguments as in conv2d_backward.
template <typename T>
void backward_weight(const T* dy, const T* relu_y, const T* x, T* dw, T* db, const ConvParams& p);

// dw for the gradient dy of a convolution with a 2x2 max-pool, which is undone on reading: for filters so
// small that listing the winners takes longer than three quarters of zeros.
template <typename T>
void unpooled_backward_weight(const T* dy, const std::uint8_t* winner, const T* x, T* dw,
                              const ConvParams& p);

// db (F) = sum of dy (pixels,F) over the pixels, where relu_y (as dy; or nullptr) is not <= 0.
template <typename T>
void sum_channels(const T* dy, const T* relu_y, T* db, std::int64_t pixels, std::int64_t F);

}  // namespace minicnn
