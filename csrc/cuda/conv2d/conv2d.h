// What the files of convolution share.
#pragma once

#include "../core/pixels.h"
#include "fused.h"

namespace minicnn::cuda {

// Kernels count in signed 32 bits: places along H and W, those in the padding included, channels, filters
// and the cells of a filter.
inline void check_sizes(const ConvParams& p) {
    const std::int64_t last_h = (p.OH - 1) * p.stride_h + (p.KH - 1) * p.dil_h;
    const std::int64_t last_w = (p.OW - 1) * p.stride_w + (p.KW - 1) * p.dil_w;
    narrow(larger(p.H + p.pad_h, last_h + 1), "H with its padding", 30);
    narrow(larger(p.W + p.pad_w, last_w + 1), "W with its padding", 30);
    narrow(p.C, "C");
    narrow(p.F, "F");
    narrow(p.KH * p.KW, "the cells of a filter");
}

// The gradients to the input, the weight and the bias; each may be nullptr.  dy is the gradient after what
// `f` says.
template <typename T>
void conv2d_gradients(const T* dy, const Fused& f, const T* x, const Sum<T>* weight, T* dx, Sum<T>* dw,
                      Sum<T>* db, const ConvParams& p);

}  // namespace minicnn::cuda
