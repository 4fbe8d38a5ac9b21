// Host side of convolution and dense layers, alone and fused with ReLU and max-pool.
#pragma once

#include "host.h"

namespace minicnn::host {

using Gradients = std::tuple<Tensor, Tensor, Tensor>;  // dx, dw, db; those not needed are undefined

inline PoolParams pool_params(const Ints& kernel_size, const Ints& stride, const Ints& padding,
                              const Ints& dilation, Size output) {
    return {kernel_size[0], kernel_size[1], output.h,   output.w,    stride[0],
            stride[1],      padding[0],     padding[1], dilation[0], dilation[1]};
}

// The checked attributes of a max-pool over an input of this shape.
inline PoolParams max_pool_params(const char* op, c10::IntArrayRef shape, const Ints& kernel_size,
                                  const Ints& stride, const Ints& padding, const Ints& dilation,
                                  bool ceil_mode) {
    return pool_params(kernel_size, stride, padding, dilation,
                       shapes::pool2d(op, shape, kernel_size, stride, padding, dilation, ceil_mode));
}

// ---- convolution -----------------------------------------------------------------------------------

inline ConvParams conv_params(const Tensor& x, const Tensor& weight, const Ints& stride,
                              const Ints& padding, const Ints& dilation, const Int& groups, Size output) {
    // Kernels copy images with their padding, and gradients with the reach of a filter around them.
    const auto copied = [&](std::int64_t size, std::int64_t out, int axis) {
        const double reach = 2.0 * double(dilation[axis]) * double(weight.size(2 + axis) - 1);
        return std::max(double(size) + 2.0 * double(padding[axis]), double(out) + reach);
    };
    const double values = copied(x.size(2), output.h, 0) * copied(x.size(3), output.w, 1) *
                          double(std::max(x.size(1), weight.size(0)));
    if (values > 0x1p58) throw std::bad_alloc();
    return {x.size(0),      x.size(1),   x.size(2),   x.size(3),   weight.size(0), weight.size(2),
            weight.size(3), output.h,    output.w,    stride[0],   stride[1],      padding[0],
            padding[1],     dilation[0], dilation[1], groups.value};
}

// The checked arguments of a convolution's forward pass.
struct ConvForward {
    Tensor x, weight, bias;
    ConvParams p;

    ConvForward(Array x_, Array weight_, Array bias_, const Ints& stride, const Ints& padding,
                const Ints& dilation, const Int& groups) {
        const char* op = "conv2d";
        const Tensor &given_x = tensor(op, "x", x_), &given_weight = tensor(op, "weight", weight_);
        const Tensor given_bias = optional_tensor(op, "bias", bias_);
        const Size output =
            shapes::conv2d(op, given_x, given_weight, given_bias, stride, padding, dilation, groups);
        x = arranged(given_x);
        weight = arranged(given_weight);
        bias = arranged(given_bias);
        p = conv_params(x, weight, stride, padding, dilation, groups, output);
    }
};

inline Tensor conv2d_forward(Array x, Array weight, Array bias, const Ints& stride, const Ints& padding,
                             const Ints& dilation, const Int& groups, bool relu) {
    const ConvForward a(x, weight, bias, stride, padding, dilation, groups);
    const Tensor y = empty("conv2d", "y", {a.p.N, a.p.F, a.p.OH, a.p.OW}, a.x.scalar_type());
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::conv2d_forward<T>(in<T>(a.x), in<T>(a.weight), in<T>(a.bias), out<T>(y), a.p, relu);
    });
    return y;
}

// The checked arguments of a convolution's backward pass but for dy, whose shape depends on what is fused,
// and its outputs.
struct ConvBackward {
    Tensor x, weight, dx, dw, db;
    ConvParams p;

