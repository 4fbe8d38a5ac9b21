// The forward pass of depthwise convolution where the taps of a filter's row read neighbouring pixels.
#pragma once

#include "../../conv2d_ops.h"

namespace minicnn {

// Writes y and returns true if there are kernels for such filters; values: the filters as [tap][channel].
bool depthwise_runs(const float* x, const float* values, const float* bias, float* y, const ConvParams& p,
                    bool relu);

}  // namespace minicnn
