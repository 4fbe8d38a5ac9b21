// Convolution by columns: every window of the image copied into a row of a matrix (im2col), and one matrix
// product.  For small maps, whose rows of pixels are too short for the register tiles of correlation.h.
#pragma once

#include "../../conv2d_ops.h"

namespace minicnn {

// Arguments as in conv2d_forward and conv2d_backward.
template <typename T>
void columns_forward(const T* x, const T* weight, const T* bias, T* y, const ConvParams& p, bool relu);
template <typename T>
void columns_backward_data(const T* dy, const T* relu_y, const T* weight, T* dx, const ConvParams& p);
template <typename T>
void columns_backward_weight(const T* dy, const T* relu_y, const T* x, T* dw, const ConvParams& p);

}  // namespace minicnn