    ConvBackward(const Tensor& x_, const Tensor& weight_, const Ints& stride, const Ints& padding,
                 const Ints& dilation, const Int& groups, Size output, bool need_dx, bool need_dw,
                 bool need_db)
        : x(arranged(x_)),
          weight(arranged(weight_)),
          p(conv_params(x, weight, stride, padding, dilation, groups, output)) {
        const char* op = "conv2d_backward";
        const at::ScalarType dtype = x.scalar_type();
        dx = empty_if(need_dx, op, "dx", x.sizes(), dtype);
        dw = empty_if(need_dw, op, "dw", weight.sizes(), dtype);
        db = empty_if(need_db, op, "db", {p.F}, dtype);
    }
};

// With `relu_y`, the output of conv2d_relu; None for conv2d.
inline Gradients conv2d_backward(Array dy_, Array relu_y_, Array x_, Array weight_, const Ints& stride,
                                 const Ints& padding, const Ints& dilation, const Int& groups, bool need_dx,
                                 bool need_dw, bool need_db) {
    const char* op = "conv2d_backward";
    const Tensor& given_dy = tensor(op, "dy", dy_);
    const Tensor relu_y = optional_tensor("relu_backward", "y", relu_y_);
    if (relu_y.defined()) {
        check_float("relu_backward", "dy", given_dy);
        check_array("relu_backward", "y", relu_y, given_dy.sizes(), given_dy);
    }
    const Tensor &x = tensor(op, "x", x_), &weight = tensor(op, "weight", weight_);
    const Size output = shapes::conv2d(op, x, weight, {}, stride, padding, dilation, groups);
    check_array(op, "dy", given_dy, {x.size(0), weight.size(0), output.h, output.w}, x);
    const ConvBackward a(x, weight, stride, padding, dilation, groups, output, need_dx, need_dw, need_db);
    const Tensor dy = arranged(given_dy), y = arranged(relu_y);
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::conv2d_backward<T>(in<T>(dy), in<T>(y), in<T>(a.x), in<T>(a.weight), out<T>(a.dx),
                                    out<T>(a.dw), out<T>(a.db), a.p);
    });
    return {a.dx, a.dw, a.db};
}

// ---- convolution with max-pool, and ReLU between them if `relu` --------------------------------------

// (y, winner), or None if there is no fused kernel for these attributes.
inline py::object conv2d_pool_forward(Array x, Array weight, Array bias, const Ints& stride,
                                      const Ints& padding, const Ints& dilation, const Int& groups,
                                      const Ints& pool_kernel, const Ints& pool_stride,
                                      const Ints& pool_padding, const Ints& pool_dilation, bool ceil_mode,
                                      bool relu, bool need_saved) {
    const ConvForward a(x, weight, bias, stride, padding, dilation, groups);
    const std::int64_t full[] = {a.p.N, a.p.F, a.p.OH, a.p.OW};
    const PoolParams pool = max_pool_params("max_pool2d", full, pool_kernel, pool_stride, pool_padding,
                                            pool_dilation, ceil_mode);
    if (!conv2d_pool_fuses(a.p, pool, need_saved)) return py::none();
    const std::int64_t pooled[] = {a.p.N, a.p.F, pool.OH, pool.OW};
    const Tensor y = empty("max_pool2d", "y", pooled, a.x.scalar_type());
    const Tensor winner = empty_if(need_saved, "max_pool2d", "argmax", pooled, at::kByte);
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::conv2d_pool_forward<T>(in<T>(a.x), in<T>(a.weight), in<T>(a.bias), out<T>(y),
                                        out<std::uint8_t>(winner), a.p, pool, relu);
    });
    return py::make_tuple(y, winner);
}

