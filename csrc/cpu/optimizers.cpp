// The optimizer steps: one pass over all parameters as if they were one array.  Operations are in the
// order of torch.optim, so that the rounding is the same.

#include <algorithm>
#include <cmath>
#include <vector>

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

// Cuts the whole of all parameters into pieces of work, and calls f(piece, parameter, first, last) for
// each range of a parameter that falls into a piece.
template <typename T, typename F>
void for_each_range(const Parameter<T>* list, std::int64_t count, const F& f) {
    std::int64_t total = 0;
    for (std::int64_t k = 0; k < count; ++k) total += list[k].size;
    parallel_for(0, total, elements_per_piece, [&](std::int64_t first, std::int64_t last) {
        std::int64_t start = 0;
        for (std::int64_t k = 0; k < count && start < last; start += list[k++].size) {
            const std::int64_t from = std::max(first - start, std::int64_t{0});
            const std::int64_t to = std::min(last - start, list[k].size);
            if (from < to) f(first / elements_per_piece, list[k], from, to);
        }
    });
}

// Calls make(parameter) once for each range, and what it returns for every element of the range.
template <typename T, typename Make>
void for_each_element(const Parameter<T>* list, std::int64_t count, const Make& make) {
    for_each_range(list, count,
                   [&](std::int64_t, const Parameter<T>& parameter, std::int64_t first, std::int64_t last) {
                       const auto update = make(parameter);
#pragma GCC ivdep
                       for (std::int64_t i = first; i < last; ++i) update(i);
                   });
}

}  // namespace

template <typename T>
void sgd_step(const Parameter<T>* list, std::int64_t count, const SgdParams& p) {
    const T lr = T(p.lr), momentum = T(p.momentum), decay = T(p.weight_decay);
    if (p.momentum == 0) {
        for_each_element(list, count, [=](const Parameter<T>& parameter) {
            return [=, w = parameter.value, grad = parameter.grad](std::int64_t i) {
                w[i] -= lr * (grad[i] + decay * w[i]);
            };
        });
        return;
    }
    for_each_element(list, count, [=, nesterov = p.nesterov](const Parameter<T>& parameter) {
        return [=, w = parameter.value, grad = parameter.grad, v = parameter.state](std::int64_t i) {
            const T g = grad[i] + decay * w[i];
            v[i] = momentum * v[i] + g;
            w[i] -= lr * (nesterov ? g + momentum * v[i] : v[i]);
        };
    });
}

template <typename T>
void adam_step(const Parameter<T>* list, std::int64_t count, const AdamParams& p) {
    const double bias_correction1 = 1 - std::pow(p.beta1, double(p.step));
    const T bias_correction2_sqrt = T(std::sqrt(1 - std::pow(p.beta2, double(p.step))));
    const T step_size = T(p.lr / bias_correction1), eps = T(p.eps);
    // decoupled decay (AdamW) shrinks the weights themselves; the other adds to the gradient
    const T weight_factor = T(p.decoupled ? 1 - p.lr * p.weight_decay : 1);
    const T decay = T(p.decoupled ? 0 : p.weight_decay);
    const T one_minus_beta1 = T(1 - p.beta1), beta2 = T(p.beta2), one_minus_beta2 = T(1 - p.beta2);
    for_each_element(list, count, [=](const Parameter<T>& parameter) {
        return [=, w = parameter.value, grad = parameter.grad, exp_avg = parameter.state,
                exp_avg_sq = parameter.state2](std::int64_t i) {
            const T value = w[i] * weight_factor, g = grad[i] + decay * w[i];
            exp_avg[i] += (g - exp_avg[i]) * one_minus_beta1;
            exp_avg_sq[i] = beta2 * exp_avg_sq[i] + one_minus_beta2 * g * g;
            w[i] =
                value - step_size * (exp_avg[i] / (std::sqrt(exp_avg_sq[i]) / bias_correction2_sqrt + eps));
        };
    });
}

template <typename T>
void rmsprop_step(const Parameter<T>* list, std::int64_t count, const RmspropParams& p) {
    const T lr = T(p.lr), alpha = T(p.alpha), one_minus_alpha = T(1 - p.alpha), eps = T(p.eps),
            decay = T(p.weight_decay);
    const T momentum = T(p.momentum);
    for_each_element(list, count, [=](const Parameter<T>& parameter) {
        return [=, w = parameter.value, grad = parameter.grad, s = parameter.state,
                v = parameter.state2](std::int64_t i) {
            const T g = grad[i] + decay * w[i];
            s[i] = alpha * s[i] + one_minus_alpha * g * g;
            T update = g / (std::sqrt(s[i]) + eps);
            if (momentum != 0) update = v[i] = momentum * v[i] + update;
            w[i] -= lr * update;
        };
    });
}

template <typename T>
void ema_update(const Parameter<T>* list, std::int64_t count, double decay) {
    const T factor = T(decay), one_minus_decay = T(1 - decay);
    for_each_element(list, count, [=](const Parameter<T>& parameter) {
        return [=, a = parameter.value, w = parameter.grad](std::int64_t i) {
            a[i] = factor * a[i] + one_minus_decay * w[i];
        };
    });
}

template <typename T>
void scale(const Parameter<T>* list, std::int64_t count, double factor) {
    const T by = T(factor);
    for_each_element(list, count, [=](const Parameter<T>& parameter) {
        return [=, a = parameter.value](std::int64_t i) { a[i] *= by; };
    });
}

template <typename T>
double sum_of_squares(const Parameter<T>* list, std::int64_t count) {
    constexpr int lanes =
        16;  // so many independent sums, so that an addition need not wait for the one before
    std::int64_t total = 0;
    for (std::int64_t k = 0; k < count; ++k) total += list[k].size;
    std::vector<double> partial(std::size_t(total / elements_per_piece + 1));
    for_each_range(
        list, count,
        [&](std::int64_t piece, const Parameter<T>& parameter, std::int64_t i, std::int64_t last) {
            double sums[lanes] = {};
            for (; i + lanes <= last; i += lanes) {
                for (int j = 0; j < lanes; ++j)
                    sums[j] += double(parameter.value[i + j]) * double(parameter.value[i + j]);
            }
            for (; i < last; ++i) sums[0] += double(parameter.value[i]) * double(parameter.value[i]);
            for (const double sum : sums) partial[std::size_t(piece)] += sum;
        });
    double sum = 0;
    for (const double part : partial) sum += part;
    return sum;
}

#define INSTANTIATE(T)                                                                   \
    template void sgd_step(const Parameter<T>*, std::int64_t, const SgdParams&);         \
    template void adam_step(const Parameter<T>*, std::int64_t, const AdamParams&);       \
    template void rmsprop_step(const Parameter<T>*, std::int64_t, const RmspropParams&); \
    template void ema_update(const Parameter<T>*, std::int64_t, double);                 \
    template void scale(const Parameter<T>*, std::int64_t, double);                      \
    template double sum_of_squares(const Parameter<T>*, std::int64_t)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn
