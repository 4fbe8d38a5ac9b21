// What the number of a pixel or of a tap stands for, found without a division.
#pragma once

#include "../core/elementwise.h"

namespace minicnn::cuda {

// Division by a number that the host knows.  A dividend below 2**31 takes a multiplication and a shift.
// Source: Granlund and Montgomery 1994.
class Divisor {
  public:
    Divisor() = default;
    explicit Divisor(std::int64_t by) : by_(std::uint32_t(narrow(by, "a size of a convolution"))) {
        while (std::uint64_t{1} << shift_ < by_) ++shift_;
        magic_ = std::uint32_t((((std::uint64_t{1} << shift_) - by_) << 32) / larger(by_, 1u) + 1);
    }
    __device__ __forceinline__ std::int64_t quotient(std::int64_t a) const {
        return a >> 31 == 0 ? std::int64_t(quotient(int(a))) : a / by_;
    }
    __device__ __forceinline__ int quotient(int a) const {
        return int((__umulhi(unsigned(a), magic_) + unsigned(a)) >> shift_);
    }

  private:
    std::uint32_t by_ = 1, magic_ = 1, shift_ = 0;
};

// A pixel of a batch of images.
struct Pixel {
    std::int64_t n;
    int h, w;
};

class Pixels {
  public:
    Pixels() = default;
    Pixels(std::int64_t H, std::int64_t W)
        : by_image_(H * W), by_row_(W), size_(int(H * W)), height_(int(H)), width_(int(W)) {}
    __device__ __forceinline__ Pixel at(std::int64_t i) const {
        const std::int64_t n = by_image_.quotient(i);
        const int rest = int(i - n * size_), h = by_row_.quotient(rest);
        return {n, h, rest - h * width_};
    }
    // Moves on by as many pixels as at(0) is from `step`.
    __device__ __forceinline__ void advance(Pixel& pixel, const Pixel& step) const {
        pixel.w += step.w;
        const bool next_row = pixel.w >= width_;
        if (next_row) pixel.w -= width_;
        pixel.h += step.h + int(next_row);
        const bool next_image = pixel.h >= height_;
        if (next_image) pixel.h -= height_;
        pixel.n += step.n + int(next_image);
    }

  private:
    Divisor by_image_, by_row_;
    int size_ = 1, height_ = 1, width_ = 1;
};

// A tap is one cell of the window in one channel.  Number k of a patch is tap (u, v, c): k = (u * KW + v) *
// depth + c.
struct Tap {
    int u, v, c;
};

class Taps {
  public:
    Taps() = default;
    Taps(std::int64_t KW, std::int64_t depth)
        : by_depth_(depth), by_width_(KW), depth_(int(depth)), width_(int(KW)) {}
    __device__ __forceinline__ Tap at(std::int64_t k) const {
        const int tap = int(by_depth_.quotient(k)), u = by_width_.quotient(tap);
        return {u, tap - u * width_, int(k - std::int64_t(tap) * depth_)};
    }
    // Moves on by as many taps as at(0) is from `step`.
    __device__ __forceinline__ void advance(Tap& tap, const Tap& step) const {
        tap.c += step.c;
        const bool next_cell = tap.c >= depth_;
        if (next_cell) tap.c -= depth_;
        tap.v += step.v + int(next_cell);
        const bool next_row = tap.v >= width_;
        if (next_row) tap.v -= width_;
        tap.u += step.u + int(next_row);
    }

  private:
    Divisor by_depth_, by_width_;
    int depth_ = 1, width_ = 1;
};

}  // namespace minicnn::cuda
