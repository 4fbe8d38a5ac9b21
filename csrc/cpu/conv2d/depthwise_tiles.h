// The forward pass of depthwise convolution for filters whose taps of a row read neighbouring pixels: each
// pixel is loaded once for all of them.  route.h says for which shapes there are kernels.
#pragma once

#include "../../conv2d_ops.h"

namespace minicnn {

// `taps` are the filters as depthwise.h has them; other arguments as in conv2d_forward.
void depthwise_tiles_forward(const float* x, const float* taps, const float* bias, float* y,
                             const ConvParams& p, bool relu);

}  // namespace minicnn
