// The gradients of a convolution fused with a max-pool, as sums over the winners alone.
//
// A max-pool sends each gradient to one place of its window, so that with 2x2 windows three quarters of the
// gradient at the convolution's map are zeros.  That map never exists here: each pooled gradient is
// multiplied with what its winner read.  A 2x2 pool thus leaves a quarter of the multiplications.
#pragma once

#include "../../conv2d_ops.h"

namespace minicnn {

// Arguments as in conv2d_pool_backward.
template <typename T>
void sparse_data(const T* dy, const std::uint8_t* winner, const T* weight, T* dx, const ConvParams& p,
                 const PoolParams& pool);
// Either of dw and db may be nullptr; x may be nullptr if dw is.
template <typename T>
void sparse_weight(const T* dy, const std::uint8_t* winner, const T* x, T* dw, T* db, const ConvParams& p,
                   const PoolParams& pool);

}  // namespace minicnn
