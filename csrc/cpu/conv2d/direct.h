// Convolution by direct sums over the taps, in register tiles: the forward pass, and the gradient to the
// input.  The gradient to the filters is direct_weight.h's.
#pragma once

#include "../../conv2d_ops.h"
#include "../core/packing.h"

namespace minicnn {

// The filters as the forward passes below read them.  bias is optional.
template <typename T>
PackedFilters<T> direct_filters(const T* weight, const T* bias, const ConvParams& p, Memory& memory);

// Other arguments as in conv2d_forward and conv2d_backward.
template <typename T>
void direct_forward(const T* x, const PackedFilters<T>& filters, T* y, const ConvParams& p, bool relu);
template <typename T>
void direct_data(const T* dy, const T* relu_y, const T* weight, T* dx, const ConvParams& p);

// Arguments as in conv2d_pool_forward.  in_tiles: the pool's windows are 2x2 squares of their own inside
// the map, which are pooled in the register tiles.
template <typename T>
void direct_pooled_forward(const T* x, const PackedFilters<T>& filters, T* y, std::uint8_t* winner,
                           const ConvParams& p, const PoolParams& pool, bool relu, bool in_tiles);

}  // namespace minicnn
