// Convolution and dense layers of bfloat16 by widening: what they read becomes float in scratch memory,
// with the weights rounded to bfloat16, the float kernels compute, and what they give is rounded once.
//
// It serves every shape on every processor.  The batch goes through in chunks of images, so that the float
// copies take little memory beside the arrays.
#pragma once

#include "../../conv2d_ops.h"

namespace minicnn::widened {

// The arguments are those of the functions of the same names in conv2d_ops.h.
void conv2d_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y,
                    const ConvParams& p, bool relu);
void conv2d_backward(const bfloat16* dy, const bfloat16* relu_y, const bfloat16* x, const float* weight,
                     bfloat16* dx, float* dw, float* db, const ConvParams& p);
void conv2d_pool_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y,
                         std::uint8_t* winner, const ConvParams& p, const PoolParams& pool, bool relu);
void conv2d_pool_backward(const bfloat16* dy, const std::uint8_t* winner, const bfloat16* x,
                          const float* weight, bfloat16* dx, float* dw, float* db, const ConvParams& p,
                          const PoolParams& pool);
void dense_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y, std::int64_t N,
                   std::int64_t in, std::int64_t out, bool relu);
void dense_backward(const bfloat16* dy, const bfloat16* relu_y, const bfloat16* x, const float* weight,
                    bfloat16* dx, float* dw, float* db, std::int64_t N, std::int64_t in, std::int64_t out);

}  // namespace minicnn::widened
