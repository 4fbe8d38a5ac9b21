// The windows of a pool: which of a window's cells lie in the image, and which windows cover a pixel.
#pragma once

#include "../../sizes.h"
#include "pixels.h"

namespace minicnn::cuda {

// The cells [first, last) of a window that lie in the image.  `start` is where cell 0 lies.
struct Cells {
    int start, first, last;
};

// The windows [first, last) that reach over a place.  With a dilation, a window may reach over it and yet
// have no cell there.
struct Windows {
    int first, last;
};

// A pool along one axis, counted in 32 bits.
class PoolAxis {
  public:
    PoolAxis(std::int64_t size, std::int64_t windows, std::int64_t kernel, std::int64_t stride,
             std::int64_t pad, std::int64_t dilation)
        : size_(narrow(size + 2 * pad, "an axis of a pool with its padding", 30) - int(2 * pad)),
          windows_(narrow(windows, "the windows of a pool")),
          kernel_(narrow(kernel, "the cells of a window", 30)),
          stride_(within_reach(stride)),
          pad_(int(pad)),
          dilation_(within_reach(dilation)),
          reach_(within_reach(std::int64_t(dilation_) * (kernel_ - 1))),
          by_stride_(stride_),
          by_dilation_(dilation_) {}

    __device__ Cells cells(int window) const {
        const int start = window * stride_ - pad_;
        const int first = start < 0 ? by_dilation_.quotient(dilation_ - 1 - start) : 0;
        const int last = start < size_ ? smaller(kernel_, by_dilation_.quotient(size_ - 1 - start) + 1) : 0;
        return {start, first, last};
    }
    __device__ Windows windows_around(int at) const {
        const int place = at + pad_;
        const int first = place > reach_ ? by_stride_.quotient(place - reach_ + stride_ - 1) : 0;
        return {first, smaller(windows_, by_stride_.quotient(place) + 1)};
    }
    // Which cell of the window lies at a place that the window reaches over; -1 if none does.
    __device__ int cell_at(int window, int at) const {
        const int distance = at + pad_ - window * stride_, cell = by_dilation_.quotient(distance);
        return cell * dilation_ == distance ? cell : -1;
    }
    // Where a cell of a window lies.
    __device__ int place(int window, int cell) const { return window * stride_ - pad_ + cell * dilation_; }
    __device__ bool in_image(int place) const { return unsigned(place) < unsigned(size_); }
    __host__ __device__ int kernel() const { return kernel_; }
    __host__ __device__ int dilation() const { return dilation_; }
    __host__ __device__ int size() const { return size_; }

  private:
    // An image has fewer than 2**30 places.  So steps that are longer lead out of it all the same.
    static int within_reach(std::int64_t step) { return int(smaller(step, (std::int64_t{1} << 30) - 1)); }

    int size_, windows_, kernel_, stride_, pad_, dilation_, reach_;
    Divisor by_stride_, by_dilation_;
};

// A pool of images (N,H,W,C).
struct Pool {
    PoolAxis down, across;
    Pixels inputs, outputs;
    std::int64_t H, W, OH, OW, C;

    Pool(const ImageShape& s, const PoolParams& p)
        : down(s.H, p.OH, p.KH, p.stride_h, p.pad_h, p.dil_h),
          across(s.W, p.OW, p.KW, p.stride_w, p.pad_w, p.dil_w),
          inputs(s.H, s.W),
          outputs(p.OH, p.OW),
          H(s.H),
          W(s.W),
          OH(p.OH),
          OW(p.OW),
          C(s.C) {}

    // Where channel 0 of a pixel before or after the pool lies.
    __device__ std::int64_t input(std::int64_t n, int h, int w) const { return ((n * H + h) * W + w) * C; }
    __device__ std::int64_t output(std::int64_t n, int oh, int ow) const {
        return ((n * OH + oh) * OW + ow) * C;
    }
};

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
