// Copying a part of an image, row by row.
#include "window.h"

#include <algorithm>

namespace minicnn {

template <typename T>
void copy_window(const T* image, const T* mask, int64_t H, int64_t W, int64_t C, int64_t h0, int64_t h1,
                 int64_t w0, int64_t w1, T* out) {
    const int64_t width = (w1 - w0) * C, from = std::clamp<int64_t>(-w0, 0, w1 - w0) * C;
    const int64_t to = std::max(std::clamp<int64_t>(W - w0, 0, w1 - w0) * C, from);
    for (int64_t h = h0; h < h1; ++h, out += width) {
        if (h < 0 || h >= H) {
            std::fill(out, out + width, T(0));
            continue;
        }
        const T* row = image + (h * W + w0) * C;
        std::fill(out, out + from, T(0));
        if (mask) {
            const T* m = mask + (h * W + w0) * C;
            for (int64_t i = from; i < to; ++i) out[i] = m[i] <= 0 ? T(0) : row[i];
        } else {
            std::copy(row + from, row + to, out + from);
        }
        std::fill(out + to, out + width, T(0));
    }
}

#define INSTANTIATE(T)                                                                                  \
    template void copy_window(const T*, const T*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, \
                              int64_t, T*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
