// Softmax and cross-entropy in one pass over the logits.
//
//     loss = -(1/D) sum over n,k of a[n,k] * log p[n,k]
//
//     dlogits[n,j] = (p[n,j] * sum over k of a[n,k] - a[n,j]) / D
//
// a is the targets after smoothing, times the class weights, and 0 in rows that are ignored; D is the
// number of rows that are not, or their classes' summed weights, or 1 where no mean is taken.

#include <vector>

#include "softmax.h"

namespace minicnn {
namespace {

template <typename T>
T weighted_target(const Targets<T>& t, std::int64_t n, std::int64_t k, std::int64_t K) {
    T target = t.classes ? T(t.classes[n] == k) : t.probabilities[n * K + k];
    if (t.label_smoothing != 0) {
        target = target * T(1 - t.label_smoothing) + T(t.label_smoothing / double(K));
    }
    return t.class_weight ? target * t.class_weight[k] : target;
}

template <typename T>
bool is_ignored(const Targets<T>& t, std::int64_t n) {
    return t.classes && t.classes[n] == t.ignore_index;
}

template <typename T>
double divisor(const Targets<T>& t, std::int64_t N) {
    if (t.reduction != Reduction::mean) return 1;
    if (!t.classes) return double(N);
    double sum = 0;
    for (std::int64_t n = 0; n < N; ++n) {
        if (!is_ignored(t, n)) sum += t.class_weight ? double(t.class_weight[t.classes[n]]) : 1.0;
    }
    return sum;
}

// The loss of a row is -(sum over k of a * log p).  A class whose target is 0 takes no part: its log p
// may be -inf.
template <typename T>
double row_loss(const T* logits, const Targets<T>& t, RowSum<T> row, std::int64_t n, std::int64_t K) {
    if (is_ignored(t, n)) return 0;
    // Step 2: take the logarithm of the sum of the powers.
    const T log_sum = std::log(row.sum);
    double loss = 0;
    // Step 3: add up the loss of the targets.
    for (std::int64_t k = 0; k < K; ++k) {
        const T a = weighted_target(t, n, k, K);
        if (a != 0) loss -= double(a) * double(logits[k] - row.maximum - log_sum);
    }
    return loss;
}

}  // namespace

template <typename T>
void softmax_cross_entropy_forward(const T* logits, const Targets<T>& t, T* loss, T* probs, std::int64_t N,
                                   std::int64_t K) {
    const std::int64_t grain = rows_per_piece(K);
    std::vector<double> partial(std::size_t((N + grain - 1) / grain));
    parallel_for(0, N, grain, [&](std::int64_t first, std::int64_t last) {
        double sum = 0;
        for (std::int64_t n = first; n < last; ++n) {
            // Step 1: subtract the largest logit, so that no power overflows.
            const RowSum<T> row = softmax_row(logits + n * K, probs + n * K, K);
            const double loss_of_row = row_loss(logits + n * K, t, row, n, K);
            if (t.reduction == Reduction::none) loss[n] = T(loss_of_row);
            sum += loss_of_row;
        }
        partial[std::size_t(first / grain)] = sum;
    });
    if (t.reduction == Reduction::none) return;
    double total = 0;
    for (const double sum : partial) total += sum;
    *loss = T(total / divisor(t, N));
}

template <typename T>
void softmax_cross_entropy_backward(const T* probs, const Targets<T>& t, T* dlogits, std::int64_t N,
                                    std::int64_t K) {
    const T D = T(divisor(t, N));
    parallel_for(0, N, items_per_piece(K), [=](std::int64_t first, std::int64_t last) {
        for (std::int64_t n = first; n < last; ++n) {
            if (is_ignored(t, n)) {
                std::fill_n(dlogits + n * K, K, T(0));
                continue;
            }
            T sum = 0;
            for (std::int64_t k = 0; k < K; ++k) sum += weighted_target(t, n, k, K);
            for (std::int64_t k = 0; k < K; ++k) {
                // Step 4: the gradient: probabilities minus targets.
                dlogits[n * K + k] = (probs[n * K + k] * sum - weighted_target(t, n, k, K)) / D;
            }
        }
    });
}

template void softmax_cross_entropy_forward(const float*, const Targets<float>&, float*, float*,
                                            std::int64_t, std::int64_t);
template void softmax_cross_entropy_forward(const double*, const Targets<double>&, double*, double*,
                                            std::int64_t, std::int64_t);
template void softmax_cross_entropy_backward(const float*, const Targets<float>&, float*, std::int64_t,
                                             std::int64_t);
template void softmax_cross_entropy_backward(const double*, const Targets<double>&, double*, std::int64_t,
                                             std::int64_t);

}  // namespace minicnn
