// What the batch norm kernels share: the statistics of a channel, its affine map, and the sums of backward.
#pragma once

#include <cmath>

#include "../ops.h"
#include "core/channels.h"

namespace minicnn::cuda {

// A thread keeps some rows of V values in registers, so that their loads are under way together.
template <typename T>
constexpr int rows_at_once = full_width<T> > 4 ? 2 : 4;

// ---- forward -----------------------------------------------------------------------------------------

// For each channel the sums of x - pivot and of its square.  The pivot is the channel's first value, so
// that neither sum is of large numbers that nearly cancel.
template <typename T>
struct Deviations {
    using S = Sum<T>;
    static constexpr int at_once = 2 * rows_at_once<T>;
    const T* x;
    std::int64_t C;

    template <int V>
    __device__ Vector<S, V> own(int c) const {
        return load<V>(x + c);
    }
    template <int V>
    __device__ void add(TwoSums (&sums)[V], const Rows& rows, int c, const Vector<S, V>& pivot) const {
        Vector<S, V> values[at_once];
        int count = 0;
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
            if (rows.has(i)) {
                values[i] = load<V>(x + rows.at(i) * C + c);
                ++count;
            } else {
                values[i] = pivot;
            }
        }
        const S share = S(1) / S(count);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            // Step 1: the mean and the variance of each channel.  These few values are centred at their own
            // mean before they are squared.
            S sum = 0, squares = 0;
#pragma unroll
            for (int i = 0; i < at_once; ++i) sum += values[i].v[k] - pivot.v[k];
            const S mean = sum * share;
#pragma unroll
            for (int i = 0; i < at_once; ++i) {
                const S distance = values[i].v[k] - pivot.v[k] - mean;
                if (rows.has(i)) squares += distance * distance;
            }
            sums[k].first += double(sum);
            sums[k].second +=
                double(squares) + double(mean) * (2 * double(sum) - double(count) * double(mean));
        }
    }
};

template <typename S>
__device__ void move_towards(S* running, S value, double momentum) {
    *running = S(1 - momentum) * *running + S(momentum) * value;
}

// y = (x - mean) * scale + bias
template <typename S>
struct AffineNumbers {
    S mean, scale, bias;
    __device__ S operator()(S x) const { return (x - mean) * scale + bias; }
};

// Where the statistics of a forward pass come from, and where they go.
template <typename T>
struct Statistics {
    using S = Sum<T>;
    const T* x;
    const S *weight, *bias;         // or nullptr
    S *running_mean, *running_var;  // in training: or nullptr
    S *mean, *invstd;
    std::int64_t rows;
    BatchNormParams p;

    __device__ AffineNumbers<S> finish(int c, const TwoSums& sums, bool is_first) const {
        S own_mean, own_invstd;
        if (!p.training) {
            own_mean = running_mean[c];
            own_invstd = S(1 / sqrt(double(running_var[c]) + p.eps));
        } else if (rows == 0) {  // the running statistics stay
            own_mean = own_invstd = S(NAN);
        } else {
            const double count = double(rows), offset = sums.first / count;
            const double squares = sums.second - sums.first * offset;
            const double variance = squares < 0 ? 0 : squares / count;
            own_mean = S(double(widen(x[c])) + offset);
            own_invstd = S(1 / sqrt(variance + p.eps));
            // Step 2: move the running statistics towards them.
            if (is_first && running_mean) move_towards(running_mean + c, own_mean, p.momentum);
            if (is_first && running_var) {
                move_towards(running_var + c, S(variance * (count / larger(count - 1, 1.0))), p.momentum);
            }
        }
        if (is_first) {
            mean[c] = own_mean;
            invstd[c] = own_invstd;
        }
        return {own_mean, weight ? own_invstd * weight[c] : own_invstd, bias ? bias[c] : S(0)};
    }
};

// ---- backward ----------------------------------------------------------------------------------------

// For each channel the sums of g and of g * (x - mean), where g is the upstream gradient.  They are double,
// as the terms of long sums nearly cancel.  source.read<V>(row, c, g, x) gives both at a row.
template <typename T, typename Source>
struct GradientTerms {
    using S = Sum<T>;
    static constexpr int at_once = rows_at_once<T>;
    Source source;
    const S* mean;

    template <int V>
    __device__ Vector<S, V> own(int c) const {
        Vector<S, V> means;
#pragma unroll
        for (int k = 0; k < V; ++k) means.v[k] = mean[c + k];
        return means;
    }
    template <int V>
    __device__ void add(TwoSums (&sums)[V], const Rows& rows, int c, const Vector<S, V>& means) const {
        Vector<S, V> g[at_once], x[at_once];
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
            if (rows.has(i)) {
                source.template read<V>(rows.at(i), c, g[i], x[i]);
            } else {
                g[i] = {};
                x[i] = means;
            }
        }
#pragma unroll
        for (int k = 0; k < V; ++k) {
            // Step 4: sum dy, and dy times the normalised x.
            S sum = 0, product = 0;
#pragma unroll
            for (int i = 0; i < at_once; ++i) {
                sum += g[i].v[k];
                product += g[i].v[k] * (x[i].v[k] - means.v[k]);
            }
            sums[k].first += double(sum);
            sums[k].second += double(product);
        }
    }
};

// dx = scale * (g - offset - (x - mean) * slope)
template <typename S>
struct GradientNumbers {
    S mean, scale, offset, slope;
};

// Turns a channel's sums into dw and db, and into the numbers that dx needs.
template <typename S>
struct Gradients {
    const S *weight, *mean, *invstd;  // weight: or nullptr
    S *dw, *db;                       // or nullptr
    double count;
    bool training;

    __device__ GradientNumbers<S> finish(int c, const TwoSums& sums, bool is_first) const {
        const double inverse = double(invstd[c]);
        if (is_first && dw) dw[c] = count == 0 ? S(0) : S(sums.second * inverse);
        if (is_first && db) db[c] = S(sums.first);
        const S scale = weight ? invstd[c] * weight[c] : invstd[c];
        if (!training) return {mean[c], scale, S(0), S(0)};
        return {mean[c], scale, S(sums.first / count), S(sums.second * inverse * inverse / count)};
    }
};

// The gradient of V channels of a pixel; x is not read in evaluation.
template <int V, typename T, typename S>
__device__ __forceinline__ Vector<S, V> input_gradient(const Vector<S, V>& g, const T* x, bool training,
                                                       const GradientNumbers<S>* of) {
    Vector<S, V> dx;
    if (!training) {
#pragma unroll
        for (int k = 0; k < V; ++k) dx.v[k] = of[k].scale * g.v[k];
        return dx;
    }
    const Vector<S, V> values = load<V>(x);
#pragma unroll
    for (int k = 0; k < V; ++k) {
        // Step 5: take from dy what normalisation cancels.
        dx.v[k] = of[k].scale * (g.v[k] - of[k].offset - (values.v[k] - of[k].mean) * of[k].slope);
    }
    return dx;
}

}  // namespace minicnn::cuda
