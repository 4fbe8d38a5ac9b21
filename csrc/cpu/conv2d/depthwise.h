// Depthwise convolution: as many groups as channels, with one filter for each.
#pragma once

#include "../../conv2d_ops.h"
#include "../core/memory.h"

namespace minicnn {

// The filters (C,KH,KW) as [tap][channel], so that the channels of a tap lie next to each other.
template <typename T>
const T* taps_first(const T* weight, const ConvParams& p, Memory& memory);

// `taps` are the filters as above.
template <typename T>
void depthwise_forward(const T* x, const T* taps, const T* bias, T* y, const ConvParams& p, bool relu);

template <typename T>
void depthwise_backward_data(const T* dy, const T* relu_y, const T* weight, T* dx, const ConvParams& p);

template <typename T>
void depthwise_backward_weight(const T* dy, const T* relu_y, const T* x, T* dw, const ConvParams& p);

}  // namespace minicnn
