// Depthwise convolution: as many groups as channels, one filter each.
#pragma once

#include "../../conv2d_ops.h"

namespace minicnn {

template <typename T>
void depthwise_forward(const T* x, const T* weight, const T* bias, T* y, const ConvParams& p, bool relu);

template <typename T>
void depthwise_backward_data(const T* dy, const T* relu_y, const T* weight, T* dx, const ConvParams& p);

template <typename T>
void depthwise_backward_weight(const T* dy, const T* relu_y, const T* x, T* dw, const ConvParams& p);

}  // namespace minicnn
