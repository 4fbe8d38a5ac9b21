// For a max-pool after the convolution: the pixels of the map window by window, and the maximum of a
// window.
#pragma once

#include <cmath>

#include "../../conv2d_ops.h"
#include "../core/pixels.h"

namespace minicnn::cuda {

// Numbers the pixels of the map window by window, so that the cells of a window have consecutive numbers.
class WindowOrder {
  public:
    WindowOrder() = default;
    WindowOrder(const PoolParams& pool)
        : by_cells_(pool.KH * pool.KW),
          by_width_(pool.KW),
          windows_(pool.OH, pool.OW),
          cells_(int(pool.KH * pool.KW)),
          width_(int(pool.KW)),
          stride_h_(narrow(pool.stride_h, "stride")),
          stride_w_(narrow(pool.stride_w, "stride")) {}

    __device__ Pixel at(std::int64_t i) const {
        const std::int64_t window = by_cells_.quotient(i);
        return cell(windows_.at(window), int(i - window * cells_));
    }
    __device__ Pixel cell(const Pixel& window, int number) const {
        const int u = by_width_.quotient(number);
        return {window.n, window.h * stride_h_ + u, window.w * stride_w_ + number - u * width_};
    }
    __device__ Pixel window(std::int64_t i) const { return windows_.at(i); }
    __host__ __device__ int cells() const { return cells_; }

  private:
    Divisor by_cells_, by_width_;
    Pixels windows_;
    int cells_ = 0, width_ = 0, stride_h_ = 0, stride_w_ = 0;
};

// Whether all windows of the pool, which has no padding, lie in the convolution's map.
inline bool windows_lie_in_map(const ConvParams& p, const PoolParams& pool) {
    return (pool.OH - 1) * pool.stride_h + pool.KH <= p.OH &&
           (pool.OW - 1) * pool.stride_w + pool.KW <= p.OW;
}

// Which winners count in a backward pass: the numbers of cells in the map.  A winner may be any byte, as it
// may have been saved for another pool.
class CountingWinners {
  public:
    CountingWinners() = default;
    CountingWinners(const ConvParams& p, const PoolParams& pool)
        : order_(pool),
          OH_(narrow(p.OH, "OH")),
          OW_(narrow(p.OW, "OW")),
          whole_(windows_lie_in_map(p, pool)) {}

    __device__ bool has(int won, std::int64_t window) const {
        if (won >= order_.cells()) return false;
        if (whole_) return true;
        const Pixel cell = order_.cell(order_.window(window), won);
        return cell.h < OH_ && cell.w < OW_;
    }

  private:
    WindowOrder order_;
    int OH_ = 0, OW_ = 0;
    bool whole_ = false;
};

// The maximum of a window and the cell that won: the first of equal cells, and the last of several NaN.
template <typename T>
struct Maximum {
    T best = T(-INFINITY);
    int won = 0;
    __device__ void take(int cell, T value) {
        if (value > best || value != value) {
            best = value;
            won = cell;
        }
    }
};

// Where the maxima of a convolution's windows are stored, with bias and ReLU.
template <typename T>
struct PoolOutput {
    T* y;
    std::uint8_t* winner;  // or nullptr
    const Sum<T>* bias;
    std::int64_t F;
    int OH, OW, group_filters;  // OH and OW are the sizes of the map before the pool
    bool relu;

    __device__ bool in_map(const Pixel& cell) const { return cell.h < OH && cell.w < OW; }
    __device__ Sum<T> offset(int f) const { return bias ? bias[f] : Sum<T>(0); }
    __device__ Maximum<Sum<T>> after_relu(const Maximum<Sum<T>>& maximum) const {
        return relu && maximum.best <= 0 ? Maximum<Sum<T>>{0, relu_off} : maximum;
    }
};

}  // namespace minicnn::cuda
