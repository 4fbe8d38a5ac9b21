// The windows of a pool: which of a window's cells lie in the image, and which windows cover a pixel.
#pragma once

#include "../../sizes.h"
#include "elementwise.h"

namespace minicnn::cuda {

// Along one axis: the cells [first, last) of a window that lie in the image.  `start` is where cell 0 lies.
struct Cells {
    std::int64_t start, first, last;
};

__device__ inline Cells cells_inside(std::int64_t out, std::int64_t stride, std::int64_t pad,
                                     std::int64_t dilation, std::int64_t kernel, std::int64_t size) {
    const std::int64_t start = out * stride - pad;
    const std::int64_t first = start < 0 ? divide(-start + dilation - 1, dilation) : 0;
    const std::int64_t last = start < size ? smaller(kernel, divide(size - 1 - start, dilation) + 1) : 0;
    return {start, first, last};
}

__device__ inline Cells rows_inside(std::int64_t oh, const PoolParams& p, const ImageShape& s) {
    return cells_inside(oh, p.stride_h, p.pad_h, p.dil_h, p.KH, s.H);
}
__device__ inline Cells columns_inside(std::int64_t ow, const PoolParams& p, const ImageShape& s) {
    return cells_inside(ow, p.stride_w, p.pad_w, p.dil_w, p.KW, s.W);
}

// Along one axis: the windows [first, last) that reach over a place.  With a dilation, a window may reach
// over it and yet have no cell there.
struct Windows {
    std::int64_t first, last;
};

__device__ inline Windows windows_around(std::int64_t at, std::int64_t stride, std::int64_t pad,
                                         std::int64_t dilation, std::int64_t kernel, std::int64_t out) {
    const std::int64_t reach = dilation * (kernel - 1), place = at + pad;
    const std::int64_t first = place > reach ? divide(place - reach + stride - 1, stride) : 0;
    return {first, smaller(out, divide(place, stride) + 1)};
}

// Where element i of an image (N,H,W,C) lies.
struct Place {
    std::int64_t n, h, w, c;
};

__device__ inline Place place_of(std::int64_t i, std::int64_t H, std::int64_t W, std::int64_t C) {
    const std::int64_t pixel = divide(i, C), row = divide(pixel, W), n = divide(row, H);
    return {n, row - n * H, pixel - row * W, i - pixel * C};
}

// Calls f.at<V>(i) for every V channels of an image's elements.
template <typename T, typename F>
void for_each_channel(const F& f, const ImageShape& s, std::int64_t OH, std::int64_t OW, bool wide) {
    for_each<T>(f, s.N * OH * OW * s.C, wide && s.C % full_width<T> == 0);
}

}  // namespace minicnn::cuda
