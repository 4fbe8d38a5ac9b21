// Batch norm in evaluation folded into the weight and bias of the convolution before it.

#include <cmath>

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

// One thread computes V neighbouring values of one filter of the weight.
template <typename T>
struct FoldedWeight {
    const T *weight, *gamma, *running_var;
    T* folded;
    std::int64_t size;
    T eps;
    __device__ T scale(std::int64_t f) const {
        return (gamma ? gamma[f] : T(1)) / std::sqrt(running_var[f] + eps);
    }
    template <int V>
    __device__ void at(std::int64_t i) const {
        const T factor = scale(cuda::divide(i, size));
        auto values = cuda::load<V>(weight + i);
        for (int k = 0; k < V; ++k) values.v[k] *= factor;
        cuda::store(folded + i, values);
    }
};

// One thread computes the bias of one filter.
template <typename T>
struct FoldedBias {
    FoldedWeight<T> weight;
    const T *bias, *beta, *running_mean;
    T* folded;
    template <int>
    __device__ void at(std::int64_t f) const {
        const T centred = (bias ? bias[f] : T(0)) - running_mean[f];
        folded[f] = centred * weight.scale(f) + (beta ? beta[f] : T(0));
    }
};

}  // namespace

template <typename T>
void fold_batch_norm2d(const T* weight, const T* bias, const T* gamma, const T* beta, const T* running_mean,
                       const T* running_var, T* folded_weight, T* folded_bias, std::int64_t F,
                       std::int64_t size, double eps) {
    const FoldedWeight<T> f{weight, gamma, running_var, folded_weight, size, T(eps)};
    const bool wide = size % cuda::full_width<T> == 0;
    cuda::for_each<T>(f, F * size, wide && cuda::aligned(weight) && cuda::aligned(folded_weight));
    cuda::for_each<T>(FoldedBias<T>{f, bias, beta, running_mean, folded_bias}, F, false);
}

template void fold_batch_norm2d(const float*, const float*, const float*, const float*, const float*,
                                const float*, float*, float*, std::int64_t, std::int64_t, double);
template void fold_batch_norm2d(const double*, const double*, const double*, const double*, const double*,
                                const double*, double*, double*, std::int64_t, std::int64_t, double);

}  // namespace minicnn
