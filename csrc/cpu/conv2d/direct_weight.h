// The gradient of a convolution to its filters by direct sums over the pixels, in register tiles.
#pragma once

#include "../../conv2d_ops.h"

namespace minicnn {

// Arguments as in conv2d_backward.
template <typename T>
void direct_weight(const T* dy, const T* relu_y, const T* x, T* dw, const ConvParams& p);

// dw where dy is the gradient of a 2x2 max-pool after the convolution: it is brought to full size while it
// is read, with 0 where a pixel is not its window's winner.
template <typename T>
void unpooled_direct_weight(const T* dy, const std::uint8_t* winner, const T* x, T* dw,
                            const ConvParams& p);

}  // namespace minicnn
