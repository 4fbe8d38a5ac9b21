// Batch norm in evaluation folded into the weight and bias of the convolution before it.

#include <cmath>

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {

template <typename T>
void fold_batch_norm2d(const T* weight, const T* bias, const T* gamma, const T* beta, const T* running_mean,
                       const T* running_var, T* folded_weight, T* folded_bias, std::int64_t F,
                       std::int64_t size, double eps) {
    parallel_for(0, F, items_per_piece(size), [=](std::int64_t first, std::int64_t last) {
        for (std::int64_t f = first; f < last; ++f) {
            const T scale = (gamma ? gamma[f] : T(1)) / std::sqrt(running_var[f] + T(eps));
            const T* from = weight + f * size;
            T* to = folded_weight + f * size;
#pragma GCC ivdep
            for (std::int64_t i = 0; i < size; ++i) to[i] = from[i] * scale;
            folded_bias[f] = ((bias ? bias[f] : T(0)) - running_mean[f]) * scale + (beta ? beta[f] : T(0));
        }
    });
}

template void fold_batch_norm2d(const float*, const float*, const float*, const float*, const float*,
                                const float*, float*, float*, std::int64_t, std::int64_t, double);
template void fold_batch_norm2d(const double*, const double*, const double*, const double*, const double*,
                                const double*, double*, double*, std::int64_t, std::int64_t, double);

}  // namespace minicnn
