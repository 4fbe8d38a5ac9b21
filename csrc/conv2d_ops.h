// The kernels of convolution (alone, and fused with ReLU and max-pool) and of dense layers, for float,
// double and bfloat16. They are functions of raw pointers and a struct of sizes.  csrc/cpu and csrc/cuda
// both define them: one module contains the one set or the other.
//
// Every 4-D array is channels-last in memory: x (N,H,W,C), y (N,OH,OW,F), weight (F,KH,KW,C/groups).
//
// What the caller must know:
// - Pointers are to whole, contiguous arrays of these layouts.  They need no alignment beyond the
// element's.
// - Inputs and outputs do not overlap.  Outputs are overwritten, never added to.
// - An optional argument may be nullptr; each function says which arguments are optional.
// - Arrays may be empty (N = 0).  Then dw and db become zero.
// - Kernels allocate scratch memory of their own.  On the CPU each thread keeps its scratch for the next
// call,
//   and only dense layers and gradients after a ReLU take as much as an array of the batch.
#pragma once

#include <cstdint>

#include "bfloat16.h"
#include "sizes.h"

namespace minicnn {

// pad_h and pad_w are the padding above and to the left.  What lies below and to the right follows from OH
// and OW, and need not be as much.
struct ConvParams {
    std::int64_t N, C, H, W, F, KH, KW, OH, OW;
    std::int64_t stride_h, stride_w, pad_h, pad_w, dil_h, dil_w, groups;
};

// Whether every group has one channel and one filter.  A single channel with a single filter is an ordinary
// convolution: there is nothing to keep apart.
inline bool is_depthwise(const ConvParams& p) { return p.groups > 1 && p.groups == p.C && p.groups == p.F; }

// y = conv2d(x, weight) + bias, and then ReLU if `relu`.  bias (F) is optional.
template <typename T>
void conv2d_forward(const T* x, const T* weight, const T* bias, T* y, const ConvParams& p, bool relu);

// The gradients dx, dw, db of conv2d or conv2d_relu.  Each of them may be nullptr if it is not wanted; x
// may be nullptr if dw is, and weight if dx is.  relu_y (N,OH,OW,F) is the output of conv2d_relu: dy counts
// only where relu_y is positive or NaN.  For conv2d it is nullptr.
template <typename T>
void conv2d_backward(const T* dy, const T* relu_y, const T* x, const T* weight, T* dx, T* dw, T* db,
                     const ConvParams& p);

// Whether this device has a kernel that computes a convolution and this max-pool in one pass, as the
// functions below do.  If not, the caller runs one after the other.  Nothing else decides this
// (csrc/host/conv2d_pool.h).
bool conv2d_pool_fuses(const ConvParams& p, const PoolParams& pool, bool need_saved);

// The winner of a pooled value is the number of its cell in the window, row by row.  It is this number
// instead if ReLU made the value zero, so that no cell gets a gradient.
constexpr std::uint8_t relu_off = 255;

// y = max_pool2d(conv2d(x, weight) + bias), with a ReLU between them if `relu`.  y and winner are
// (N, pool.OH, pool.OW, F); winner is nullptr where no backward pass follows.
template <typename T>
void conv2d_pool_forward(const T* x, const T* weight, const T* bias, T* y, std::uint8_t* winner,
                         const ConvParams& p, const PoolParams& pool, bool relu);

// The gradients of conv2d_pool_forward; dy is (N, pool.OH, pool.OW, F).  dx, dw and db are optional.  A
// winner may be any byte: one that is not the number of a cell in the convolution's map counts as relu_off.
template <typename T>
void conv2d_pool_backward(const T* dy, const std::uint8_t* winner, const T* x, const T* weight, T* dx,
                          T* dw, T* db, const ConvParams& p, const PoolParams& pool);

// y = x @ weight.T + bias, and then ReLU if `relu`: x (N,in), weight (out,in), bias (out, optional), y
// (N,out).
template <typename T>
void dense_forward(const T* x, const T* weight, const T* bias, T* y, std::int64_t N, std::int64_t in,
                   std::int64_t out, bool relu);

// dx (N,in), dw (out,in) and db (out) are optional; relu_y (N,out) is as in conv2d_backward.
template <typename T>
void dense_backward(const T* dy, const T* relu_y, const T* x, const T* weight, T* dx, T* dw, T* db,
                    std::int64_t N, std::int64_t in, std::int64_t out);

// ---- the same of bfloat16 --------------------------------------------------------------------------
//
// weight, bias, dw and db are float.  weight is rounded to bfloat16 before it is multiplied; products are
// summed in float; y and dx are rounded once, at the end.

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

}  // namespace minicnn
