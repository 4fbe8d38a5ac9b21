// What the files of convolution share: the choice of a product's tile, and the parts of the backward pass.
#pragma once

#include "../core/gemm.h"
#include "../core/tensor_cores.h"
#include "../core/tf32.h"
#include "operands.h"

namespace minicnn::cuda {

template <typename T>
struct Tiles;

// The more columns a product has, the wider its tiles.  All tiles have the same number of threads and rows.
template <>
struct Tiles<float> {
    using Narrow = Registers<float, 8, 1>;
    using Half = Registers<float, 8, 2>;
    using Wide = Registers<float, 8, 4>;
    using Widest = Registers<float, 8, 8>;
};
template <>
struct Tiles<double> {
    using Narrow = Registers<double, 4, 1>;
    using Wide = Registers<double, 4, 4>;
};

// A type that can be passed as an argument.
template <typename Math>
struct Choice {
    using type = Math;
};

// Calls body(Choice<Math>()), where Math computes a product with this many columns.  Its tiles have at most
// `most_columns` columns.  Tensor cores are chosen only where TF32 is allowed, and 128-bit loads are
// possible.
template <typename T, bool wide_loads, int most_columns = 128, typename Body>
void with_math([[maybe_unused]] std::int64_t columns, const Body& body) {
    using Of = Tiles<T>;
    if (columns <= 16) return body(Choice<typename Of::Narrow>());
    if constexpr (std::is_same_v<T, float>) {
        if constexpr (wide_loads) {
            if (uses_tf32()) return body(Choice<TensorCores>());
        }
        if (columns <= 32) return body(Choice<typename Of::Half>());
        if constexpr (most_columns > 64) {
            if (columns > 64) return body(Choice<typename Of::Widest>());
        }
    }
    body(Choice<typename Of::Wide>());
}

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

// Whether the window has one cell and visits every pixel.  Then the convolution is a plain matrix product.
inline bool is_pointwise(const ConvParams& p) {
    return p.KH == 1 && p.KW == 1 && p.stride_h == 1 && p.stride_w == 1 && p.pad_h == 0 && p.pad_w == 0 &&
           p.OH == p.H && p.OW == p.W;
}

// y = sum + bias, and then ReLU if `relu`.
template <typename T>
struct ForwardOutput {
    T* y;
    const T* bias;
    std::int64_t F;
    int group_filters;
    bool relu;
    static constexpr bool doubts = false, contiguous = true;
    __device__ std::int64_t row(std::int64_t m) const { return m * F; }
    __device__ T* at(int group, int, std::int64_t row, int n) const {
        return y + row + group * group_filters + n;
    }
    __device__ T value(int group, int n, T sum) const {
        if (bias) sum += bias[group * group_filters + n];
        return relu ? cuda::relu(sum) : sum;
    }
};

// The weight's gradient.  The product computes it as (taps and channels) x filters, and dw is the
// transpose.
template <typename T>
struct WeightOutput {
    T* dw;
    std::int64_t depth;
    int group_filters;
    static constexpr bool doubts = false, contiguous = false;
    __device__ std::int64_t row(std::int64_t m) const { return m; }
    __device__ T* at(int group, int, std::int64_t row, int n) const {
        return dw + (std::int64_t(group) * group_filters + n) * depth + row;
    }
    __device__ T value(int, int, T sum) const { return sum; }
};

// The gradients to the input and to the weight.  `fused` says whether a ReLU or a max-pool follows the
// convolution; dy is then the gradient after it.
template <typename T, bool fused>
void conv2d_input_gradient(const T* dy, const Fused& f, const T* weight, T* dx, const ConvParams& p);
template <typename T, bool fused>
void conv2d_weight_gradient(const T* dy, const Fused& f, const T* x, T* dw, const ConvParams& p);
// The gradient to the bias.
template <typename T>
void conv2d_bias_gradient(const T* dy, const Fused& f, T* db, const ConvParams& p);

}  // namespace minicnn::cuda
