// What the number of a tap stands for, found without a division.
#pragma once

#include "../core/pixels.h"

namespace minicnn::cuda {

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

  private:
    Divisor by_depth_, by_width_;
    int depth_ = 1, width_ = 1;
};

}  // namespace minicnn::cuda
