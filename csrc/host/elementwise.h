// Host side of the elementwise operations: ReLU, ReLU6, add (alone and fused with ReLU), dropout and cast.
#pragma once

#include "host.h"

namespace minicnn::host {

// y = f(x) for an operation that takes each value by itself; kernel(x, y, size) computes it.
template <typename Kernel>
Tensor each_of(const char* op, const Tensor& x, Kernel kernel) {
    const Tensor y = empty_like(op, "y", x);
    run(x, [&](auto zero) {
        using T = decltype(zero);
        kernel(in<T>(x), out<T>(y), x.numel());
    });
    return y;
}

template <typename Kernel>
Tensor each(const char* op, Array x_, Kernel kernel) {
    const Tensor& x = tensor(op, "x", x_);
    check_activation(op, "x", x);
    return each_of(op, arranged(x), kernel);
}

// The output y of an activation, once it is checked to fit the gradient dy of this output.
inline const Tensor& activation_output(const char* op, const Tensor& dy, Array y) {
    const Tensor& given = tensor(op, "y", y);
    check_activation(op, "dy", dy);
    check_array(op, "y", given, dy.sizes(), dy);
    return given;
}

inline const Tensor& relu_output(const Tensor& dy, Array y) {
    return activation_output("relu_backward", dy, y);
}

// The gradient of such an operation from its output y; kernel(dy, y, dx, size) computes it.
template <typename Kernel>
Tensor each_gradient(const char* op, Array dy_, Array y_, Kernel kernel) {
    const Tensor& given_dy = tensor(op, "dy", dy_);
    const Tensor& given_y = activation_output(op, given_dy, y_);
    const Tensor dy = arranged(given_dy), y = arranged(given_y), dx = empty_like(op, "dx", dy);
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        kernel(in<T>(dy), in<T>(y), out<T>(dx), dy.numel());
    });
    return dx;
}

constexpr auto relu_kernel = [](auto... given) { minicnn::relu_forward(given...); };

inline Tensor relu_of(const Tensor& x) { return each_of("relu", x, relu_kernel); }
inline Tensor relu_forward(Array x) { return each("relu", x, relu_kernel); }
inline Tensor relu_backward(Array dy, Array y) {
    return each_gradient("relu_backward", dy, y, [](auto... given) { minicnn::relu_backward(given...); });
}

inline Tensor relu6_forward(Array x) {
    return each("relu6", x, [](auto... given) { minicnn::relu6_forward(given...); });
}
inline Tensor relu6_backward(Array dy, Array y) {
    return each_gradient("relu6_backward", dy, y, [](auto... given) { minicnn::relu6_backward(given...); });
}

inline Tensor sum(Array a_, Array b_, bool relu) {
    const char* op = "add";
    const Tensor &given_a = tensor(op, "a", a_), &given_b = tensor(op, "b", b_);
    check_activation(op, "a", given_a);
    check_array(op, "b", given_b, given_a.sizes(), given_a);
    const Tensor a = arranged(given_a), b = arranged(given_b), y = empty_like(op, "y", a);
    run(a, [&](auto zero) {
        using T = decltype(zero);
        minicnn::add_forward<T>(in<T>(a), in<T>(b), out<T>(y), a.numel(), relu);
    });
    return y;
}

inline Tensor add_forward(Array a, Array b) { return sum(a, b, /*relu=*/false); }

inline std::pair<Tensor, Tensor> add_backward(Array dy_) {
    const Tensor& dy = tensor("add_backward", "dy", dy_);
    check_activation("add_backward", "dy", dy);
    return {dy, dy};
}

inline Fused add_relu_forward(Array a, Array b, bool need_saved) {
    const Tensor y = sum(a, b, /*relu=*/true);
    return {y, need_saved ? y : Tensor()};
}

inline std::pair<Tensor, Tensor> add_relu_backward(Array dy, Array saved) {
    const Tensor da = relu_backward(dy, saved);
    return {da, da};
}

inline Tensor dropout(const char* op, const char* name, Array x_, Array keep_mask_, const Number& p_) {
    const Tensor &given_x = tensor(op, name, x_), &given_mask = tensor(op, "keep_mask", keep_mask_);
    shapes::dropout(op, name, given_x, given_mask);
    const double p = fraction(op, "p", p_);
    const Tensor x = arranged(given_x), mask = arranged(given_mask), y = empty_like(op, "y", x);
    const double factor = p == 1 ? 0 : 1 / (1 - p);
    run(x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::dropout<T>(in<T>(x), in<std::uint8_t>(mask), Sum<T>(factor), out<T>(y), x.numel());
    });
    return y;
}

inline Tensor dropout_forward(Array x, Array keep_mask, const Number& p) {
    return dropout("dropout", "x", x, keep_mask, p);
}

inline Tensor dropout_backward(Array dy, Array keep_mask, const Number& p) {
    return dropout("dropout_backward", "dy", dy, keep_mask, p);
}

// The dtype that a cast is asked for.
inline at::ScalarType cast_dtype(const char* op, const char* name, const Word& word) {
    if (word.is("float32")) return at::kFloat;
    if (word.is("bfloat16")) return at::kBFloat16;
    fail(op, name, "'float32' or 'bfloat16'", repr(word.source));
}

inline Tensor cast(const char* op, const char* name, Array x_, const char* dtype_name_, const Word& word) {
    const Tensor& given = tensor(op, name, x_);
    if (given.scalar_type() != at::kFloat && given.scalar_type() != at::kBFloat16) {
        fail(op, name, "dtype float32 or bfloat16", dtype_name(given.scalar_type()));
    }
    const at::ScalarType dtype = cast_dtype(op, dtype_name_, word);
    if (given.scalar_type() == dtype) return given;
    const Tensor x = arranged(given), y = empty(op, "y", x.sizes(), dtype);
    const py::gil_scoped_release release;
    if (dtype == at::kFloat) {
        minicnn::cast(in<bfloat16>(x), out<float>(y), x.numel());
    } else {
        minicnn::cast(in<float>(x), out<bfloat16>(y), x.numel());
    }
    return y;
}

inline Tensor cast_forward(Array x, const Word& dtype) { return cast("cast", "x", x, "dtype", dtype); }

inline Tensor cast_backward(Array dy, const Word& input_dtype) {
    return cast("cast_backward", "dy", dy, "input_dtype", input_dtype);
}

inline void offer_elementwise(py::module_& m) {
    offer<relu_forward>(m, "relu_forward", "x"_a);
    offer<relu_backward>(m, "relu_backward", "dy"_a, "y"_a);
    offer<relu6_forward>(m, "relu6_forward", "x"_a);
    offer<relu6_backward>(m, "relu6_backward", "dy"_a, "y"_a);
    offer<add_forward>(m, "add_forward", "a"_a, "b"_a);
    offer<add_backward>(m, "add_backward", "dy"_a);
    offer<add_relu_forward>(m, "add_relu_forward", "a"_a, "b"_a, py::kw_only(), "need_saved"_a = true);
    offer<add_relu_backward>(m, "add_relu_backward", "dy"_a, "saved"_a);
    offer<dropout_forward>(m, "dropout_forward", "x"_a, "keep_mask"_a, py::kw_only(), "p"_a);
    offer<dropout_backward>(m, "dropout_backward", "dy"_a, "keep_mask"_a, py::kw_only(), "p"_a);
    offer<cast_forward>(m, "cast_forward", "x"_a, py::kw_only(), "dtype"_a);
    offer<cast_backward>(m, "cast_backward", "dy"_a, py::kw_only(), "input_dtype"_a);
}

}  // namespace minicnn::host
