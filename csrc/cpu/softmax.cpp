// Softmax over the classes of each row.

#include "softmax.h"

namespace minicnn {

template <typename T>
void softmax_forward(const T* x, T* p, std::int64_t N, std::int64_t K) {
    parallel_for(0, N, rows_per_piece(K), [=](std::int64_t first, std::int64_t last) {
        for (std::int64_t n = first; n < last; ++n) softmax_row(x + n * K, p + n * K, K);
    });
}

// dx = p * (dy - sum of dy * p)
template <typename T>
void softmax_backward(const T* dy, const T* p, T* dx, std::int64_t N, std::int64_t K) {
    parallel_for(0, N, items_per_piece(K), [=](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first * K; i < last * K; i += K) {
            T sum = 0;
            for (std::int64_t k = 0; k < K; ++k) sum += dy[i + k] * p[i + k];
            for (std::int64_t k = 0; k < K; ++k) dx[i + k] = p[i + k] * (dy[i + k] - sum);
        }
    });
}

template void softmax_forward(const float*, float*, std::int64_t, std::int64_t);
template void softmax_forward(const double*, double*, std::int64_t, std::int64_t);
template void softmax_backward(const float*, const float*, float*, std::int64_t, std::int64_t);
template void softmax_backward(const double*, const double*, double*, std::int64_t, std::int64_t);

}  // namespace minicnn
