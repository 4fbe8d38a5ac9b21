// Deterministic matrix products: every element is summed over the whole depth in order, whatever the
// number of threads.
#pragma once

#include <cstdint>

namespace minicnn {

// c (rows, cols) = a (rows, depth) @ b (depth, cols) + bias (cols), then ReLU if `relu`.
// a is read at a[i*a_row + k*a_depth], b at b[k*b_depth + j*b_col]; c is row-major; bias may be nullptr.
template <typename T>
struct Gemm {
    const T* a;
    std::int64_t a_row, a_depth;
    const T* b;
    std::int64_t b_depth, b_col;
    const T* bias;
    T* c;
    std::int64_t rows, cols, depth;
    bool relu;
};

template <typename T>
void gemm(const Gemm<T>& m);

// Below this many rows, packing a transposed b costs more than it saves.
constexpr std::int64_t rows_worth_packing = 8;

// c (rows, cols) = a (rows, depth) @ b (cols, depth) transposed + bias: both operands are read along the
// depth.
template <typename T>
void dot_products(const T* a, const T* b, const T* bias, T* c, std::int64_t rows, std::int64_t cols,
                  std::int64_t depth, bool relu);

// dy where relu_y (or nullptr) is not <= 0, else 0: a gradient for a product that masks nothing itself, in
// the scratch memory that sum_channels uses too.
template <typename T>
const T* masked_gradient(const T* dy, const T* relu_y, std::int64_t size);

}  // namespace minicnn
