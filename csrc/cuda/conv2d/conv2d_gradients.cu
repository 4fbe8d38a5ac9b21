// The gradients of a convolution.  Those to the input and to the weight are products, or of depthwise
// convolutions; the one to the bias is a sum over the pixels of the whole batch.

#include "conv2d.h"
#include "depthwise.h"
#include "products.h"

namespace minicnn::cuda {
namespace {

// Adds up dy where the ReLU or the max-pool after the convolution lets a gradient through.
template <typename T>
struct BiasSums {
    using Accumulator = WeightSum<Sum<T>>;
    const T *dy, *relu_y;
    const std::uint8_t* winner;
    CountingWinners counting;
    std::int64_t F;
    __device__ int column(int f) const { return f; }
    __device__ void add(Accumulator& sum, std::int64_t row, int f) const {
        const std::int64_t i = row * F + f;
        if (winner) {
            if (counting.has(winner[i], row)) sum.value += widen(dy[i]);
        } else {
            sum.value += relu_y ? relu_gradient(widen(relu_y[i]), widen(dy[i])) : widen(dy[i]);
        }
    }
};

template <typename T>
struct KeepBias {
    T* db;
    __device__ void operator()(int f, const WeightSum<T>& sum) const { db[f] = sum.value; }
};

template <typename T>
void bias_gradient(const T* dy, const Fused& f, Sum<T>* db, const ConvParams& p) {
    const CountingWinners counting = f.winner ? CountingWinners(p, f.pool) : CountingWinners();
    const std::int64_t rows = p.N * (f.winner ? f.pool.OH * f.pool.OW : p.OH * p.OW);
    reduce_rows(BiasSums<T>{dy, static_cast<const T*>(f.relu_y), f.winner, counting, p.F},
                KeepBias<Sum<T>>{db}, rows, p.F);
}

template <typename T>
void depthwise_gradients(const T* dy, const Fused& f, const T* x, const T* weight, T* dx, T* dw,
                         const ConvParams& p) {
    if (!dx && !dw) return;
    ConvParams whole = p;  // all filters lie side by side, as in one group
    whole.groups = 1;
    const PaddedArray<T> gradient = map_gradient(dy, f, whole, p.F);
    if (dx) {
        const bool wide = aligned(gradient.get()) && aligned(dx) && p.C % full_width<T> == 0;
        for_each<T>(DepthwiseInput<T>{gradient.get(), weight, dx, p}, p.N * p.H * p.W * p.C, wide);
    }
    if (dw) {
        reduce_rows(DepthwiseWeight<T>{gradient.get(), Pixels(p.OH, p.OW), Taps(p.KW, p.C), x, p},
                    KeepDepthwiseWeight<T>{dw, int(p.C), int(p.KH * p.KW)}, p.N * p.OH * p.OW,
                    p.KH * p.KW * p.C);
    }
}

}  // namespace

template <typename T>
void conv2d_gradients(const T* dy, const Fused& f, const T* x, const Sum<T>* weight, T* dx, Sum<T>* dw,
                      Sum<T>* db, const ConvParams& p) {
    check_sizes(p);
    // Step 4: the gradient to x: each output gives its pixels dy times the weights.
    // Step 5: the gradient to the weights: each output adds dy times its window.
    if (!is_depthwise(p)) {
        product_gradients(dy, f, x, weight, dx, dw, p);
    } else if constexpr (std::is_same_v<T, Sum<T>>) {
        depthwise_gradients(dy, f, x, weight, dx, dw, p);
    }
    // Step 6: the gradient to the bias: the sum of dy.
    if (db) bias_gradient(dy, f, db, p);
}

#define INSTANTIATE(T)                                                                                    \
    template void conv2d_gradients(const T*, const Fused&, const T*, const Sum<T>*, T*, Sum<T>*, Sum<T>*, \
                                   const ConvParams&)
INSTANTIATE(float);
INSTANTIATE(double);
INSTANTIATE(bfloat16);

}  // namespace minicnn::cuda
