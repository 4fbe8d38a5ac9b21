// Host side of the operations that only move values: concat and flatten.
#pragma once

#include "host.h"

namespace minicnn::host {

inline Tensor concat_forward(const Arrays& arrays) {
    const char* op = "concat";
    std::vector<Tensor> xs;
    for (std::int64_t i = 0; i < arrays.size(); ++i) xs.push_back(tensor(op, {"xs", i}, arrays[i]));
    shapes::concat(op, xs);
    std::int64_t channels = 0;
    for (Tensor& x : xs) {
        x = arranged(x);
        channels += x.size(1);
    }
    const ImageShape s = image_shape(xs[0].sizes());
    const Tensor y = empty(op, "y", {s.N, channels, s.H, s.W}, xs[0].scalar_type());
    run(y, [&](auto zero) {
        using T = decltype(zero);
        std::vector<Piece<const T>> pieces;
        for (const Tensor& x : xs) pieces.push_back({in<T>(x), x.size(1)});
        minicnn::concat_forward<T>(pieces.data(), std::int64_t(pieces.size()), out<T>(y), s.N * s.H * s.W);
    });
    return y;
}

inline py::list concat_backward(Array dy_, const Ints& sizes) {
    const char* op = "concat_backward";
    const Tensor& given = tensor(op, "dy", dy_);
    check_image(op, "dy", given);
    const ImageShape s = image_shape(given.sizes());
    Wide sum = 0;
    bool positive = sizes.valid;
    for (const std::int64_t size : sizes.values) {
        sum += size;
        positive = positive && size > 0;
    }
    if (!positive || sum != s.C) {
        fail(op, "sizes", "positive sizes with sum C=" + std::to_string(s.C), repr(sizes));
    }
    const Tensor dy = arranged(given);
    std::vector<Tensor> dxs;
    for (const std::int64_t size : sizes.values) {
        dxs.push_back(empty(op, "dx", {s.N, size, s.H, s.W}, dy.scalar_type()));
    }
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        std::vector<Piece<T>> pieces;
        for (const Tensor& dx : dxs) pieces.push_back({out<T>(dx), dx.size(1)});
        minicnn::concat_backward<T>(in<T>(dy), pieces.data(), std::int64_t(pieces.size()), s.N * s.H * s.W);
    });
    py::list result;
    for (const Tensor& dx : dxs) result.append(dx);
    return result;
}

inline Tensor flatten_forward(Array x_) {
    const char* op = "flatten";
    const Tensor& given = tensor(op, "x", x_);
    check_image(op, "x", given);
    const ImageShape s = image_shape(given.sizes());
    const Tensor x = arranged(given), y = empty(op, "y", {s.N, s.C * s.H * s.W}, x.scalar_type());
    run(x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::flatten_forward<T>(in<T>(x), out<T>(y), s);
    });
    return y;
}

inline Tensor flatten_backward(Array dy_, const Ints& input_shape) {
    const char* op = "flatten_backward";
    const Tensor& given = tensor(op, "dy", dy_);
    check_activation(op, "dy", given);
    check_matrix(op, "dy", given, "N, C*H*W");
    check_image_shape(op, "input_shape", input_shape);
    const Tensor dx = empty(op, "dx", input_shape.values, given.scalar_type());
    const ImageShape s = image_shape(dx.sizes());
    check_shape(op, "dy", given, {s.N, s.C * s.H * s.W});
    const Tensor dy = arranged(given);
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::flatten_backward<T>(in<T>(dy), out<T>(dx), s);
    });
    return dx;
}

inline void offer_rearrange(py::module_& m) {
    offer<concat_forward>(m, "concat_forward", "xs"_a);
    offer<concat_backward>(m, "concat_backward", "dy"_a, py::kw_only(), "sizes"_a);
    offer<flatten_forward>(m, "flatten_forward", "x"_a);
    offer<flatten_backward>(m, "flatten_backward", "dy"_a, py::kw_only(), "input_shape"_a);
}

}  // namespace minicnn::host
