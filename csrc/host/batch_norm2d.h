// Host side of batch norm: alone, fused with what follows it, and folded into the convolution before it.
#pragma once

#include "elementwise.h"
#include "pool.h"

namespace minicnn::host {

// The checked arguments of batch norm's forward pass, and its statistics.
struct BatchNormForward {
    Tensor x, weight, bias, mean, invstd;
    InPlace running_mean, running_var;
    BatchNormParams p;

    BatchNormForward(const char* op, const Tensor& x_, Array weight_, Array bias_,
                     const Tensor& running_mean_, const Tensor& running_var_, bool training,
                     const Number& momentum, const Number& eps)
        : weight(optional_tensor(op, "weight", weight_)),
          bias(optional_tensor(op, "bias", bias_)),
          running_mean(running_mean_),
          running_var(running_var_),
          p{number(op, "momentum", momentum), number(op, "eps", eps), training} {
        shapes::batch_norm2d(op, x_, weight, bias, running_mean_, running_var_, training);
        if (training && running_mean_.defined()) check_in_place(op, "running_mean", running_mean_);
        if (training && running_var_.defined()) check_in_place(op, "running_var", running_var_);
        x = arranged(x_);
        weight = arranged(weight);
        bias = arranged(bias);
        mean = empty(op, "mean", {x.size(1)}, x.scalar_type());
        invstd = empty(op, "invstd", {x.size(1)}, x.scalar_type());
    }

    void finish() const {
        if (!p.training) return;
        running_mean.finish();
        running_var.finish();
    }
};

// The arguments of every forward pass as Python passes them; they are checked in this order.
inline BatchNormForward batch_norm_forward(Array x, Array weight, Array bias, Array running_mean,
                                           Array running_var, bool training, const Number& momentum,
                                           const Number& eps) {
    const char* op = "batch_norm2d";
    const Tensor& given = tensor(op, "x", x);
    const Tensor mean = optional_tensor(op, "running_mean", running_mean);
    const Tensor var = optional_tensor(op, "running_var", running_var);
    return {op, given, weight, bias, mean, var, training, momentum, eps};
}

// y = relu(batch_norm2d(x) + residual), without ReLU if not `relu`, and without residual if that is None.
inline Tensor batch_norm_output(const BatchNormForward& a, Array residual_, bool relu) {
    const Tensor given_residual = optional_tensor("add", "b", residual_);
    if (given_residual.defined()) check_array("add", "b", given_residual, a.x.sizes(), a.x);
    const Tensor residual = arranged(given_residual), y = empty_like("batch_norm2d", "y", a.x);
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::batch_norm2d_forward<T>(in<T>(a.x), in<T>(a.weight), in<T>(a.bias),
                                         out<T>(a.running_mean.get()), out<T>(a.running_var.get()),
                                         in<T>(residual), out<T>(y), out<T>(a.mean), out<T>(a.invstd),
                                         image_shape(a.x.sizes()), a.p, relu);
    });
    a.finish();
    return y;
}

inline std::tuple<Tensor, Tensor, Tensor> batch_norm2d_forward(Array x, Array weight, Array bias,
                                                               Array running_mean, Array running_var,
                                                               bool training, const Number& momentum,
                                                               const Number& eps) {
    const BatchNormForward a =
        batch_norm_forward(x, weight, bias, running_mean, running_var, training, momentum, eps);
    const Tensor y = batch_norm_output(a, {Py_None}, /*relu=*/false);
    return {y, a.mean, a.invstd};
}

inline FusedMany batch_norm2d_relu_forward(Array x, Array weight, Array bias, Array running_mean,
                                           Array running_var, bool training, const Number& momentum,
                                           const Number& eps, bool need_saved) {
    const BatchNormForward a =
        batch_norm_forward(x, weight, bias, running_mean, running_var, training, momentum, eps);
    const Tensor y = batch_norm_output(a, {Py_None}, /*relu=*/true);
    if (!need_saved) return {y, py::none()};
    return {y, py::make_tuple(y, a.mean, a.invstd)};
}

