// Host side of the optimizer steps: lists of arrays, changed in place, in one call.
#pragma once

#include "host.h"

namespace minicnn::host {

// One list of arrays, and whether the step changes them.
struct List {
    const char* name;
    const Arrays& arrays;
    bool changes;
};

// The checked lists of a step.  All have as many arrays as the first one, and the arrays at one place, such
// as a parameter, its gradient and its momentum, have one shape.
class Lists {
  public:
    Lists(const char* op, std::initializer_list<List> lists) : width_(lists.size()) {
        const Arrays& first = lists.begin()->arrays;
        for (const List& list : lists) {
            if (list.arrays.size() != first.size()) {
                fail(op, list.name, std::to_string(first.size()) + " arrays",
                     std::to_string(list.arrays.size()));
            }
        }
        arrays_.reserve(width_ * std::size_t(first.size()));
        changes_.reserve(width_);
        for (const List& list : lists) changes_.push_back(list.changes);
        for (std::int64_t i = 0; i < first.size(); ++i) {
            for (const List& list : lists) add(op, {list.name, i}, list.arrays[i]);
        }
    }

    // Calls body(parameters, count), with all that belongs to one parameter together, as the kernels take
    // it.
    template <typename Body>
    void run_on_parameters(const Body& body) const {
        if (arrays_.empty()) return;
        run(arrays_[0].get(), [&](auto zero) {
            using T = decltype(zero);
            std::vector<Parameter<T>> parameters;
            parameters.reserve(arrays_.size() / width_);
            for (std::size_t i = 0; i < arrays_.size(); i += width_) {
                T* data[4] = {};
                for (std::size_t j = 0; j < width_; ++j) data[j] = out<T>(arrays_[i + j].get());
                parameters.push_back({data[0], data[1], data[2], data[3], arrays_[i].get().numel()});
            }
            body(parameters.data(), std::int64_t(parameters.size()));
        });
        for (std::size_t i = 0; i < arrays_.size(); ++i) {
            if (changes_[i % width_]) arrays_[i].finish();
        }
    }

  private:
    void add(const char* op, Name name, Array array) {
        const Tensor& a = tensor(op, name, array);
        const std::size_t place = arrays_.size() % width_;
        check_float(op, name, a);
        if (!arrays_.empty()) check_like(op, name, a, arrays_[0].get());
        if (place > 0) check_shape(op, name, a, arrays_[arrays_.size() - place].get().sizes());
        if (changes_[place]) check_in_place(op, name, a);
        arrays_.emplace_back(a);
    }

    std::size_t width_;  // how many lists there are
    std::vector<bool> changes_;
    std::vector<InPlace> arrays_;  // of the first parameter from each list, then of the second, and so on
};

inline void sgd_step(const Arrays& params, const Arrays& grads, const Arrays& buffers, const Number& lr,
                     const Number& momentum, const Number& weight_decay, const Flag& nesterov) {
    const char* op = "sgd_step";
    const Lists lists(op, {{"params", params, true}, {"grads", grads, false}, {"buffers", buffers, true}});
    const SgdParams p{number(op, "lr", lr), number(op, "momentum", momentum),
                      number(op, "weight_decay", weight_decay), flag(op, "nesterov", nesterov)};
    lists.run_on_parameters(
        [&](auto* parameters, std::int64_t count) { minicnn::sgd_step(parameters, count, p); });
}

inline void adam_step(const Arrays& params, const Arrays& grads, const Arrays& exp_avgs,
                      const Arrays& exp_avg_sqs, const Number& lr, const Number& beta1, const Number& beta2,
                      const Number& eps, const Number& weight_decay, const Flag& decoupled,
                      const Int& step) {
    const char* op = "adam_step";
    const Lists lists(op, {{"params", params, true},
                           {"grads", grads, false},
                           {"exp_avgs", exp_avgs, true},
                           {"exp_avg_sqs", exp_avg_sqs, true}});
    const AdamParams p{number(op, "lr", lr),
                       below_1(op, "beta1", beta1),
                       below_1(op, "beta2", beta2),
                       number(op, "eps", eps),
                       number(op, "weight_decay", weight_decay),
                       flag(op, "decoupled", decoupled),
                       at_least_1(op, "step", step)};
    lists.run_on_parameters(
        [&](auto* parameters, std::int64_t count) { minicnn::adam_step(parameters, count, p); });
}

inline void rmsprop_step(const Arrays& params, const Arrays& grads, const Arrays& square_avgs,
                         const Arrays& buffers, const Number& lr, const Number& alpha, const Number& eps,
                         const Number& weight_decay, const Number& momentum) {
    const char* op = "rmsprop_step";
    const Lists lists(op, {{"params", params, true},
                           {"grads", grads, false},
                           {"square_avgs", square_avgs, true},
                           {"buffers", buffers, true}});
    const RmspropParams p{number(op, "lr", lr), number(op, "alpha", alpha), number(op, "eps", eps),
                          number(op, "weight_decay", weight_decay), number(op, "momentum", momentum)};
    lists.run_on_parameters(
        [&](auto* parameters, std::int64_t count) { minicnn::rmsprop_step(parameters, count, p); });
}

inline void ema_update(const Arrays& averages, const Arrays& params, const Number& decay_) {
    const Lists lists("ema_update", {{"averages", averages, true}, {"params", params, false}});
    const double decay = number("ema_update", "decay", decay_);
    lists.run_on_parameters(
        [&](auto* parameters, std::int64_t count) { minicnn::ema_update(parameters, count, decay); });
}

inline void scale(const Arrays& arrays, const Number& factor_) {
    const Lists lists("scale", {{"arrays", arrays, true}});
    const double factor = number("scale", "factor", factor_);
    lists.run_on_parameters(
        [&](auto* parameters, std::int64_t count) { minicnn::scale(parameters, count, factor); });
}

inline double global_norm(const Arrays& arrays) {
    const Lists lists("global_norm", {{"arrays", arrays, false}});
    double sum = 0;
    lists.run_on_parameters(
        [&](auto* parameters, std::int64_t count) { sum = minicnn::sum_of_squares(parameters, count); });
    return std::sqrt(sum);
}

inline void offer_optimizers(py::module_& m) {
    offer<sgd_step>(m, "sgd_step", "params"_a, "grads"_a, "buffers"_a, py::kw_only(), "lr"_a, "momentum"_a,
                    "weight_decay"_a, "nesterov"_a);
    offer<adam_step>(m, "adam_step", "params"_a, "grads"_a, "exp_avgs"_a, "exp_avg_sqs"_a, py::kw_only(),
                     "lr"_a, "beta1"_a, "beta2"_a, "eps"_a, "weight_decay"_a, "decoupled"_a, "step"_a);
    offer<rmsprop_step>(m, "rmsprop_step", "params"_a, "grads"_a, "square_avgs"_a, "buffers"_a,
                        py::kw_only(), "lr"_a, "alpha"_a, "eps"_a, "weight_decay"_a, "momentum"_a);
    offer<ema_update>(m, "ema_update", "averages"_a, "params"_a, py::kw_only(), "decay"_a);
    offer<global_norm>(m, "global_norm", "arrays"_a);
    offer<scale>(m, "scale", "arrays"_a, "factor"_a);
}

}  // namespace minicnn::host
