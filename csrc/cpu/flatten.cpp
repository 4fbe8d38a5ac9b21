// The one change of layout between layers: from channels-last images to rows in logical (C,H,W) order,
// and back.  Each image is a matrix (H*W, C), which is transposed in squares: in registers where a square
// is whole, else value by value.

#include <algorithm>

#include "../ops.h"
#include "core/elementwise.h"
#include "core/transpose.h"

namespace minicnn {
namespace {

constexpr std::int64_t tile = 16;

// Transposes the rows [r0, r1) of a matrix (rows, columns), at most `tile` of them.
template <typename T>
void transpose_band(const T* source, T* target, std::int64_t r0, std::int64_t r1, std::int64_t rows,
                    std::int64_t columns) {
    for (std::int64_t c0 = 0; c0 < columns; c0 += tile) {
        const std::int64_t c1 = std::min(c0 + tile, columns);
        for (std::int64_t c = c0; c < c1; ++c) {
            for (std::int64_t r = r0; r < r1; ++r) target[c * rows + r] = source[r * columns + c];
        }
    }
}

void transpose_band(const float* source, float* target, std::int64_t r0, std::int64_t r1, std::int64_t rows,
                    std::int64_t columns) {
    constexpr std::int64_t L = lanes<float>;
    for (; r0 + L <= r1; r0 += L) {
        pack_transposed<L>(source + r0 * columns, columns, L, columns, target + r0, rows);
    }
    transpose_band<float>(source, target, r0, r1, rows, columns);
}

// Transposes each of the images' matrices (rows, columns) into (columns, rows).
template <typename T>
void transpose(const T* from, T* to, std::int64_t images, std::int64_t rows, std::int64_t columns) {
    const std::int64_t bands = (rows + tile - 1) / tile;
    parallel_for(0, images * bands, items_per_piece(tile * columns),
                 [=](std::int64_t first, std::int64_t last) {
                     for (std::int64_t item = first; item < last; ++item) {
                         const T* source = from + item / bands * rows * columns;
                         T* target = to + item / bands * rows * columns;
                         const std::int64_t r0 = item % bands * tile;
                         transpose_band(source, target, r0, std::min(r0 + tile, rows), rows, columns);
                     }
                 });
}

}  // namespace

template <typename T>
void flatten_forward(const T* x, T* y, const ImageShape& s) {
    transpose(x, y, s.N, s.H * s.W, s.C);
}

template <typename T>
void flatten_backward(const T* dy, T* dx, const ImageShape& s) {
    transpose(dy, dx, s.N, s.C, s.H * s.W);
}

template void flatten_forward(const float*, float*, const ImageShape&);
template void flatten_forward(const double*, double*, const ImageShape&);
template void flatten_backward(const float*, float*, const ImageShape&);
template void flatten_backward(const double*, double*, const ImageShape&);
template void flatten_forward(const bfloat16*, bfloat16*, const ImageShape&);
template void flatten_backward(const bfloat16*, bfloat16*, const ImageShape&);

}  // namespace minicnn
