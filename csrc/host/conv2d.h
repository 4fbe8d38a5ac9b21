// Host side of convolution, alone and fused with ReLU.
#pragma once

#include "elementwise.h"

namespace minicnn::host {

inline ConvParams conv_params(const Tensor& x, const Tensor& weight, const Conv& conv, Size output) {
    // A kernel may copy an image together with its padding, or a gradient together with the reach of a
    // filter around it.  Sizes for which such a copy would not fit 64 bits are refused here.
    const auto copied = [&](std::int64_t size, std::int64_t out, int axis) {
        const double reach = 2.0 * double(conv.dilation[axis]) * double(weight.size(2 + axis) - 1);
        const double padded = double(size) + double(padding_of_axis(conv.padding, axis));
        return std::max(padded, double(out) + reach);
    };
    const double values = copied(x.size(2), output.h, 0) * copied(x.size(3), output.w, 1) *
                          double(std::max(x.size(1), weight.size(0)));
    if (values > 0x1p58) throw std::bad_alloc();
    const auto step = [&](const Ints& steps, int axis) {
        return useful_step(steps, axis, x.size(2 + axis), conv.padding);
    };
    return {x.size(0),
            x.size(1),
            x.size(2),
            x.size(3),
            weight.size(0),
            weight.size(2),
            weight.size(3),
            output.h,
            output.w,
            step(conv.stride, 0),
            step(conv.stride, 1),
            conv.padding[0],
            conv.padding[1],
            step(conv.dilation, 0),
            step(conv.dilation, 1),
            conv.groups.value};
}

inline Size conv_output(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const Conv& conv) {
    return shapes::conv2d(op, x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups);
}

// ---- forward -----------------------------------------------------------------------------------------

// The checked arguments of a convolution's forward pass.
struct ConvForward {
    Tensor x, weight, bias;
    ConvParams p;

    ConvForward(Array x_, Array weight_, Array bias_, const Conv& conv) {
        const char* op = "conv2d";
        const Tensor &given_x = tensor(op, "x", x_), &given_weight = tensor(op, "weight", weight_);
        const Tensor given_bias = optional_tensor(op, "bias", bias_);
        const Size output = conv_output(op, given_x, given_weight, given_bias, conv);
        x = arranged(given_x);
        weight = arranged(given_weight);
        bias = arranged(given_bias);
        p = conv_params(x, weight, conv, output);
    }
};

inline Tensor conv2d_output(const ConvForward& a, bool relu) {
    const Tensor y = empty("conv2d", "y", {a.p.N, a.p.F, a.p.OH, a.p.OW}, a.x.scalar_type());
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::conv2d_forward<T>(in<T>(a.x), in<T>(a.weight), in<T>(a.bias), out<T>(y), a.p, relu);
    });
    return y;
}

inline Tensor conv2d_forward(Array x, Array weight, Array bias, const Ints& stride, const Ints& padding,
                             const Ints& dilation, const Int& groups) {
    return conv2d_output({x, weight, bias, {stride, padding, dilation, groups}}, /*relu=*/false);
}

inline Fused conv2d_relu_forward(Array x, Array weight, Array bias, const Conv& conv, bool need_saved) {
    const Tensor y = conv2d_output({x, weight, bias, conv}, /*relu=*/true);
    return {y, need_saved ? y : Tensor()};
}

// ---- backward ----------------------------------------------------------------------------------------

// The checked arguments of a convolution's backward pass, and its outputs.  dy is not among them: its shape
// depends on what is fused.
struct ConvBackward {
    Tensor x, weight, dx, dw, db;
    ConvParams p;

    ConvBackward(const Tensor& x_, const Tensor& weight_, const Conv& conv, Size output, Need need)
        : x(arranged(x_)), weight(arranged(weight_)), p(conv_params(x, weight, conv, output)) {
        const char* op = "conv2d_backward";
        const at::ScalarType dtype = x.scalar_type();
        dx = empty_if(need.dx, op, "dx", x.sizes(), dtype);
        dw = empty_if(need.dw, op, "dw", weight.sizes(), dtype);
        db = empty_if(need.db, op, "db", {p.F}, dtype);
    }
};

// `relu_y` is the output of conv2d_relu, and undefined for conv2d.
inline Gradients conv2d_gradients(const Tensor& given_dy, const Tensor& relu_y, Array x_, Array weight_,
                                  const Conv& conv, Need need) {
    const char* op = "conv2d_backward";
    const Tensor &x = tensor(op, "x", x_), &weight = tensor(op, "weight", weight_);
    const Size output = conv_output(op, x, weight, {}, conv);
    check_array(op, "dy", given_dy, {x.size(0), weight.size(0), output.h, output.w}, x);
    const ConvBackward a(x, weight, conv, output, need);
    const Tensor dy = arranged(given_dy), y = arranged(relu_y);
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::conv2d_backward<T>(in<T>(dy), in<T>(y), in<T>(a.x), in<T>(a.weight), out<T>(a.dx),
                                    out<T>(a.dw), out<T>(a.db), a.p);
    });
    return {a.dx, a.dw, a.db};
}

inline Gradients conv2d_backward(Array dy, Array x, Array weight, const Ints& stride, const Ints& padding,
                                 const Ints& dilation, const Int& groups, bool need_dx, bool need_dw,
                                 bool need_db) {
    return conv2d_gradients(tensor("conv2d_backward", "dy", dy), {}, x, weight,
                            {stride, padding, dilation, groups}, {need_dx, need_dw, need_db});
}

inline Gradients conv2d_relu_backward(Array dy_, Array x, Array weight, Array saved, const Conv& conv,
                                      bool need_dx, bool need_dw, bool need_db) {
    const Tensor& dy = tensor("conv2d_backward", "dy", dy_);
    const Tensor& y = relu_output(dy, saved);
    return conv2d_gradients(dy, y, x, weight, conv, {need_dx, need_dw, need_db});
}

inline void offer_conv2d(py::module_& m) {
    offer<conv2d_forward>(m, "conv2d_forward", "x"_a, "weight"_a, "bias"_a, py::kw_only(), "stride"_a,
                          "padding"_a, "dilation"_a, "groups"_a);
    offer<conv2d_backward>(m, "conv2d_backward", "dy"_a, "x"_a, "weight"_a, py::kw_only(), "stride"_a,
                           "padding"_a, "dilation"_a, "groups"_a, "need_dx"_a = true, "need_dw"_a = true,
                           "need_db"_a = true);
    offer<conv2d_relu_forward>(m, "conv2d_relu_forward", "x"_a, "weight"_a, "bias"_a, py::kw_only(),
                               "conv"_a, "need_saved"_a = true);
    offer<conv2d_relu_backward>(m, "conv2d_relu_backward", "dy"_a, "x"_a, "weight"_a, "saved"_a,
                                py::kw_only(), "conv"_a, "need_dx"_a = true, "need_dw"_a = true,
                                "need_db"_a = true);
}

}  // namespace minicnn::host