inline Gradients conv2d_pool_backward(Array dy_, Array winner_, Array x_, Array weight_, const Ints& stride,
                                      const Ints& padding, const Ints& dilation, const Int& groups,
                                      const Ints& pool_kernel, const Ints& pool_stride,
                                      const Ints& pool_padding, const Ints& pool_dilation, bool ceil_mode,
                                      bool relu, bool need_dx, bool need_dw, bool need_db) {
    const char *op = "conv2d_backward", *pool_op = "max_pool2d_backward";
    const Tensor &given_dy = tensor(op, "dy", dy_), &given_winner = tensor(pool_op, "argmax", winner_);
    if (relu) {
        check_float("relu_backward", "dy", given_dy);
        check_shape("relu_backward", "y", given_winner, given_dy.sizes());
    }
    check_image(pool_op, "dy", given_dy);
    const Tensor &x = tensor(op, "x", x_), &weight = tensor(op, "weight", weight_);
    const Size output = shapes::conv2d(op, x, weight, {}, stride, padding, dilation, groups);
    const std::int64_t full[] = {x.size(0), weight.size(0), output.h, output.w};
    const PoolParams pool =
        max_pool_params(pool_op, full, pool_kernel, pool_stride, pool_padding, pool_dilation, ceil_mode);
    check_shape(pool_op, "dy", given_dy, {full[0], full[1], pool.OH, pool.OW});
    check_shape(pool_op, "argmax", given_winner, given_dy.sizes());
    check_dtype(pool_op, "argmax", given_winner, at::kByte);
    check_like(op, "dy", given_dy, x);
    const ConvBackward a(x, weight, stride, padding, dilation, groups, output, need_dx, need_dw, need_db);
    const Tensor dy = arranged(given_dy), winner = arranged(given_winner);
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::conv2d_pool_backward<T>(in<T>(dy), in<std::uint8_t>(winner), in<T>(a.x), in<T>(a.weight),
                                         out<T>(a.dx), out<T>(a.dw), out<T>(a.db), a.p, pool);
    });
    return {a.dx, a.dw, a.db};
}

// ---- dense -----------------------------------------------------------------------------------------

inline Tensor dense_forward(Array x_, Array weight_, Array bias_, bool relu) {
    const char* op = "dense";
    const Tensor &given_x = tensor(op, "x", x_), &given_weight = tensor(op, "weight", weight_);
    const Tensor given_bias = optional_tensor(op, "bias", bias_);
    shapes::dense(op, given_x, given_weight, given_bias);
    const Tensor x = arranged(given_x), weight = arranged(given_weight), bias = arranged(given_bias);
    const Tensor y = empty(op, "y", {x.size(0), weight.size(0)}, x.scalar_type());
    run(x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::dense_forward<T>(in<T>(x), in<T>(weight), in<T>(bias), out<T>(y), x.size(0), x.size(1),
                                  weight.size(0), relu);
    });
    return y;
}

// With `relu_y`, the output of dense_relu; None for dense.
inline Gradients dense_backward(Array dy_, Array relu_y_, Array x_, Array weight_, bool need_dx,
                                bool need_dw, bool need_db) {
    const char* op = "dense_backward";
    const Tensor& given_dy = tensor(op, "dy", dy_);
    const Tensor given_y = optional_tensor("relu_backward", "y", relu_y_);
    if (given_y.defined()) {
        check_float("relu_backward", "dy", given_dy);
        check_array("relu_backward", "y", given_y, given_dy.sizes(), given_dy);
    }
    const Tensor &given_x = tensor(op, "x", x_), &given_weight = tensor(op, "weight", weight_);
    shapes::dense(op, given_x, given_weight, {});
    check_array(op, "dy", given_dy, {given_x.size(0), given_weight.size(0)}, given_x);
    const Tensor dy = arranged(given_dy), y = arranged(given_y), x = arranged(given_x),
                 weight = arranged(given_weight);
    const at::ScalarType dtype = x.scalar_type();
    const Tensor dx = empty_if(need_dx, op, "dx", x.sizes(), dtype),
                 dw = empty_if(need_dw, op, "dw", weight.sizes(), dtype),
                 db = empty_if(need_db, op, "db", {weight.size(0)}, dtype);
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::dense_backward<T>(in<T>(dy), in<T>(y), in<T>(x), in<T>(weight), out<T>(dx), out<T>(dw),
                                   out<T>(db), x.size(0), x.size(1), weight.size(0));
    });
    return {dx, dw, db};
}

}  // namespace minicnn::host
