// Host side of batch norm, alone and fused with what follows it.
#pragma once

#include "pool.h"

namespace minicnn::host {

using Normalised = std::tuple<Tensor, Tensor, Tensor>;  // y, mean, invstd

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

// relu(batch_norm2d(x) + residual), where relu and residual (None) may be absent.
inline Normalised batch_norm2d_forward(Array x_, Array residual_, Array weight, Array bias,
                                       Array running_mean, Array running_var, bool training,
                                       const Number& momentum, const Number& eps, bool relu) {
    const char* op = "batch_norm2d";
    const BatchNormForward a(op, tensor(op, "x", x_), weight, bias,
                             optional_tensor(op, "running_mean", running_mean),
                             optional_tensor(op, "running_var", running_var), training, momentum, eps);
    const Tensor given_residual = optional_tensor("add", "b", residual_);
    if (given_residual.defined()) check_array("add", "b", given_residual, a.x.sizes(), a.x);
    const Tensor residual = arranged(given_residual), y = empty_like(op, "y", a.x);
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::batch_norm2d_forward<T>(in<T>(a.x), in<T>(a.weight), in<T>(a.bias),
                                         out<T>(a.running_mean.get()), out<T>(a.running_var.get()),
                                         in<T>(residual), out<T>(y), out<T>(a.mean), out<T>(a.invstd),
                                         image_shape(a.x.sizes()), a.p, relu);
    });
    a.finish();
    return {y, a.mean, a.invstd};
}

// The checked arguments of batch norm's backward pass but for dy, and its outputs.
struct BatchNormBackward {
    Tensor x, weight, mean, invstd, dx, dw, db;

    BatchNormBackward(Array x_, Array weight_, Array mean_, Array invstd_, bool training, bool need_dx,
                      bool need_dw, bool need_db) {
        const char* op = "batch_norm2d_backward";
        const Tensor& given = tensor(op, "x", x_);
        weight = optional_tensor(op, "weight", weight_);
        mean = tensor(op, "running_mean", mean_);
        invstd = tensor(op, "running_var", invstd_);
        shapes::batch_norm2d(op, given, weight, {}, mean, invstd, training);
        x = arranged(given);
        mean = arranged(mean);
        invstd = arranged(invstd);
        dx = empty_if(need_dx, op, "dx", x.sizes(), x.scalar_type());
        dw = empty_if(need_dw && weight.defined(), op, "dw", {x.size(1)}, x.scalar_type());
        db = empty_if(need_db && weight.defined(), op, "db", {x.size(1)}, x.scalar_type());
        weight = arranged(weight);
    }
};

// (dx, dresidual, dw, db); relu_y, the output, is None without ReLU.
inline std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm2d_backward(Array dy_, Array relu_y_, Array x,
                                                                        Array weight, Array mean,
                                                                        Array invstd, bool training,
                                                                        bool need_dx, bool need_dw,
                                                                        bool need_db, bool need_dresidual) {
    const char* op = "batch_norm2d_backward";
    const Tensor& given_dy = tensor(op, "dy", dy_);
    const Tensor given_y = optional_tensor("relu_backward", "y", relu_y_);
    if (given_y.defined()) {
        check_float("relu_backward", "dy", given_dy);
        check_array("relu_backward", "y", given_y, given_dy.sizes(), given_dy);
    }
    const BatchNormBackward a(x, weight, mean, invstd, training, need_dx, need_dw, need_db);
    check_array(op, "dy", given_dy, a.x.sizes(), a.x);
    const Tensor dy = arranged(given_dy), y = arranged(given_y);
    const Tensor dresidual = empty_if(need_dresidual, op, "dresidual", a.x.sizes(), a.x.scalar_type());
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::batch_norm2d_backward<T>(in<T>(dy), in<T>(y), in<T>(a.x), in<T>(a.weight), in<T>(a.mean),
                                          in<T>(a.invstd), out<T>(a.dx), out<T>(dresidual), out<T>(a.dw),
                                          out<T>(a.db), image_shape(a.x.sizes()), training);
    });
    return {a.dx, dresidual, a.dw, a.db};
}

// max_pool2d(relu(batch_norm2d(x))): (y, argmax, mean, invstd)
inline std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm2d_pool_forward(
    Array x_, Array weight, Array bias, Array running_mean, Array running_var, bool training,
    const Number& momentum, const Number& eps, const Ints& kernel_size, const Ints& stride,
    const Ints& padding, const Ints& dilation, bool ceil_mode, bool need_saved) {
    const char* op = "batch_norm2d";
    const BatchNormForward a(op, tensor(op, "x", x_), weight, bias,
                             optional_tensor(op, "running_mean", running_mean),
                             optional_tensor(op, "running_var", running_var), training, momentum, eps);
    const ImageShape s = image_shape(a.x.sizes());
    const PoolParams pool =
        max_pool_params("max_pool2d", a.x.sizes(), kernel_size, stride, padding, dilation, ceil_mode);
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
    return {y, argmax, a.mean, a.invstd};
}

inline Gradients batch_norm2d_pool_backward(Array dy_, Array y_, Array argmax_, Array x, Array weight,
                                            Array mean, Array invstd, bool training,
                                            const Ints& kernel_size, const Ints& stride,
                                            const Ints& padding, const Ints& dilation, bool ceil_mode,
                                            bool need_dx, bool need_dw, bool need_db) {
    const char *op = "batch_norm2d_backward", *pool_op = "max_pool2d_backward";
    const Tensor &given_dy = tensor("relu_backward", "dy", dy_),
                 &given_y = tensor("relu_backward", "y", y_);
    check_float("relu_backward", "dy", given_dy);
    check_array("relu_backward", "y", given_y, given_dy.sizes(), given_dy);
    const Tensor& given_argmax = tensor(pool_op, "argmax", argmax_);
    check_image(pool_op, "dy", given_dy);
    const BatchNormBackward a(x, weight, mean, invstd, training, need_dx, need_dw, need_db);
    const ImageShape s = image_shape(a.x.sizes());
    const PoolParams pool =
        max_pool_params(pool_op, a.x.sizes(), kernel_size, stride, padding, dilation, ceil_mode);
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

}  // namespace minicnn::host
