// The gradients of a convolution to its weight and bias: sums over the pixels of the whole batch.

#include "conv2d.h"
#include "depthwise.h"
#include "first_layer.h"

namespace minicnn::cuda {
namespace {

template <typename T, int WA, int WB, bool fused>
void multiply(const T* dy, const Fused& f, const T* x, T* dw, const ConvParams& p) {
    const std::int64_t depth = p.KH * p.KW * (p.C / p.groups), filters = p.F / p.groups;
    const Patches<T, false> a(x, p, Pixels(p.OH, p.OW));
    const GradientColumns<T, fused> b(dy, p, f);
    const WeightOutput<T> out{dw, depth, int(filters)};
    const GemmSize s{depth, p.N * p.OH * p.OW, narrow(filters, "F"), 0, int(p.groups), 1, 0};
    with_math<T>(filters, [&](auto math) { gemm<typename decltype(math)::type, WA, WB>(a, b, out, s); });
}

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

}  // namespace

template <typename T, bool fused>
void conv2d_weight_gradient(const T* dy, const Fused& f, const T* x, T* dw, const ConvParams& p) {
    constexpr int V = full_width<T>;
    if (is_depthwise(p)) {
        const DepthwiseWeight<T, fused> sums{Upstream<T, fused>(dy, p, f), Pixels(p.OH, p.OW),
                                             Taps(p.KW, p.C), x, p};
        const KeepDepthwiseWeight<T> keep{dw, int(p.C), int(p.KH * p.KW)};
        return reduce_rows(sums, keep, p.N * p.OH * p.OW, p.KH * p.KW * p.C);
    }
    if (is_first_layer(p)) return first_layer_weight_gradient(dy, f, x, dw, p);
    const bool wide_x = aligned(x) && p.C / p.groups % V == 0;
    const bool wide_dy = aligned(dy) && aligned(f.relu_y) && aligned(f.winner) && p.F / p.groups % V == 0;
    if (wide_x && wide_dy) {
        multiply<T, V, V, fused>(dy, f, x, dw, p);
    } else if (wide_dy) {
        multiply<T, 1, V, fused>(dy, f, x, dw, p);
    } else {
        multiply<T, 1, 1, fused>(dy, f, x, dw, p);
    }
}

template <typename T>
void conv2d_bias_gradient(const T* dy, const Fused& f, Sum<T>* db, const ConvParams& p) {
    const CountingWinners counting = f.winner ? CountingWinners(p, f.pool) : CountingWinners();
    const std::int64_t rows = p.N * (f.winner ? f.pool.OH * f.pool.OW : p.OH * p.OW);
    reduce_rows(BiasSums<T>{dy, static_cast<const T*>(f.relu_y), f.winner, counting, p.F},
                KeepBias<Sum<T>>{db}, rows, p.F);
}

#define INSTANTIATE(T)                                                                   \
    template void conv2d_weight_gradient<T, false>(const T*, const Fused&, const T*, T*, \
                                                   const ConvParams&);                   \
    template void conv2d_weight_gradient<T, true>(const T*, const Fused&, const T*, T*,  \
                                                  const ConvParams&);                    \
    template void conv2d_bias_gradient(const T*, const Fused&, T*, const ConvParams&)
INSTANTIATE(float);
INSTANTIATE(double);
template void conv2d_bias_gradient(const bfloat16*, const Fused&, float*, const ConvParams&);

}  // namespace minicnn::cuda
