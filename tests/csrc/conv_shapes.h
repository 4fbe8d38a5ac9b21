// The shapes of the convolutions and pools that the harness drives.
#pragma once

#include "../../csrc/conv2d_ops.h"
#include "arrays.h"

namespace minicnn {
namespace {

struct ConvShape {
    int64_t N, C, H, W, F, K, stride, pad, dilation, groups;
};

ConvParams params_of(const ConvShape& s) {
    return {s.N,
            s.C,
            s.H,
            s.W,
            s.F,
            s.K,
            s.K,
            out_size(s.H, s.K, s.stride, s.pad, s.dilation),
            out_size(s.W, s.K, s.stride, s.pad, s.dilation),
            s.stride,
            s.stride,
            s.pad,
            s.pad,
            s.dilation,
            s.dilation,
            s.groups};
}

PoolParams pool_over(int64_t H, int64_t W, int64_t kernel, int64_t stride, int64_t pad) {
    return {kernel,
            kernel,
            out_size(H, kernel, stride, pad, 1),
            out_size(W, kernel, stride, pad, 1),
            stride,
            stride,
            pad,
            pad,
            1,
            1,
            pad,
            pad};
}

}  // namespace
}  // namespace minicnn
