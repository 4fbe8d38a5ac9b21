// Convolutions of images of 1 to 3 channels by small windows, the first layer of a network: there is too
// little to sum for slices of 16, and too few taps for tiles of 128.
#pragma once

#include "conv2d.h"
#include "window_order.h"

namespace minicnn::cuda {

constexpr int first_layer_taps = 32;  // at most
constexpr int first_layer_cells = 4;  // of the windows of a pool, exactly

inline bool is_first_layer(const ConvParams& p) {
    return p.groups == 1 && p.C <= 3 && p.KH * p.KW * p.C <= first_layer_taps;
}
inline bool first_layer_takes(const PoolParams& pool) { return pool.KH * pool.KW == first_layer_cells; }

template <typename T>
void first_layer_forward(const T* x, const T* weight, const ForwardOutput<T>& out, const ConvParams& p);
template <typename T>
void first_layer_pool_forward(const T* x, const T* weight, const PoolOutput<T>& out, const ConvParams& p,
                              const PoolParams& pool);
// From the pooled dy and its winners, where there is a pool behind.
template <typename T>
void first_layer_weight_gradient(const T* dy, const Fused& f, const T* x, T* dw, const ConvParams& p);

}  // namespace minicnn::cuda