inline FusedMany batch_norm2d_add_relu_forward(Array x, Array residual, Array weight, Array bias,
                                               Array running_mean, Array running_var, bool training,
                                               const Number& momentum, const Number& eps, bool need_saved) {
    const BatchNormForward a =
        batch_norm_forward(x, weight, bias, running_mean, running_var, training, momentum, eps);
    tensor("add", "b", residual);
    const Tensor y = batch_norm_output(a, residual, /*relu=*/true);
    if (!need_saved) return {y, py::none()};
    return {y, py::make_tuple(y, a.mean, a.invstd)};
}

// The checked arguments of batch norm's backward pass, and its outputs.  dy is not among them: its shape
// depends on what is fused.
struct BatchNormBackward {
    Tensor x, weight, mean, invstd, dx, dw, db;

    BatchNormBackward(Array x_, Array weight_, Array mean_, Array invstd_, bool training, Need need) {
        const char* op = "batch_norm2d_backward";
        const Tensor& given = tensor(op, "x", x_);
        weight = optional_tensor(op, "weight", weight_);
        mean = tensor(op, "running_mean", mean_);
        invstd = tensor(op, "running_var", invstd_);
        shapes::batch_norm2d(op, given, weight, {}, mean, invstd, training);
        x = arranged(given);
        mean = arranged(mean);
        invstd = arranged(invstd);
        dx = empty_if(need.dx, op, "dx", x.sizes(), x.scalar_type());
        dw = empty_if(need.dw && weight.defined(), op, "dw", {x.size(1)}, x.scalar_type());
        db = empty_if(need.db && weight.defined(), op, "db", {x.size(1)}, x.scalar_type());
        weight = arranged(weight);
    }
};

using ResidualGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // dx, dresidual, dw, db

// `relu_y` is the output, if it went through a ReLU, and undefined if not.
inline ResidualGradients batch_norm_gradients(const Tensor& given_dy, const Tensor& relu_y, Array x,
                                              Array weight, Array mean, Array invstd, bool training,
                                              Need need, bool need_dresidual) {
    const char* op = "batch_norm2d_backward";
    const BatchNormBackward a(x, weight, mean, invstd, training, need);
    check_array(op, "dy", given_dy, a.x.sizes(), a.x);
    const Tensor dy = arranged(given_dy), y = arranged(relu_y);
    const Tensor dresidual = empty_if(need_dresidual, op, "dresidual", a.x.sizes(), a.x.scalar_type());
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::batch_norm2d_backward<T>(in<T>(dy), in<T>(y), in<T>(a.x), in<T>(a.weight), in<T>(a.mean),
                                          in<T>(a.invstd), out<T>(a.dx), out<T>(dresidual), out<T>(a.dw),
                                          out<T>(a.db), image_shape(a.x.sizes()), training);
    });
    return {a.dx, dresidual, a.dw, a.db};
}

inline Gradients batch_norm2d_backward(Array dy, Array x, Array weight, Array mean, Array invstd,
                                       bool training, bool need_dx, bool need_dw, bool need_db) {
    const auto [dx, dresidual, dw, db] =
        batch_norm_gradients(tensor("batch_norm2d_backward", "dy", dy), {}, x, weight, mean, invstd,
                             training, {need_dx, need_dw, need_db}, /*need_dresidual=*/false);
    return {dx, dw, db};
}

// The gradients of both fused operations that end with a ReLU; saved is (y, mean, invstd).
inline ResidualGradients batch_norm_relu_gradients(const char* op, Array dy_, Array x, Array weight,
                                                   const Saved& saved, bool training, Need need,
                                                   bool need_dresidual) {
    saved.check_size(op, 3);
    const Tensor& dy = tensor("batch_norm2d_backward", "dy", dy_);
    const Tensor& y = relu_output(dy, saved[0]);
    return batch_norm_gradients(dy, y, x, weight, saved[1], saved[2], training, need, need_dresidual);
}

inline Gradients batch_norm2d_relu_backward(Array dy, Array x, Array weight, const Saved& saved,
                                            bool training, bool need_dx, bool need_dw, bool need_db) {
    const auto [dx, dresidual, dw, db] =
        batch_norm_relu_gradients("batch_norm2d_relu_backward", dy, x, weight, saved, training,
                                  {need_dx, need_dw, need_db}, /*need_dresidual=*/false);
    return {dx, dw, db};
}

