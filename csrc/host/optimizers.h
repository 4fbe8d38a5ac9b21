// Host side of the optimizer steps: lists of arrays, changed in place, in one call.
#pragma once

#include "host.h"

namespace minicnn::host {

// A list's name, and whether the step changes its arrays.
struct Column {
    const char* name;
    const Arrays& arrays;
    bool changes;
};

// The checked arrays of a step: rows of parameters, columns of what belongs to each.
class Columns {
  public:
    Columns(const char* op, std::initializer_list<Column> columns) : width_(columns.size()) {
        const Arrays& first = columns.begin()->arrays;
        for (const Column& column : columns) {
            if (column.arrays.size() != first.size()) {
                fail(op, column.name, std::to_string(first.size()) + " arrays",
                     std::to_string(column.arrays.size()));
            }
        }
        arrays_.reserve(width_ * std::size_t(first.size()));
        changes_.reserve(width_);
        for (const Column& column : columns) changes_.push_back(column.changes);
        for (std::int64_t i = 0; i < first.size(); ++i) {
            for (const Column& column : columns) add(op, {column.name, i}, column.arrays[i]);
        }
    }

    // Calls body(T, list, count) with rows as the kernels take them.
    template <typename Body>
    void run_on_rows(const Body& body) const {
        if (arrays_.empty()) return;
        run(arrays_[0].get(), [&](auto zero) {
            using T = decltype(zero);
            std::vector<Parameter<T>> rows;
            rows.reserve(arrays_.size() / width_);
            for (std::size_t i = 0; i < arrays_.size(); i += width_) {
                T* data[4] = {};
                for (std::size_t j = 0; j < width_; ++j) data[j] = out<T>(arrays_[i + j].get());
                rows.push_back({data[0], data[1], data[2], data[3], arrays_[i].get().numel()});
            }
            body(rows.data(), std::int64_t(rows.size()));
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
        arrays_.emplace_back(a);
    }

    std::size_t width_;
    std::vector<bool> changes_;
    std::vector<InPlace> arrays_;
};

inline void sgd_step(const Arrays& params, const Arrays& grads, const Arrays& buffers, double lr,
                     double momentum, double weight_decay, bool nesterov) {
    const Columns columns("sgd_step",
                          {{"params", params, true}, {"grads", grads, false}, {"buffers", buffers, true}});
    columns.run_on_rows([&](auto* rows, std::int64_t count) {
        minicnn::sgd_step(rows, count, {lr, momentum, weight_decay, nesterov});
    });
}

inline void adam_step(const Arrays& params, const Arrays& grads, const Arrays& exp_avgs,
                      const Arrays& exp_avg_sqs, double lr, double beta1, double beta2, double eps,
                      double weight_decay, bool decoupled, std::int64_t step) {
    const Columns columns("adam_step", {{"params", params, true},
                                        {"grads", grads, false},
                                        {"exp_avgs", exp_avgs, true},
                                        {"exp_avg_sqs", exp_avg_sqs, true}});
    columns.run_on_rows([&](auto* rows, std::int64_t count) {
        minicnn::adam_step(rows, count, {lr, beta1, beta2, eps, weight_decay, decoupled, step});
    });
}

inline void rmsprop_step(const Arrays& params, const Arrays& grads, const Arrays& square_avgs,
                         const Arrays& buffers, double lr, double alpha, double eps, double weight_decay,
                         double momentum) {
    const Columns columns("rmsprop_step", {{"params", params, true},
                                           {"grads", grads, false},
                                           {"square_avgs", square_avgs, true},
                                           {"buffers", buffers, true}});
    columns.run_on_rows([&](auto* rows, std::int64_t count) {
        minicnn::rmsprop_step(rows, count, {lr, alpha, eps, weight_decay, momentum});
    });
}

inline void ema_update(const Arrays& averages, const Arrays& params, double decay) {
    const Columns columns("ema_update", {{"averages", averages, true}, {"params", params, false}});
    columns.run_on_rows([&](auto* rows, std::int64_t count) { minicnn::ema_update(rows, count, decay); });
}

inline void scale(const Arrays& arrays, double factor) {
    const Columns columns("scale", {{"arrays", arrays, true}});
    columns.run_on_rows([&](auto* rows, std::int64_t count) { minicnn::scale(rows, count, factor); });
}

inline double global_norm(const Arrays& arrays) {
    const Columns columns("global_norm", {{"arrays", arrays, false}});
    double sum = 0;
    columns.run_on_rows(
        [&](auto* rows, std::int64_t count) { sum = minicnn::sum_of_squares(rows, count); });
    return std::sqrt(sum);
}

}  // namespace minicnn::host
