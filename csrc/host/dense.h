// Host side of dense layers, alone and fused with ReLU.
#pragma once

#include "elementwise.h"

namespace minicnn::host {

inline Tensor dense_output(Array x_, Array weight_, Array bias_, bool relu) {
    const char* op = "dense";
    const Tensor &given_x = tensor(op, "x", x_), &given_weight = tensor(op, "weight", weight_);
    const Tensor given_bias = optional_tensor(op, "bias", bias_);
    shapes::dense(op, given_x, given_weight, given_bias);
    const Tensor x = arranged(given_x), weight = arranged(given_weight), bias = arranged(given_bias);
    const Tensor y = empty(op, "y", {x.size(0), weight.size(0)}, x.scalar_type());
    run(x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::dense_forward(in<T>(x), in<Sum<T>>(weight), in<Sum<T>>(bias), out<T>(y), x.size(0),
                               x.size(1), weight.size(0), relu);
    });
    return y;
}

// `relu_y` is the output of dense_relu, and undefined for dense.
inline Gradients dense_gradients(const Tensor& given_dy, const Tensor& relu_y, Array x_, Array weight_,
                                 Need need) {
    const char* op = "dense_backward";
    const Tensor &given_x = tensor(op, "x", x_), &given_weight = tensor(op, "weight", weight_);
    shapes::dense(op, given_x, given_weight, {});
    check_array(op, "dy", given_dy, {given_x.size(0), given_weight.size(0)}, given_x);
    const Tensor dy = arranged(given_dy), y = arranged(relu_y), x = arranged(given_x),
                 weight = arranged(given_weight);
    const at::ScalarType dtype = weight.scalar_type();
    const Tensor dx = empty_if(need.dx, op, "dx", x.sizes(), x.scalar_type()),
                 dw = empty_if(need.dw, op, "dw", weight.sizes(), dtype),
                 db = empty_if(need.db, op, "db", {weight.size(0)}, dtype);
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::dense_backward(in<T>(dy), in<T>(y), in<T>(x), in<Sum<T>>(weight), out<T>(dx),
                                out<Sum<T>>(dw), out<Sum<T>>(db), x.size(0), x.size(1), weight.size(0));
    });
    return {dx, dw, db};
}

inline Tensor dense_forward(Array x, Array weight, Array bias) {
    return dense_output(x, weight, bias, /*relu=*/false);
}

inline Gradients dense_backward(Array dy, Array x, Array weight, bool need_dx, bool need_dw, bool need_db) {
    return dense_gradients(tensor("dense_backward", "dy", dy), {}, x, weight, {need_dx, need_dw, need_db});
}

inline Fused dense_relu_forward(Array x, Array weight, Array bias, bool need_saved) {
    const Tensor y = dense_output(x, weight, bias, /*relu=*/true);
    return {y, need_saved ? y : Tensor()};
}

inline Gradients dense_relu_backward(Array dy_, Array x, Array weight, Array saved, bool need_dx,
                                     bool need_dw, bool need_db) {
    const Tensor& dy = tensor("dense_backward", "dy", dy_);
    const Tensor& y = relu_output(dy, saved);
    return dense_gradients(dy, y, x, weight, {need_dx, need_dw, need_db});
}

inline void offer_dense(py::module_& m) {
    offer<dense_forward>(m, "dense_forward", "x"_a, "weight"_a, "bias"_a);
    offer<dense_backward>(m, "dense_backward", "dy"_a, "x"_a, "weight"_a, py::kw_only(), "need_dx"_a = true,
                          "need_dw"_a = true, "need_db"_a = true);
    offer<dense_relu_forward>(m, "dense_relu_forward", "x"_a, "weight"_a, "bias"_a, py::kw_only(),
                              "need_saved"_a = true);
    offer<dense_relu_backward>(m, "dense_relu_backward", "dy"_a, "x"_a, "weight"_a, "saved"_a,
                               py::kw_only(), "need_dx"_a = true, "need_dw"_a = true, "need_db"_a = true);
}

}  // namespace minicnn::host
