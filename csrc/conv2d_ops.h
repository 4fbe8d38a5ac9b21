// The CPU kernels of convolution, convolution fused with ReLU and max-pool, and dense layers:
// functions of raw pointers and a params struct, for float and double.
// Every 4-D array is channels-last in memory: x (N,H,W,C), y (N,OH,OW,F), weight (F,KH,KW,C/groups).
//
// For the caller:
// - pointers are to whole, contiguous arrays of the layouts above; no alignment beyond the element's;
// - inputs and outputs do not overlap; outputs are overwritten, never added to;
// - an optional argument may be nullptr, as said at each function;
// - empty arrays (N = 0) are allowed: dw and db become zero;
// - scratch memory is kept per thread; only dense layers and masked gradients take as much as an array of
//   the batch.
#pragma once

#include <cstdint>

namespace minicnn {

struct ConvParams {
    std::int64_t N, C, H, W, F, KH, KW, OH, OW;
    std::int64_t stride_h, stride_w, pad_h, pad_w, dil_h, dil_w, groups;
};

// A max-pool over the (OH, OW) map of a convolution; OH, OW here are the pooled sizes (ceil_mode resolved).
struct PoolParams {
    std::int64_t KH, KW, OH, OW;
    std::int64_t stride_h, stride_w, pad_h, pad_w, dil_h, dil_w;
};

// y = conv2d(x, weight) + bias, then ReLU if `relu`.  bias (F) may be nullptr.
template <typename T>
void conv2d_forward(const T* x, const T* weight, const T* bias, T* y, const ConvParams& p, bool relu);

// dx, dw, db of conv2d (or conv2d_relu).  Each of dx, dw, db may be nullptr: not wanted.
// relu_y is the output of the fused ReLU, (N,OH,OW,F): dy counts only where relu_y > 0 (or is NaN);
// nullptr without ReLU.  x may be nullptr if dw is; weight may be nullptr if dx is.
template <typename T>
void conv2d_backward(const T* dy, const T* relu_y, const T* x, const T* weight, T* dx, T* dw, T* db,
                     const ConvParams& p);

// Whether the fused convolution + max-pool below takes this pool; if not, compose the primitives.
bool conv2d_pool_fuses(const ConvParams& p, const PoolParams& pool, bool need_saved);

// A pooled value's winner: its place in the window (row-major), or this if ReLU switched it off.
constexpr std::uint8_t relu_off = 255;

// y = max_pool2d(conv2d(x, weight) + bias), with ReLU if `relu`: y and winner are (N, pool.OH, pool.OW, F).
// winner may be nullptr (evaluation).
template <typename T>
void conv2d_pool_forward(const T* x, const T* weight, const T* bias, T* y, std::uint8_t* winner,
                         const ConvParams& p, const PoolParams& pool, bool relu);

// Gradients of conv2d_pool_forward; dy is (N, pool.OH, pool.OW, F).  dx, dw, db may each be nullptr.
template <typename T>
void conv2d_pool_backward(const T* dy, const std::uint8_t* winner, const T* x, const T* weight, T* dx,
                          T* dw, T* db, const ConvParams& p, const PoolParams& pool);

// y = x @ weight.T + bias, then ReLU if `relu`: x (N,in), weight (out,in), bias (out) or nullptr, y
// (N,out).
template <typename T>
void dense_forward(const T* x, const T* weight, const T* bias, T* y, std::int64_t N, std::int64_t in,
                   std::int64_t out, bool relu);

// dx (N,in), dw (out,in), db (out), each may be nullptr; relu_y (N,out) as in conv2d_backward.
template <typename T>
void dense_backward(const T* dy, const T* relu_y, const T* x, const T* weight, T* dx, T* dw, T* db,
                    std::int64_t N, std::int64_t in, std::int64_t out);

}  // namespace minicnn
