// Finds the inputs of a convolution by adding two distances: from the image to the first input of a patch,
// and from there to a tap.
#pragma once

#include "../../conv2d_ops.h"
#include "indices.h"

namespace minicnn::cuda {

// A distance in an image.
struct Step {
    int h, w;
    std::int64_t elements;
};

template <typename T>
struct Inputs {
    const T* x;
    std::int64_t C;
    int H, W, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w;  // strides: from one patch to the next
    Taps taps;

    Inputs(const T* x_, const ConvParams& p, std::int64_t step_h, std::int64_t step_w)
        : x(x_),
          C(p.C),
          H(narrow(p.H, "H")),
          W(narrow(p.W, "W")),
          stride_h(narrow(step_h, "stride")),
          stride_w(narrow(step_w, "stride")),
          pad_h(narrow(p.pad_h, "padding")),
          pad_w(narrow(p.pad_w, "padding")),
          dil_h(narrow(p.dil_h, "dilation")),
          dil_w(narrow(p.dil_w, "dilation")),
          taps(p.KW, p.C / p.groups) {}

    __host__ __device__ Step step(int h, int w, std::int64_t channel) const {
        return {h, w, (std::int64_t(h) * W + w) * C + channel};
    }
    // From the first input of a patch to that of a tap.
    __device__ Step tap(std::int64_t k, std::int64_t first_channel) const {
        const Tap tap = taps.at(k);
        return step(tap.u * dil_h, tap.v * dil_w, first_channel + tap.c);
    }
    // From x to the first input of a patch, which may lie in the padding.
    __device__ Step corner(const Pixel& patch) const {
        const int h = patch.h * stride_h - pad_h, w = patch.w * stride_w - pad_w;
        return {h, w, ((patch.n * H + h) * W + w) * C};
    }
    __device__ bool in_image(int h, int w) const {
        return unsigned(h) < unsigned(H) && unsigned(w) < unsigned(W);
    }
};

}  // namespace minicnn::cuda
