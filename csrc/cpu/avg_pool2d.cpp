// Average-pooling over windows.  In the backward pass each pixel collects its share of the gradient from
// every window that it lies in, so that no two threads write one element.

#include "max_pool2d.h"

namespace minicnn {
namespace {

// How many cells of a window count along one axis: those inside the image, or with padding also the
// padded ones.  `pad` is the padding after the image.
std::int64_t counted(const Cells& cells, std::int64_t kernel, std::int64_t size, std::int64_t pad,
                     bool with_pad) {
    if (!with_pad) return std::max(cells.last - cells.first, std::int64_t{0});
    return std::min(cells.start + kernel, size + pad) - cells.start;
}

template <typename T>
void add_to(T* sum, const T* values, std::int64_t count) {
#pragma GCC ivdep
    for (std::int64_t c = 0; c < count; ++c) sum[c] += values[c];
}

}  // namespace

template <typename T>
void avg_pool2d_forward(const T* x, T* y, const ImageShape& s, const PoolParams& p, bool with_pad) {
    const std::int64_t grain = items_per_piece(p.OW * s.C * std::min(p.KH * p.KW, s.H * s.W));
    parallel_for(0, s.N * p.OH, grain, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t item = first; item < last; ++item) {
            const T* image = x + item / p.OH * s.H * s.W * s.C;
            const Cells rows = cells_inside(item % p.OH, p.stride_h, p.pad_h, 1, p.KH, s.H);
            const std::int64_t height = counted(rows, p.KH, s.H, p.pad_bottom, with_pad);
            for (std::int64_t ow = 0; ow < p.OW; ++ow) {
                const Cells columns = cells_inside(ow, p.stride_w, p.pad_w, 1, p.KW, s.W);
                T* mean = y + (item * p.OW + ow) * s.C;
                std::fill(mean, mean + s.C, T(0));
                for (std::int64_t u = rows.first; u < rows.last; ++u) {
                    for (std::int64_t v = columns.first; v < columns.last; ++v) {
                        add_to(mean, image + ((rows.start + u) * s.W + columns.start + v) * s.C, s.C);
                    }
                }
                const T count = T(height * counted(columns, p.KW, s.W, p.pad_right, with_pad));
                for (std::int64_t c = 0; c < s.C; ++c) mean[c] /= count;
            }
        }
    });
}

template <typename T>
void avg_pool2d_backward(const T* dy, T* dx, const ImageShape& s, const PoolParams& p, bool with_pad) {
    parallel_for(0, s.N * s.H, items_per_piece(s.W * s.C), [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t row = first; row < last; ++row) {
            std::fill(dx + row * s.W * s.C, dx + (row + 1) * s.W * s.C, T(0));
            const Windows down = windows_around(row % s.H, p.stride_h, p.pad_h, 1, p.KH, p.OH);
            for (std::int64_t w = 0; w < s.W; ++w) {
                T* pixel = dx + (row * s.W + w) * s.C;
                const Windows across = windows_around(w, p.stride_w, p.pad_w, 1, p.KW, p.OW);
                for (std::int64_t oh = down.last - 1; oh >= down.first; --oh) {
                    const Cells rows = cells_inside(oh, p.stride_h, p.pad_h, 1, p.KH, s.H);
                    const std::int64_t height = counted(rows, p.KH, s.H, p.pad_bottom, with_pad);
                    for (std::int64_t ow = across.last - 1; ow >= across.first; --ow) {
                        const Cells columns = cells_inside(ow, p.stride_w, p.pad_w, 1, p.KW, s.W);
                        const T share =
                            T(1) / T(height * counted(columns, p.KW, s.W, p.pad_right, with_pad));
                        const T* upstream = dy + ((row / s.H * p.OH + oh) * p.OW + ow) * s.C;
#pragma GCC ivdep
                        for (std::int64_t c = 0; c < s.C; ++c) pixel[c] += upstream[c] * share;
                    }
                }
            }
        }
    });
}

#define INSTANTIATE(T)                                                                          \
    template void avg_pool2d_forward(const T*, T*, const ImageShape&, const PoolParams&, bool); \
    template void avg_pool2d_backward(const T*, T*, const ImageShape&, const PoolParams&, bool)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn
