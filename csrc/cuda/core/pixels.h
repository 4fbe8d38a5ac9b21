// What the number of a pixel stands for, found without a division.
#pragma once

#include "elementwise.h"

namespace minicnn::cuda {

// Division by a number that the host knows.  A dividend below 2**31 takes a multiplication and a shift.
// Source: Granlund and Montgomery 1994.
class Divisor {
  public:
    Divisor() = default;
    explicit Divisor(std::int64_t by) : by_(std::uint32_t(narrow(by, "a size of an image or a window"))) {
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
        : by_image_(H * W), by_row_(W), size_(int(H * W)), width_(int(W)) {}
    __device__ __forceinline__ Pixel at(std::int64_t i) const {
        const std::int64_t n = by_image_.quotient(i);
        const int rest = int(i - n * size_), h = by_row_.quotient(rest);
        return {n, h, rest - h * width_};
    }

  private:
    Divisor by_image_, by_row_;
    int size_ = 1, width_ = 1;
};

}  // namespace minicnn::cuda