inline ResidualGradients batch_norm2d_add_relu_backward(Array dy, Array x, Array weight, const Saved& saved,
                                                        bool training, bool need_dx, bool need_dw,
                                                        bool need_db) {
    return batch_norm_relu_gradients("batch_norm2d_add_relu_backward", dy, x, weight, saved, training,
                                     {need_dx, need_dw, need_db}, /*need_dresidual=*/true);
}

// ---- with ReLU and max-pool: saved is (y, argmax, mean, invstd) --------------------------------------

inline FusedMany batch_norm2d_relu_max_pool2d_forward(Array x, Array weight, Array bias, Array running_mean,
                                                      Array running_var, bool training,
                                                      const Number& momentum, const Number& eps,
                                                      const Pool& attributes, bool need_saved) {
    const BatchNormForward a =
        batch_norm_forward(x, weight, bias, running_mean, running_var, training, momentum, eps);
    const ImageShape s = image_shape(a.x.sizes());
    const PoolParams pool = pool_params("max_pool2d", a.x.sizes(), attributes);
    const std::int64_t pooled[] = {s.N, s.C, pool.OH, pool.OW};
    const Tensor y = empty("max_pool2d", "y", pooled, a.x.scalar_type());
    const Tensor argmax = empty_if(need_saved, "max_pool2d", "argmax", pooled, argmax_dtype(pool));
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        with_index(argmax_dtype(pool), [&](auto index) {
            using Index = decltype(index);
            minicnn::batch_norm2d_pool_forward<T, Index>(
                in<T>(a.x), in<T>(a.weight), in<T>(a.bias), out<T>(a.running_mean.get()),
                out<T>(a.running_var.get()), out<T>(y), out<Index>(argmax), out<T>(a.mean),
                out<T>(a.invstd), s, a.p, pool);
        });
    });
    a.finish();
    if (!need_saved) return {y, py::none()};
    return {y, py::make_tuple(y, argmax, a.mean, a.invstd)};
}

inline Gradients batch_norm2d_relu_max_pool2d_backward(Array dy_, Array x, Array weight, const Saved& saved,
                                                       bool training, const Pool& attributes, bool need_dx,
                                                       bool need_dw, bool need_db) {
    const char *op = "batch_norm2d_backward", *pool_op = "max_pool2d_backward";
    saved.check_size("batch_norm2d_relu_max_pool2d_backward", 4);
    const Tensor& given_dy = tensor("relu_backward", "dy", dy_);
    const Tensor& given_y = relu_output(given_dy, saved[0]);
    const Tensor& given_argmax = tensor(pool_op, "argmax", saved[1]);
    check_image(pool_op, "dy", given_dy);
    const BatchNormBackward a(x, weight, saved[2], saved[3], training, {need_dx, need_dw, need_db});
    const ImageShape s = image_shape(a.x.sizes());
    const PoolParams pool = pool_params(pool_op, a.x.sizes(), attributes);
    check_shape(pool_op, "dy", given_dy, {s.N, s.C, pool.OH, pool.OW});
    check_argmax(pool_op, given_argmax, given_dy, pool);
    check_like(op, "dy", given_dy, a.x);
    const Tensor dy = arranged(given_dy), y = arranged(given_y), argmax = arranged(given_argmax);
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        with_index(argmax.scalar_type(), [&](auto index) {
            using Index = decltype(index);
            minicnn::batch_norm2d_pool_backward<T, Index>(
                in<T>(dy), in<T>(y), in<Index>(argmax), in<T>(a.x), in<T>(a.weight), in<T>(a.mean),
                in<T>(a.invstd), out<T>(a.dx), out<T>(a.dw), out<T>(a.db), s, training, pool);
        });
    });
    return {a.dx, a.dw, a.db};
}

// ---- folded into a convolution -----------------------------------------------------------------------

