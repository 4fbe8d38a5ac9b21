// What the batch norm kernels share: the moments of a channel, its affine map, and the sums of backward.
#pragma once

#include <cmath>

#include "../ops.h"
#include "core/reduce.h"

namespace minicnn::cuda {

// Count, mean and sum of squared distances from the mean.
// Source: Welford 1962; joined as in Chan, Golub and LeVeque 1979.
template <typename T>
struct Moments {
    double count;
    T mean, squares;

    __device__ void add(T x) {
        count += 1;
        const T distance = x - mean;
        mean += distance / T(count);
        squares += distance * (x - mean);
    }
    __device__ void merge(const Moments& other) {
        if (other.count == 0) return;
        if (count == 0) {
            *this = other;
            return;
        }
        const double total = count + other.count, delta = double(other.mean) - double(mean);
        const double share = other.count / total;
        squares = T(double(squares) + double(other.squares) + delta * delta * count * share);
        mean = T(double(mean) + delta * share);
        count = total;
    }
};

template <typename T>
struct ImageMoments {
    using Accumulator = Moments<T>;
    const T* x;
    std::int64_t C;
    __device__ int column(int c) const { return c; }
    __device__ void add(Accumulator& sum, std::int64_t row, int c) const { sum.add(x[row * C + c]); }
};

template <typename T>
__device__ void move_towards(T* running, T value, double momentum) {
    *running = T(1 - momentum) * *running + T(momentum) * value;
}

// Turns a channel's moments into mean and invstd, and moves the running statistics.
template <typename T>
struct KeepStatistics {
    T *mean, *invstd, *running_mean, *running_var;
    double momentum, eps;
    __device__ void operator()(int c, const Moments<T>& m) const {
        if (m.count == 0) {  // an empty batch: the running statistics stay
            mean[c] = invstd[c] = T(NAN);
            return;
        }
        const double variance = double(m.squares) / m.count;
        mean[c] = m.mean;
        invstd[c] = T(1 / sqrt(variance + eps));
        if (running_mean) move_towards(running_mean + c, m.mean, momentum);
        if (running_var) {
            move_towards(running_var + c, T(variance * (m.count / larger(m.count - 1, 1.0))), momentum);
        }
    }
};

// mean and invstd from the running statistics.
template <typename T>
struct UseRunning {
    const T *running_mean, *running_var;
    T *mean, *invstd;
    double eps;
    template <int V>
    __device__ void at(std::int64_t c) const {
        mean[c] = running_mean[c];
        invstd[c] = T(1 / sqrt(double(running_var[c]) + eps));
    }
};

// Fills mean and invstd.
template <typename T>
void find_statistics(const T* x, T* running_mean, T* running_var, T* mean, T* invstd, const ImageShape& s,
                     const BatchNormParams& p) {
    if (p.training) {
        // Step 1: the mean and the variance of each channel.
        // Step 2: move the running statistics towards them.
        reduce_rows(ImageMoments<T>{x, s.C},
                    KeepStatistics<T>{mean, invstd, running_mean, running_var, p.momentum, p.eps},
                    s.N * s.H * s.W, s.C);
    } else {
        for_each<T>(UseRunning<T>{running_mean, running_var, mean, invstd, p.eps}, s.C, false);
    }
}

// y = (x - mean) * invstd * weight + bias
template <typename T>
struct Affine {
    const T *x, *weight, *bias, *mean, *invstd;
    template <int V>
    __device__ Vector<T, V> at(std::int64_t i, std::int64_t c) const {
        Vector<T, V> values = load<V>(x + i);
        for (int k = 0; k < V; ++k) {
            // Step 3: normalise, scale and shift.
            const T scale = weight ? invstd[c + k] * weight[c + k] : invstd[c + k];
            values.v[k] = (values.v[k] - mean[c + k]) * scale + (bias ? bias[c + k] : T(0));
        }
        return values;
    }
};

// The sums of g and of g * (x - mean) over a channel.  They are double, as the terms of long sums nearly
// cancel.
struct GradientSums {
    double g, product;
    __device__ void merge(const GradientSums& other) {
        g += other.g;
        product += other.product;
    }
};

// `gradient(i)` is the upstream gradient of element i.
template <typename T, typename Gradient>
struct SumGradients {
    using Accumulator = GradientSums;
    Gradient gradient;
    const T *x, *mean;
    std::int64_t C;
    __device__ int column(int c) const { return c; }
    __device__ void add(Accumulator& sum, std::int64_t row, int c) const {
        const std::int64_t i = row * C + c;
        const T g = gradient(i);
        // Step 4: sum dy, and dy times the normalised x.
        sum.g += double(g);
        sum.product += double(g) * double(x[i] - mean[c]);
    }
};

// Turns the sums into dw and db, and into the numbers that dx needs:
// dx = scale * (g - offset - (x - mean) * slope).
template <typename T>
struct KeepGradients {
    const T* invstd;
    T *dw, *db, *offset, *slope;
    double count;
    __device__ void operator()(int c, const GradientSums& sums) const {
        const double inverse = double(invstd[c]);
        if (dw) dw[c] = count == 0 ? T(0) : T(sums.product * inverse);
        if (db) db[c] = T(sums.g);
        offset[c] = T(sums.g / count);
        slope[c] = T(sums.product * inverse * inverse / count);
    }
};

template <typename T, typename Gradient>
struct InputGradient {
    Gradient gradient;
    const T *x, *weight, *mean, *invstd, *offset, *slope;
    T *dx, *dresidual;
    std::int64_t C;
    bool training;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const std::int64_t first = i - divide(i, C) * C;
        for (int k = 0; k < V; ++k) {
            const std::int64_t c = first + k;
            const T g = gradient(i + k), scale = weight ? invstd[c] * weight[c] : invstd[c];
            if (dresidual) dresidual[i + k] = g;
            if (!dx) continue;
            // Step 5: take from dy what normalisation cancels.
            dx[i + k] = training ? scale * (g - offset[c] - (x[i + k] - mean[c]) * slope[c]) : scale * g;
        }
    }
};

// The whole backward pass; `gradient(i)` is the upstream gradient of element i.
template <typename T, typename Gradient>
void batch_norm_gradients(const Gradient& gradient, const T* x, const T* weight, const T* mean,
                          const T* invstd, T* dx, T* dresidual, T* dw, T* db, const ImageShape& s,
                          bool training) {
    const std::int64_t pixels = s.N * s.H * s.W;
    const Scratch<T> coefficients(2 * s.C);
    T *offset = coefficients.get(), *slope = offset + s.C;
    if (dw || db || (dx && training)) {
        reduce_rows(SumGradients<T, Gradient>{gradient, x, mean, s.C},
                    KeepGradients<T>{invstd, dw, db, offset, slope, double(pixels)}, pixels, s.C);
    }
    if (dx || dresidual) {
        const InputGradient<T, Gradient> f{gradient, x,  weight,    mean, invstd,  offset,
                                           slope,    dx, dresidual, s.C,  training};
        for_each<T>(f, pixels * s.C, false);
    }
}

}  // namespace minicnn::cuda
