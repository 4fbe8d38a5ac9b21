// The first layer of a network, forward: images of 1 to 3 channels and a small window.  A product of
// matrices would waste half of its work there: with its channels padded to 4, a 3x3 window has 36 taps
// instead of 9.
#pragma once

#include "products.h"

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
}  // namespace minicnn::cuda
