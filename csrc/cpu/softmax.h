// The softmax of one row, which the loss computes in the same pass as the logarithms.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {

// An exponential takes as long as about ten elementwise operations.
inline std::int64_t rows_per_piece(std::int64_t K) {
    return items_per_piece(10 * std::min(K, elements_per_piece));
}

// The row's maximum, and the sum of exp(x - maximum).
template <typename T>
struct RowSum {
    T maximum, sum;
};

// p = exp(x - max x) / sum.  Where x has a NaN or +inf, or is all -inf, every p becomes NaN, as in torch.
template <typename T>
RowSum<T> softmax_row(const T* x, T* p, std::int64_t K) {
    T maximum = -std::numeric_limits<T>::infinity();
    for (std::int64_t k = 0; k < K; ++k) maximum = std::max(maximum, x[k]);
    T sum = 0;
    for (std::int64_t k = 0; k < K; ++k) {
        p[k] = std::exp(x[k] - maximum);
        sum += p[k];
    }
    for (std::int64_t k = 0; k < K; ++k) p[k] /= sum;
    return {maximum, sum};
}

}  // namespace minicnn
