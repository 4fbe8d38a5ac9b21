// The first layer of a network: images of 1 to 3 channels and a small window.  A product of matrices would
// waste most of its work there: a 3x3 window on one channel has 9 taps, which do not fill a slice of 16,
// and the gradient to the weight has 9 rows for a tile of 128.
#pragma once

#include "conv2d.h"
#include "window_order.h"

namespace minicnn::cuda {

constexpr int first_layer_taps = 32;  // the most taps that these kernels take
constexpr int first_layer_cells = 4;  // how many cells the windows of a max-pool must have

inline bool is_first_layer(const ConvParams& p) {
    return p.groups == 1 && p.C <= 3 && p.KH * p.KW * p.C <= first_layer_taps && p.H * p.W * p.C >> 31 == 0;
}
inline bool first_layer_takes(const PoolParams& pool) { return pool.KH * pool.KW == first_layer_cells; }

template <typename T>
void first_layer_forward(const T* x, const T* weight, const ForwardOutput<T>& out, const ConvParams& p);
template <typename T>
void first_layer_pool_forward(const T* x, const T* weight, const PoolOutput<T>& out, const ConvParams& p,
                              const PoolParams& pool);
template <typename T>
void first_layer_weight_gradient(const T* dy, const Fused& f, const T* x, T* dw, const ConvParams& p);

}  // namespace minicnn::cuda
