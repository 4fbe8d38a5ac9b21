// The optimizer steps: one pass over all parameters as if they were one array.  The order of operations
// is torch.optim's.

#include <algorithm>
#include <cmath>
#include <vector>

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

// Calls f(piece, row, first, last) for the ranges of every parameter that fall in each piece of the whole.
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

// Calls make(row), then what it returns on every element index of that row.
template <typename T, typename Make>
void for_each_element(const Parameter<T>* list, std::int64_t count, const Make& make) {
    for_each_range(list, count,
                   [&](std::int64_t, const Parameter<T>& row, std::int64_t first, std::int64_t last) {
                       const auto update = make(row);
#pragma GCC ivdep
                       for (std::int64_t i = first; i < last; ++i) update(i);
                   });
}

}  // namespace

template <typename T>
void sgd_step(const Parameter<T>* list, std::int64_t count, const SgdParams& p) {
    const T lr = T(p.lr), momentum = T(p.momentum), decay = T(p.weight_decay);
    if (p.momentum == 0) {
        for_each_element(list, count, [=](const Parameter<T>& row) {
            return [=, w = row.value, grad = row.grad](std::int64_t i) {
                w[i] -= lr * (grad[i] + decay * w[i]);
            };
        });
        return;
    }
    for_each_element(list, count, [=, nesterov = p.nesterov](const Parameter<T>& row) {
        return [=, w = row.value, grad = row.grad, v = row.state](std::int64_t i) {
            const T g = grad[i] + decay * w[i];
            v[i] = momentum * v[i] + g;
            w[i] -= lr * (nesterov ? g + momentum * v[i] : v[i]);
        };
    });
}

template <typename T>
void adam_step(const Parameter<T>* list, std::int64_t count, const AdamParams& p) {
    const T rate = T(p.lr / (1 - std::pow(p.beta1, double(p.step))));
    const T root = T(std::sqrt(1 - std::pow(p.beta2, double(p.step))));
    const T shrink = T(p.decoupled ? 1 - p.lr * p.weight_decay : 1),
            decay = T(p.decoupled ? 0 : p.weight_decay);
    const T beta2 = T(p.beta2), rest1 = T(1 - p.beta1), rest2 = T(1 - p.beta2), eps = T(p.eps);
    for_each_element(list, count, [=](const Parameter<T>& row) {
        return [=, w = row.value, grad = row.grad, m = row.state, s = row.state2](std::int64_t i) {
            const T value = w[i] * shrink, g = grad[i] + decay * w[i];
            m[i] += (g - m[i]) * rest1;
            s[i] = beta2 * s[i] + rest2 * g * g;
            w[i] = value - rate * (m[i] / (std::sqrt(s[i]) / root + eps));
        };
    });
}

template <typename T>
void rmsprop_step(const Parameter<T>* list, std::int64_t count, const RmspropParams& p) {
    const T lr = T(p.lr), alpha = T(p.alpha), rest = T(1 - p.alpha), eps = T(p.eps),
            decay = T(p.weight_decay);
    const T momentum = T(p.momentum);
    for_each_element(list, count, [=](const Parameter<T>& row) {
        return [=, w = row.value, grad = row.grad, s = row.state, v = row.state2](std::int64_t i) {
            const T g = grad[i] + decay * w[i];
            s[i] = alpha * s[i] + rest * g * g;
            T update = g / (std::sqrt(s[i]) + eps);
            if (momentum != 0) update = v[i] = momentum * v[i] + update;
            w[i] -= lr * update;
        };
    });
}

template <typename T>
void ema_update(const Parameter<T>* list, std::int64_t count, double decay) {
    const T keep = T(decay), rest = T(1 - decay);
    for_each_element(list, count, [=](const Parameter<T>& row) {
        return [=, a = row.value, w = row.grad](std::int64_t i) { a[i] = keep * a[i] + rest * w[i]; };
    });
}

template <typename T>
void scale(const Parameter<T>* list, std::int64_t count, double factor) {
    const T by = T(factor);
    for_each_element(list, count, [=](const Parameter<T>& row) {
        return [=, a = row.value](std::int64_t i) { a[i] *= by; };
    });
}

template <typename T>
double sum_of_squares(const Parameter<T>* list, std::int64_t count) {
    constexpr int lanes = 16;  // independent sums, so that the additions overlap
    std::int64_t total = 0;
    for (std::int64_t k = 0; k < count; ++k) total += list[k].size;
    std::vector<double> partial(std::size_t(total / elements_per_piece + 1));
    for_each_range(list, count,
                   [&](std::int64_t piece, const Parameter<T>& row, std::int64_t i, std::int64_t last) {
                       double sums[lanes] = {};
                       for (; i + lanes <= last; i += lanes) {
                           for (int j = 0; j < lanes; ++j)
                               sums[j] += double(row.value[i + j]) * double(row.value[i + j]);
                       }
                       for (; i < last; ++i) sums[0] += double(row.value[i]) * double(row.value[i]);
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
