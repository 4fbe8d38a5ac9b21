// Dense layers: matrix products through the register tiles of tile.h, or dot products where there are few
// rows.
// Fused: bias and ReLU into the forward pass, the ReLU mask into the backward pass.
#include "../conv2d_ops.h"
#include "core/channel_sums.h"
#include "core/gemm.h"
#include "core/parallel.h"
#include "core/scratch.h"
#include "core/transpose.h"

namespace minicnn {
namespace {

// y (N, out) = product (out, N) transposed + bias, then ReLU if `relu`.
template <typename T>
void finish_transposed(const T* product, const T* bias, T* y, int64_t N, int64_t out, bool relu) {
    constexpr int L = lanes<T>;
    parallel_for(0, (out + L - 1) / L, std::max<int64_t>(1, 16384 / (L * N)),
                 [&](int64_t first, int64_t last) {
                     Scratch scratch;
                     T* block = scratch.take<T>(N * L);
                     for (int64_t o = first * L; o < std::min(last * L, out); o += L) {
                         const int64_t count = std::min<int64_t>(L, out - o);
                         pack_transposed<L>(product + o * N, N, count, N, block, L);
                         for (int64_t n = 0; n < N; ++n) {
                             for (int64_t l = 0; l < count; ++l) {
                                 // Step 2: add the bias.
                                 const T value = block[n * L + l] + (bias ? bias[o + l] : T(0));
                                 y[n * out + o + l] = relu && value <= 0 ? T(0) : value;
                             }
                         }
                     }
                 });
}

}  // namespace

template <typename T>
void dense_forward(const T* x, const T* weight, const T* bias, T* y, int64_t N, int64_t in, int64_t out,
                   bool relu) {
    if (N < rows_worth_packing) {
        dot_products(x, weight, bias, y, N, out, in, relu);
    } else if (2 * N < out) {
        // gemm packs its second operand.  x is the smaller one here, so the product is computed
        // transposed.
        Scratch scratch;
        T* product = scratch.take<T>(out * N);
        gemm<T>({weight, in, 1, x, 1, in, nullptr, product, out, N, in, false});
        finish_transposed(product, bias, y, N, out, relu);
    } else {
        // Step 1: multiply the inputs by the weights and add up.
        gemm<T>({x, in, 1, weight, 1, in, bias, y, N, out, in, relu});
    }
}

template <typename T>
void dense_backward(const T* dy, const T* relu_y, const T* x, const T* weight, T* dx, T* dw, T* db,
                    int64_t N, int64_t in, int64_t out) {
    // Step 5: the gradient to the bias: the sum of dy.
    if (db) sum_channels<T>(dy, relu_y, db, N, out);
    Scratch scratch;
    dy = masked_gradient(dy, relu_y, N * out, scratch);
    // Step 3: the gradient to x: dy times the weights.
    if (dx) gemm<T>({dy, out, 1, weight, in, 1, nullptr, dx, N, in, out, false});
    // Step 4: the gradient to the weights: dy times x.
    if (dw) gemm<T>({dy, 1, out, x, in, 1, nullptr, dw, out, in, N, false});
}

#define INSTANTIATE(T)                                                                                 \
    template void dense_forward(const T*, const T*, const T*, T*, int64_t, int64_t, int64_t, bool);    \
    template void dense_backward(const T*, const T*, const T*, const T*, T*, T*, T*, int64_t, int64_t, \
                                 int64_t);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
