// Convolution by columns: im2col and one matrix product for each pass.  With the columns as a matrix
// (windows, values of a window), y = columns @ weight.T, the gradient to the columns = dy @ weight, and
// dw = dy.T @ columns.
// The forward pass and the gradient to the input take a batch in parts, so that the matrix stays small.
#include "columns.h"

#include <algorithm>

#include "../core/gemm.h"
#include "../core/parallel.h"
#include "../core/scratch.h"
#include "route.h"

namespace minicnn {
namespace {

int64_t depth_of(const ConvParams& p) { return p.KH * p.KW * p.C; }
int64_t pixels_of(const ConvParams& p) { return p.OH * p.OW; }

// Calls f(tap, pixel) for every tap of the window at (row, col); `pixel` is its number in the image, or
// -1 in the padding.
template <typename F>
void for_each_tap(const ConvParams& p, int64_t row, int64_t col, const F& f) {
    for (int64_t u = 0; u < p.KH; ++u) {
        const int64_t h = row * p.stride_h - p.pad_h + u * p.dil_h;
        for (int64_t v = 0; v < p.KW; ++v) {
            const int64_t w = col * p.stride_w - p.pad_w + v * p.dil_w;
            f(u * p.KW + v, h < 0 || h >= p.H || w < 0 || w >= p.W ? -1 : h * p.W + w);
        }
    }
}

// columns[image, row, col][u, v, c] = the value that tap (u, v) of the window reads in channel c, which
// is 0 in the padding.
template <typename T>
void to_columns(const T* x, T* columns, int64_t images, const ConvParams& p) {
    const int64_t pixels = pixels_of(p), depth = depth_of(p);
    parallel_for(0, images * pixels, std::max<int64_t>(1, 32768 / depth), [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
            const T* image = x + i / pixels * p.H * p.W * p.C;
            T* window = columns + i * depth;
            for_each_tap(p, i % pixels / p.OW, i % p.OW, [&](int64_t tap, int64_t pixel) {
                if (pixel < 0) {
                    std::fill_n(window + tap * p.C, p.C, T(0));
                } else {
                    std::copy_n(image + pixel * p.C, p.C, window + tap * p.C);
                }
            });
        }
    });
}

// dx = the sum of the columns' values that were copied from each pixel, in the order of the windows.
template <typename T>
void add_columns(const T* columns, T* dx, int64_t images, const ConvParams& p) {
    const int64_t pixels = pixels_of(p), depth = depth_of(p), size = p.H * p.W * p.C;
    parallel_for(0, images, std::max<int64_t>(1, 32768 / (pixels * depth + 1)),
                 [&](int64_t first, int64_t last) {
                     for (int64_t n = first; n < last; ++n) {
                         T* image = dx + n * size;
                         std::fill_n(image, size, T(0));
                         for (int64_t i = 0; i < pixels; ++i) {
                             const T* window = columns + (n * pixels + i) * depth;
                             for_each_tap(p, i / p.OW, i % p.OW, [&](int64_t tap, int64_t pixel) {
                                 if (pixel < 0) return;
                                 const T* from = window + tap * p.C;
                                 T* to = image + pixel * p.C;
                                 for (int64_t c = 0; c < p.C; ++c) to[c] += from[c];
                             });
                         }
                     }
                 });
}

}  // namespace

template <typename T>
PackedOperand<T> columns_filters(const T* weight, const T* bias, const ConvParams& p, Memory& memory) {
    const int64_t depth = depth_of(p);
    return pack_operand<T>({nullptr, 0, 0, weight, 1, depth, bias, nullptr, 0, p.F, depth, false}, memory);
}

template <typename T>
void columns_forward(const T* x, const PackedOperand<T>& filters, T* y, const ConvParams& p, bool relu) {
    Scratch scratch;
    const int64_t most = images_in_columns(p, sizeof(T)), pixels = pixels_of(p), depth = depth_of(p);
    if (is_pointwise(p)) {  // the images are the matrix
        return gemm<T>({x, depth, 1, nullptr, 1, depth, nullptr, y, p.N * pixels, p.F, depth, relu},
                       filters);
    }
    T* columns = scratch.take<T>(std::min(most, p.N) * pixels * depth);
    for (int64_t n = 0; n < p.N; n += most) {
        const int64_t images = std::min(most, p.N - n);
        to_columns(x + n * p.H * p.W * p.C, columns, images, p);
        gemm<T>({columns, depth, 1, nullptr, 1, depth, nullptr, y + n * pixels * p.F, images * pixels, p.F,
                 depth, relu},
                filters);
    }
}

template <typename T>
void columns_backward_data(const T* dy, const T* relu_y, const T* weight, T* dx, const ConvParams& p) {
    Scratch scratch;
    dy = masked_gradient(dy, relu_y, p.N * pixels_of(p) * p.F, scratch);
    const int64_t most = images_in_columns(p, sizeof(T)), pixels = pixels_of(p), depth = depth_of(p);
    T* columns = scratch.take<T>(std::min(most, p.N) * pixels * depth);
    for (int64_t n = 0; n < p.N; n += most) {
        const int64_t images = std::min(most, p.N - n);
        gemm<T>({dy + n * pixels * p.F, p.F, 1, weight, depth, 1, nullptr, columns, images * pixels, depth,
                 p.F, false});
        add_columns(columns, dx + n * p.H * p.W * p.C, images, p);
    }
}

template <typename T>
void columns_backward_weight(const T* dy, const T* relu_y, const T* x, T* dw, const ConvParams& p) {
    Scratch scratch;
    dy = masked_gradient(dy, relu_y, p.N * pixels_of(p) * p.F, scratch);
    const int64_t rows = p.N * pixels_of(p), depth = depth_of(p);
    T* columns = scratch.take<T>(rows * depth);
    to_columns(x, columns, p.N, p);
    gemm<T>({dy, 1, p.F, columns, depth, 1, nullptr, dw, p.F, depth, rows, false});
}

#define INSTANTIATE(T)                                                                             \
    template PackedOperand<T> columns_filters(const T*, const T*, const ConvParams&, Memory&);     \
    template void columns_forward(const T*, const PackedOperand<T>&, T*, const ConvParams&, bool); \
    template void columns_backward_data(const T*, const T*, const T*, T*, const ConvParams&);      \
    template void columns_backward_weight(const T*, const T*, const T*, T*, const ConvParams&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
