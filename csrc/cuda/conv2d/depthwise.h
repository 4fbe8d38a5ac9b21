// Depthwise convolution: each group has one channel and one filter.  There is nothing that a product of
// matrices could reuse, so each thread computes a few neighbouring channels of one pixel.
#pragma once

#include "../core/reduce.h"
#include "../core/windows.h"
#include "indices.h"
#include "products.h"

namespace minicnn::cuda {

template <typename T>
struct DepthwiseForward {
    const T *x, *weight, *bias;
    T* y;
    ConvParams p;
    bool relu_after;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const Place out = place_of(i, p.OH, p.OW, p.C);
        Vector<T, V> sum;
        for (int k = 0; k < V; ++k) sum.v[k] = bias ? bias[out.c + k] : T(0);
        for (std::int64_t u = 0; u < p.KH; ++u) {
            const std::int64_t h = out.h * p.stride_h - p.pad_h + u * p.dil_h;
            for (std::int64_t v = 0; v < p.KW; ++v) {
                const std::int64_t w = out.w * p.stride_w - p.pad_w + v * p.dil_w;
                const bool in = h >= 0 && h < p.H && w >= 0 && w < p.W;
                Vector<T, V> cell{};
                if (in) cell = load<V>(x + ((out.n * p.H + h) * p.W + w) * p.C + out.c);
                for (int k = 0; k < V; ++k)
                    sum.v[k] += cell.v[k] * weight[((out.c + k) * p.KH + u) * p.KW + v];
            }
        }
        if (relu_after) {
            for (int k = 0; k < V; ++k) sum.v[k] = relu(sum.v[k]);
        }
        store(y + i, sum);
    }
};

template <typename T>
struct DepthwiseInput {
    const T *dy, *weight;
    T* dx;
    ConvParams p;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const Place in = place_of(i, p.H, p.W, p.C);
        Vector<T, V> sum{};
        for (std::int64_t u = 0; u < p.KH; ++u) {
            const std::int64_t down = in.h + p.pad_h - u * p.dil_h,
                               oh = down < 0 ? -1 : divide(down, p.stride_h);
            if (down < 0 || oh >= p.OH || oh * p.stride_h != down) continue;
            for (std::int64_t v = 0; v < p.KW; ++v) {
                const std::int64_t across = in.w + p.pad_w - v * p.dil_w;
                const std::int64_t ow = across < 0 ? -1 : divide(across, p.stride_w);
                if (across < 0 || ow >= p.OW || ow * p.stride_w != across) continue;
                const auto g = load<V>(dy + ((in.n * p.OH + oh) * p.OW + ow) * p.C + in.c);
                for (int k = 0; k < V; ++k) sum.v[k] += g.v[k] * weight[((in.c + k) * p.KH + u) * p.KW + v];
            }
        }
        store(dx + i, sum);
    }
};

// The gradient to the weight: for each column (u * KW + v) * C + c, a sum over the pixels.
template <typename T>
struct WeightSum {
    T value;
    __device__ void merge(const WeightSum& other) { value += other.value; }
};

template <typename T>
struct DepthwiseWeight {
    using Accumulator = WeightSum<T>;
    const T* dy;
    Pixels pixels;
    Taps taps;
    const T* x;
    ConvParams p;
    __device__ Tap column(int column) const { return taps.at(column); }
    __device__ void add(Accumulator& sum, std::int64_t row, const Tap& tap) const {
        const Pixel at = pixels.at(row);
        const std::int64_t h = at.h * p.stride_h - p.pad_h + tap.u * p.dil_h;
        const std::int64_t w = at.w * p.stride_w - p.pad_w + tap.v * p.dil_w;
        const T g = dy[row * p.C + tap.c];
        const bool in = h >= 0 && h < p.H && w >= 0 && w < p.W;
        sum.value += g * (in ? x[((at.n * p.H + h) * p.W + w) * p.C + tap.c] : T(0));
    }
};

template <typename T>
struct KeepDepthwiseWeight {
    T* dw;
    int C, cells;
    __device__ void operator()(int column, const WeightSum<T>& sum) const {
        dw[std::int64_t(column % C) * cells + column / C] = sum.value;
    }
};

}  // namespace minicnn::cuda