inline std::pair<Tensor, Tensor> fold_batch_norm2d(Array weight_, Array bias_, Array gamma_, Array beta_,
                                                   Array running_mean_, Array running_var_,
                                                   const Number& eps_) {
    const char* op = "fold_batch_norm2d";
    const Tensor& given = tensor(op, "weight", weight_);
    check_float(op, "weight", given);
    check_filters(op, "weight", given);
    const std::int64_t F = given.size(0);
    const auto checked = [&](const char* name, const Tensor& a) {
        if (a.defined()) check_array(op, name, a, {F}, given);
        return arranged(a);
    };
    const Tensor bias = checked("bias", optional_tensor(op, "bias", bias_));
    const Tensor gamma = checked("gamma", optional_tensor(op, "gamma", gamma_));
    const Tensor beta = checked("beta", optional_tensor(op, "beta", beta_));
    const Tensor mean = checked("running_mean", tensor(op, "running_mean", running_mean_));
    const Tensor var = checked("running_var", tensor(op, "running_var", running_var_));
    const double eps = number(op, "eps", eps_);
    const Tensor weight = arranged(given), folded_weight = empty_like(op, "weight", weight);
    const Tensor folded_bias = empty(op, "bias", {F}, weight.scalar_type());
    run(weight, [&](auto zero) {
        using T = decltype(zero);
        minicnn::fold_batch_norm2d<T>(in<T>(weight), in<T>(bias), in<T>(gamma), in<T>(beta), in<T>(mean),
                                      in<T>(var), out<T>(folded_weight), out<T>(folded_bias), F,
                                      weight.numel() / F, eps);
    });
    return {folded_weight, folded_bias};
}

inline void offer_batch_norm2d(py::module_& m) {
    offer<batch_norm2d_forward>(m, "batch_norm2d_forward", "x"_a, "weight"_a, "bias"_a, "running_mean"_a,
                                "running_var"_a, py::kw_only(), "training"_a, "momentum"_a, "eps"_a);
    offer<batch_norm2d_backward>(m, "batch_norm2d_backward", "dy"_a, "x"_a, "weight"_a, "mean"_a,
                                 "invstd"_a, py::kw_only(), "training"_a, "need_dx"_a = true,
                                 "need_dw"_a = true, "need_db"_a = true);
    offer<batch_norm2d_relu_forward>(m, "batch_norm2d_relu_forward", "x"_a, "weight"_a, "bias"_a,
                                     "running_mean"_a, "running_var"_a, py::kw_only(), "training"_a,
                                     "momentum"_a, "eps"_a, "need_saved"_a = true);
    offer<batch_norm2d_relu_backward>(m, "batch_norm2d_relu_backward", "dy"_a, "x"_a, "weight"_a, "saved"_a,
                                      py::kw_only(), "training"_a, "need_dx"_a = true, "need_dw"_a = true,
                                      "need_db"_a = true);
    offer<batch_norm2d_add_relu_forward>(
        m, "batch_norm2d_add_relu_forward", "x"_a, "residual"_a, "weight"_a, "bias"_a, "running_mean"_a,
        "running_var"_a, py::kw_only(), "training"_a, "momentum"_a, "eps"_a, "need_saved"_a = true);
    offer<batch_norm2d_add_relu_backward>(m, "batch_norm2d_add_relu_backward", "dy"_a, "x"_a, "weight"_a,
                                          "saved"_a, py::kw_only(), "training"_a, "need_dx"_a = true,
                                          "need_dw"_a = true, "need_db"_a = true);
    offer<batch_norm2d_relu_max_pool2d_forward>(m, "batch_norm2d_relu_max_pool2d_forward", "x"_a,
                                                "weight"_a, "bias"_a, "running_mean"_a, "running_var"_a,
                                                py::kw_only(), "training"_a, "momentum"_a, "eps"_a,
                                                "pool"_a, "need_saved"_a = true);
    offer<batch_norm2d_relu_max_pool2d_backward>(
        m, "batch_norm2d_relu_max_pool2d_backward", "dy"_a, "x"_a, "weight"_a, "saved"_a, py::kw_only(),
        "training"_a, "pool"_a, "need_dx"_a = true, "need_dw"_a = true, "need_db"_a = true);
    offer<fold_batch_norm2d>(m, "fold_batch_norm2d", "weight"_a, "bias"_a, "gamma"_a, "beta"_a,
                             "running_mean"_a, "running_var"_a, py::kw_only(), "eps"_a);
}

}  // namespace minicnn::host
