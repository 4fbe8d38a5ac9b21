// Dense layers: matrix products through the register tiles of tile.h, and dot products for few rows.
// Fused: bias and ReLU into the forward pass, the ReLU mask into the backward pass.
#include "conv2d_weight.h"
#include "gemm.h"

namespace minicnn {

template <typename T>
void dense_forward(const T* x, const T* weight, const T* bias, T* y, int64_t N, int64_t in, int64_t out,
                   bool relu) {
    if (N < rows_worth_packing) {
        dot_products(x, weight, bias, y, N, out, in, relu);
        return;
    }
    gemm<T>({x, in, 1, weight, 1, in, bias, y, N, out, in, relu});
}

template <typename T>
void dense_backward(const T* dy, const T* relu_y, const T* x, const T* weight, T* dx, T* dw, T* db,
                    int64_t N, int64_t in, int64_t out) {
    if (relu_y) {
        T* masked = scratch<T>(Slot::shared_map, N * out);
        for (int64_t i = 0; i < N * out; ++i) masked[i] = relu_y[i] <= 0 ? T(0) : dy[i];
        dy = masked;
    }
    if (dx) gemm<T>({dy, out, 1, weight, in, 1, nullptr, dx, N, in, out, false});
    if (dw) gemm<T>({dy, 1, out, x, in, 1, nullptr, dw, out, in, N, false});
    if (db) sum_channels<T>(dy, nullptr, db, N, out);
}

#define INSTANTIATE(T)                                                                                 \
    template void dense_forward(const T*, const T*, const T*, T*, int64_t, int64_t, int64_t, bool);    \
    template void dense_backward(const T*, const T*, const T*, const T*, T*, T*, T*, int64_t, int64_t, \
                                 int64_t);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
