// Matrix products whose elements are each summed over the whole depth in order, so that the result does
// not depend on the number of threads.
#pragma once

#include <cstdint>

#include "scratch.h"

namespace minicnn {

// c (rows, cols) = a (rows, depth) @ b (depth, cols) + bias (cols), then ReLU if `relu`.
// Element (i, k) of a is a[i*a_row + k*a_depth], element (k, j) of b is b[k*b_depth + j*b_col]: so either
// may be transposed.  c is row-major; bias may be nullptr.
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

// b and the bias as the register tiles read them: blocks of columns, and a bias as wide.  Blocks that are
// read in place are left out.
template <typename T>
struct PackedOperand {
    const T *blocks, *bias;
};

// Packs b and the bias of a product, of which a, c and rows need not be set yet.
template <typename T>
PackedOperand<T> pack_operand(const Gemm<T>& m, Memory& memory);

// The product; with an operand that is not packed yet, or one that is.
template <typename T>
void gemm(const Gemm<T>& m);
template <typename T>
void gemm(const Gemm<T>& m, const PackedOperand<T>& packed);

// With fewer rows than this, packing a transposed b takes longer than the tiles save over dot products.
constexpr std::int64_t rows_worth_packing = 8;

// c (rows, cols) = a (rows, depth) @ b (cols, depth) transposed + bias, then ReLU if `relu`, as dot
// products: both operands are read along the depth.
template <typename T>
void dot_products(const T* a, const T* b, const T* bias, T* c, std::int64_t rows, std::int64_t cols,
                  std::int64_t depth, bool relu);

// dy where relu_y (or nullptr) is not <= 0, else 0: a gradient for a product that applies no mask itself.
// It is dy where there is no mask, or lies in `scratch`.
template <typename T>
const T* masked_gradient(const T* dy, const T* relu_y, std::int64_t size, Scratch& scratch);

}  // namespace minicnn
