// Host side of softmax and of the cross-entropy loss.
#pragma once

#include "host.h"

namespace minicnn::host {

inline Tensor softmax_forward(Array x_) {
    const char* op = "softmax";
    const Tensor& given = tensor(op, "x", x_);
    check_float(op, "x", given);
    check_matrix(op, "x", given, "N, K");
    const Tensor x = arranged(given), p = empty_like(op, "p", x);
    run_on_floats(x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::softmax_forward<T>(in<T>(x), out<T>(p), x.size(0), x.size(1));
    });
    return p;
}

inline Tensor softmax_backward(Array dy_, Array p_) {
    const char* op = "softmax_backward";
    const Tensor &given_dy = tensor(op, "dy", dy_), &given_p = tensor(op, "p", p_);
    check_float(op, "dy", given_dy);
    check_matrix(op, "dy", given_dy, "N, K");
    check_array(op, "p", given_p, given_dy.sizes(), given_dy);
    const Tensor dy = arranged(given_dy), p = arranged(given_p), dx = empty_like(op, "dx", dy);
    run_on_floats(dy, [&](auto zero) {
        using T = decltype(zero);
        minicnn::softmax_backward<T>(in<T>(dy), in<T>(p), out<T>(dx), dy.size(0), dy.size(1));
    });
    return dx;
}

// A copy of labels: another thread may change the given ones after they were checked.
inline Tensor copied(const Tensor& labels) {
    const at::NoGradGuard no_grad;
    return or_out_of_memory([&] { return labels.clone(at::MemoryFormat::Contiguous).resolve_neg(); });
}

inline Reduction reduction_of(const char* op, const Word& word) {
    if (word.is("mean")) return Reduction::mean;
    if (word.is("sum")) return Reduction::sum;
    if (word.is("none")) return Reduction::none;
    fail(op, "reduction", "'mean', 'sum' or 'none'", repr(word.source));
}

// The attributes of the loss as Python passes them.
struct LossAttributes {
    Number label_smoothing;
    Array class_weight;
    Int ignore_index;
    Word reduction;
};

// Where it is looked whether labels are classes: before the kernel runs, for which a device is waited for,
// or in the kernel.
enum class LabelCheck { before, in_kernel };

// The checked arguments that both directions of the loss share.
struct LossArguments {
    Tensor x, labels, class_weight;
    double label_smoothing;
    std::int64_t ignore_index;
    Reduction reduction;

    LossArguments(const char* op, const char* name, Array x_, Array labels_, const LossAttributes& given,
                  LabelCheck check = LabelCheck::before) {
        const Tensor &given_x = tensor(op, name, x_), &given_labels = tensor(op, "labels", labels_);
        const std::int64_t classes = shapes::softmax_cross_entropy(op, name, given_x, given_labels);
        const bool are_classes = given_labels.scalar_type() == at::kLong;
        if (!given.ignore_index.valid) {
            fail(op, "ignore_index", "an integer", repr(given.ignore_index.source));
        }
        ignore_index = given.ignore_index.value;
        if (!are_classes && ignore_index >= 0) {
            fail(op, "ignore_index", "a negative integer, as labels are probabilities",
                 std::to_string(ignore_index));
        }
        const Tensor weight = optional_tensor(op, "class_weight", given.class_weight);
        labels = check == LabelCheck::before ? copied(given_labels) : arranged(given_labels);
        if (are_classes && check == LabelCheck::before) {
            if (const auto wrong = Device::wrong_label(labels, classes, ignore_index)) {
                fail(op, "labels", "values from 0 to " + std::to_string(classes - 1),
                     std::to_string(*wrong));
            }
        }
        label_smoothing = fraction(op, "label_smoothing", given.label_smoothing);
        if (weight.defined()) check_array(op, "class_weight", weight, {classes}, given_x);
        reduction = reduction_of(op, given.reduction);
        x = arranged(given_x);
        class_weight = arranged(weight);
    }

    template <typename T>
    Targets<T> targets() const {
        const bool classes = labels.scalar_type() == at::kLong;
        return {classes ? in<std::int64_t>(labels) : nullptr,
                classes ? nullptr : in<T>(labels),
                in<T>(class_weight),
                label_smoothing,
                ignore_index,
                reduction};
    }
};

inline std::pair<Tensor, Tensor> softmax_cross_entropy_forward(Array logits, Array labels,
                                                               const Number& label_smoothing,
                                                               Array class_weight, const Int& ignore_index,
                                                               const Word& reduction) {
    const char* op = "softmax_cross_entropy";
    const LossArguments a(op, "logits", logits, labels,
                          {label_smoothing, class_weight, ignore_index, reduction});
    const Tensor probs = empty_like(op, "probs", a.x);
    const at::ScalarType dtype = a.x.scalar_type();
    const Tensor loss = a.reduction == Reduction::none ? empty(op, "loss", {a.x.size(0)}, dtype)
                                                       : empty(op, "loss", {}, dtype);
    run_on_floats(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::softmax_cross_entropy_forward<T>(in<T>(a.x), a.targets<T>(), out<T>(loss), out<T>(probs),
                                                  a.x.size(0), a.x.size(1));
    });
    return {loss, probs};
}

inline Tensor softmax_cross_entropy_backward(Array probs, Array labels, const Number& label_smoothing,
                                             Array class_weight, const Int& ignore_index,
                                             const Word& reduction) {
    const char* op = "softmax_cross_entropy_backward";
    const LossArguments a(op, "probs", probs, labels,
                          {label_smoothing, class_weight, ignore_index, reduction});
    const Tensor dlogits = empty_like(op, "dlogits", a.x);
    run_on_floats(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::softmax_cross_entropy_backward<T>(in<T>(a.x), a.targets<T>(), out<T>(dlogits), a.x.size(0),
                                                   a.x.size(1));
    });
    return dlogits;
}

inline void offer_softmax(py::module_& m) {
    offer<softmax_forward>(m, "softmax_forward", "x"_a);
    offer<softmax_backward>(m, "softmax_backward", "dy"_a, "p"_a);
    offer<softmax_cross_entropy_forward>(m, "softmax_cross_entropy_forward", "logits"_a, "labels"_a,
                                         py::kw_only(), "label_smoothing"_a = 0.0,
                                         "class_weight"_a = py::none(), "ignore_index"_a = -100,
                                         "reduction"_a = "mean");
    offer<softmax_cross_entropy_backward>(m, "softmax_cross_entropy_backward", "probs"_a, "labels"_a,
                                          py::kw_only(), "label_smoothing"_a = 0.0,
                                          "class_weight"_a = py::none(), "ignore_index"_a = -100,
                                          "reduction"_a = "mean");
}

}  // namespace minicnn::host
