// Host side of device_step.h, and of the numbers that a captured step reads on the device.
#pragma once

#include "../host/bindings.h"
#include "core/step_numbers.h"
#include "device_step.h"

namespace minicnn::host {

inline double* float64_row(const char* op, const char* name, const Tensor& t, std::int64_t length) {
    if (t.scalar_type() != at::kDouble) fail(op, name, "dtype float64", dtype_name(t.scalar_type()));
    check_shape(op, name, t, {length});
    if (!t.is_contiguous()) fail(op, name, "an array whose numbers lie side by side", "another");
    return out<double>(t);
}

inline Tensor cross_entropy_gradient(Array logits, Array labels, Array tally_,
                                     const Number& label_smoothing, Array class_weight) {
    const char* op = "cross_entropy_gradient";
    static PyObject* const mean = PyUnicode_InternFromString("mean");
    const LossArguments a(op, "logits", logits, labels,
                          {label_smoothing, class_weight, Int{nullptr, -100, true}, Word{mean}},
                          LabelCheck::in_kernel);
    auto* tally =
        reinterpret_cast<Tally*>(float64_row(op, "tally", tensor(op, "tally", tally_), tally_numbers));
    const Tensor dlogits = empty_like(op, "dlogits", a.x);
    run_on_floats(a.x, [&](auto zero) {
        using T = decltype(zero);
        minicnn::cross_entropy_gradient<T>(in<T>(a.x), a.targets<T>(), out<T>(dlogits), tally, a.x.size(0),
                                           a.x.size(1));
    });
    return dlogits;
}

inline void clip_norm(const Arrays& arrays, const Number& limit_) {
    const Lists lists("clip_norm", {{"arrays", arrays, true}});
    const double limit = number("clip_norm", "limit", limit_);
    lists.run_on_parameters(
        [&](auto* parameters, std::int64_t count) { minicnn::clip_norm(parameters, count, limit); });
}

// From now on optimizer steps and ema_update read their changing numbers from this array, which must live
// so long; None: they take those of their calls again.
inline void read_step_numbers(Array numbers) {
    const char* op = "read_step_numbers";
    const Tensor t = optional_tensor(op, "numbers", numbers);
    constexpr std::int64_t length = sizeof(cuda::StepNumbers) / sizeof(double);
    cuda::step_numbers =
        t.defined() ? reinterpret_cast<const cuda::StepNumbers*>(float64_row(op, "numbers", t, length))
                    : nullptr;
}

inline void offer_device_step(py::module_& m) {
    offer<cross_entropy_gradient>(m, "cross_entropy_gradient", "logits"_a, "labels"_a, "tally"_a,
                                  py::kw_only(), "label_smoothing"_a = 0.0, "class_weight"_a = py::none());
    offer<clip_norm>(m, "clip_norm", "arrays"_a, "limit"_a);
    offer<read_step_numbers>(m, "read_step_numbers", "numbers"_a);
}

}  // namespace minicnn::host
