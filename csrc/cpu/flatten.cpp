// The one change of layout between layers: from channels-last images to rows in logical (C,H,W) order,
// and back.  Each image is a matrix (H*W, C), which is transposed in squares, so that both sides stay in
// the cache.

#include <algorithm>

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

constexpr std::int64_t tile = 16;

// Transposes each of the images' matrices (rows, columns) into (columns, rows).
template <typename T>
void transpose(const T* from, T* to, std::int64_t images, std::int64_t rows, std::int64_t columns) {
    const std::int64_t bands = (rows + tile - 1) / tile;
    parallel_for(0, images * bands, items_per_piece(tile * columns),
                 [=](std::int64_t first, std::int64_t last) {
                     for (std::int64_t item = first; item < last; ++item) {
                         const T* source = from + item / bands * rows * columns;
                         T* target = to + item / bands * rows * columns;
                         const std::int64_t r0 = item % bands * tile, r1 = std::min(r0 + tile, rows);
                         for (std::int64_t c0 = 0; c0 < columns; c0 += tile) {
                             const std::int64_t c1 = std::min(c0 + tile, columns);
                             for (std::int64_t c = c0; c < c1; ++c) {
                                 for (std::int64_t r = r0; r < r1; ++r)
                                     target[c * rows + r] = source[r * columns + c];
                             }
                         }
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
