// Host side of the elementwise operations, softmax and the loss, joining and reshaping.
#pragma once

#include "host.h"

namespace minicnn::host {

inline Tensor relu_forward(Array x_) {
    const char* op = "relu";
    const Tensor& given = tensor(op, "x", x_);
    check_float(op, "x", given);
    const Tensor x = arranged(given), y = empty_like(op, "y", x);
    run(x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::relu_forward<T>(in<T>(x), out<T>(y), x.numel());
    });
    return y;
}

inline Tensor relu_backward(Array dy_, Array y_) {
    const char* op = "relu_backward";
    const Tensor &given_dy = tensor(op, "dy", dy_), &given_y = tensor(op, "y", y_);
    check_float(op, "dy", given_dy);
    check_array(op, "y", given_y, given_dy.sizes(), given_dy);
    const Tensor dy = arranged(given_dy), y = arranged(given_y), dx = empty_like(op, "dx", dy);
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::relu_backward<T>(in<T>(dy), in<T>(y), out<T>(dx), dy.numel());
    });
    return dx;
}

// relu(a + b), where relu may be absent.
inline Tensor add_forward(Array a_, Array b_, bool relu) {
    const char* op = "add";
    const Tensor &given_a = tensor(op, "a", a_), &given_b = tensor(op, "b", b_);
    check_float(op, "a", given_a);
    check_array(op, "b", given_b, given_a.sizes(), given_a);
    const Tensor a = arranged(given_a), b = arranged(given_b), y = empty_like(op, "y", a);
    run(a, [&](auto zero) {
        using T = decltype(zero);
        minicnn::add_forward<T>(in<T>(a), in<T>(b), out<T>(y), a.numel(), relu);
    });
    return y;
}

inline std::pair<Tensor, Tensor> add_backward(Array dy_) {
    const Tensor& dy = tensor("add_backward", "dy", dy_);
    check_float("add_backward", "dy", dy);
    return {dy, dy};
}

inline Tensor dropout(const char* op, const char* name, Array x_, Array keep_mask_, const Number& p_) {
    const Tensor &given_x = tensor(op, name, x_), &given_mask = tensor(op, "keep_mask", keep_mask_);
    shapes::dropout(op, name, given_x, given_mask);
    const double p = fraction(op, "p", p_);
    const Tensor x = arranged(given_x), mask = arranged(given_mask), y = empty_like(op, "y", x);
    const double factor = p == 1 ? 0 : 1 / (1 - p);
    run(x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::dropout<T>(in<T>(x), in<bool>(mask), T(factor), out<T>(y), x.numel());
    });
    return y;
}

inline Tensor dropout_forward(Array x, Array keep_mask, const Number& p) {
    return dropout("dropout", "x", x, keep_mask, p);
}

inline Tensor dropout_backward(Array dy, Array keep_mask, const Number& p) {
    return dropout("dropout_backward", "dy", dy, keep_mask, p);
}

inline Tensor softmax_forward(Array x_) {
    const char* op = "softmax";
    const Tensor& given = tensor(op, "x", x_);
    check_matrix(op, "x", given, "N, K");
    const Tensor x = arranged(given), p = empty_like(op, "p", x);
    run(x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::softmax_forward<T>(in<T>(x), out<T>(p), x.size(0), x.size(1));
    });
    return p;
}

inline Tensor softmax_backward(Array dy_, Array p_) {
    const char* op = "softmax_backward";
    const Tensor &given_dy = tensor(op, "dy", dy_), &given_p = tensor(op, "p", p_);
    check_matrix(op, "dy", given_dy, "N, K");
    check_array(op, "p", given_p, given_dy.sizes(), given_dy);
    const Tensor dy = arranged(given_dy), p = arranged(given_p), dx = empty_like(op, "dx", dy);
    run(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::softmax_backward<T>(in<T>(dy), in<T>(p), out<T>(dx), dy.size(0), dy.size(1));
    });
    return dx;
}

// The checked arguments that both directions of the loss share.
struct LossArguments {
    Tensor x, labels, class_weight;
    double label_smoothing;

    LossArguments(const char* op, const char* name, Array x_, Array labels_, const Number& smoothing,
                  Array weight_) {
        const Tensor &given = tensor(op, name, x_), &given_labels = tensor(op, "labels", labels_);
        shapes::softmax_cross_entropy(op, name, given, given_labels);
        const Tensor weight = optional_tensor(op, "class_weight", weight_);
        labels = arranged(given_labels);
        if (labels.scalar_type() == at::kLong) {
            if (const auto wrong = Device::wrong_label(labels, given.size(1))) {
                fail(op, "labels", "values from 0 to " + std::to_string(given.size(1) - 1),
                     std::to_string(*wrong));
            }
        }
        label_smoothing = fraction(op, "label_smoothing", smoothing);
        if (weight.defined()) check_array(op, "class_weight", weight, {given.size(1)}, given);
        x = arranged(given);
        class_weight = arranged(weight);
    }

    template <typename T>
    Targets<T> targets() const {
        const bool classes = labels.scalar_type() == at::kLong;
        return {classes ? in<std::int64_t>(labels) : nullptr, classes ? nullptr : in<T>(labels),
                in<T>(class_weight), label_smoothing};
    }
};

inline std::pair<Tensor, Tensor> softmax_cross_entropy_forward(Array logits, Array labels,
                                                               const Number& label_smoothing,
                                                               Array class_weight) {
    const char* op = "softmax_cross_entropy";
    const LossArguments a(op, "logits", logits, labels, label_smoothing, class_weight);
    const Tensor loss = empty(op, "loss", {}, a.x.scalar_type()), probs = empty_like(op, "probs", a.x);
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::softmax_cross_entropy_forward<T>(in<T>(a.x), a.targets<T>(), out<T>(loss), out<T>(probs),
                                                  a.x.size(0), a.x.size(1));
    });
    return {loss, probs};
}

inline Tensor softmax_cross_entropy_backward(Array probs, Array labels, const Number& label_smoothing,
                                             Array class_weight) {
    const char* op = "softmax_cross_entropy_backward";
    const LossArguments a(op, "probs", probs, labels, label_smoothing, class_weight);
    const Tensor dlogits = empty_like(op, "dlogits", a.x);
    run(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::softmax_cross_entropy_backward<T>(in<T>(a.x), a.targets<T>(), out<T>(dlogits), a.x.size(0),
                                                   a.x.size(1));
    });
    return dlogits;
}

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

}  // namespace minicnn::host
