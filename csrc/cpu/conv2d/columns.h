// Convolution by columns (im2col): every window of the image is copied into a row of a matrix, and the
// pass is one matrix product.  This serves small maps, whose rows of pixels are too short for the
// register tiles of direct.h.
#pragma once

#include "../../conv2d_ops.h"
#include "../core/gemm.h"

namespace minicnn {

// The filters as the forward pass reads them.
template <typename T>
PackedOperand<T> columns_filters(const T* weight, const T* bias, const ConvParams& p, Memory& memory);

// Other arguments as in conv2d_forward and conv2d_backward.
template <typename T>
void columns_forward(const T* x, const PackedOperand<T>& filters, T* y, const ConvParams& p, bool relu);
template <typename T>
void columns_backward_data(const T* dy, const T* relu_y, const T* weight, T* dx, const ConvParams& p);
template <typename T>
void columns_backward_weight(const T* dy, const T* relu_y, const T* x, T* dw, const ConvParams& p);

}  // namespace minicnn
