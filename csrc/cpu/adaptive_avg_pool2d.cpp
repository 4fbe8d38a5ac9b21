// Average-pooling to a given output size: output i averages rows floor(i*H/OH) .. ceil((i+1)*H/OH) - 1.

#include <algorithm>

#include "../ops.h"
#include "core/elementwise.h"
#include "core/row_of_sums.h"

namespace minicnn {
namespace {

struct Region {
    std::int64_t first, last;
    std::int64_t size() const { return last - first; }
};

Region region(std::int64_t i, std::int64_t size, std::int64_t parts) {
    return {i * size / parts, ((i + 1) * size + parts - 1) / parts};
}

// The outputs whose regions hold this place.
Region regions_around(std::int64_t at, std::int64_t size, std::int64_t parts) {
    return {at * parts / size, ((at + 1) * parts + size - 1) / size};
}

}  // namespace

template <typename T>
void adaptive_avg_pool2d_forward(const T* x, T* y, const ImageShape& s, std::int64_t OH, std::int64_t OW) {
    const std::int64_t grain = items_per_piece(std::max(s.H * s.W / OH, OW) * s.C);
    parallel_for(0, s.N * OH, grain, [=](std::int64_t first, std::int64_t last) {
        for (std::int64_t item = first; item < last; ++item) {
            const T* image = x + item / OH * s.H * s.W * s.C;
            const Region rows = region(item % OH, s.H, OH);
            for (std::int64_t ow = 0; ow < OW; ++ow) {
                const Region columns = region(ow, s.W, OW);
                Scratch scratch;
                T* result = y + (item * OW + ow) * s.C;
                Sum<T>* mean = sums_of(result, s.C, scratch);
                std::fill(mean, mean + s.C, Sum<T>(0));
                for (std::int64_t h = rows.first; h < rows.last; ++h) {
                    for (std::int64_t w = columns.first; w < columns.last; ++w) {
                        const T* pixel = image + (h * s.W + w) * s.C;
#pragma GCC ivdep
                        for (std::int64_t c = 0; c < s.C; ++c) mean[c] += widen(pixel[c]);
                    }
                }
                const Sum<T> count = Sum<T>(rows.size() * columns.size());
                for (std::int64_t c = 0; c < s.C; ++c) mean[c] /= count;
                keep(mean, result, s.C);
            }
        }
    });
}

template <typename T>
void adaptive_avg_pool2d_backward(const T* dy, T* dx, const ImageShape& s, std::int64_t OH,
                                  std::int64_t OW) {
    parallel_for(0, s.N * s.H, items_per_piece(s.W * s.C), [=](std::int64_t first, std::int64_t last) {
        for (std::int64_t row = first; row < last; ++row) {
            const T* upstream = dy + row / s.H * OH * OW * s.C;
            const Region down = regions_around(row % s.H, s.H, OH);
            for (std::int64_t w = 0; w < s.W; ++w) {
                Scratch scratch;
                T* result = dx + (row * s.W + w) * s.C;
                Sum<T>* pixel = sums_of(result, s.C, scratch);
                std::fill(pixel, pixel + s.C, Sum<T>(0));
                const Region across = regions_around(w, s.W, OW);
                for (std::int64_t oh = down.first; oh < down.last; ++oh) {
                    for (std::int64_t ow = across.first; ow < across.last; ++ow) {
                        const Sum<T> count =
                            Sum<T>(region(oh, s.H, OH).size() * region(ow, s.W, OW).size());
                        const T* g = upstream + (oh * OW + ow) * s.C;
#pragma GCC ivdep
                        for (std::int64_t c = 0; c < s.C; ++c) pixel[c] += widen(g[c]) / count;
                    }
                }
                keep(pixel, result, s.C);
            }
        }
    });
}

#define INSTANTIATE(T)                                                                       \
    template void adaptive_avg_pool2d_forward(const T*, T*, const ImageShape&, std::int64_t, \
                                              std::int64_t);                                 \
    template void adaptive_avg_pool2d_backward(const T*, T*, const ImageShape&, std::int64_t, std::int64_t)
INSTANTIATE(float);
INSTANTIATE(double);
INSTANTIATE(bfloat16);

}  // namespace minicnn
