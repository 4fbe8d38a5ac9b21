// Max-pool over values that a functor computes, and the gradient of a pixel from the windows that it won.
#pragma once

#include <cmath>

#include "core/windows.h"

namespace minicnn::cuda {

// y = the maximum of `value` over each window, and then ReLU if `relu_after`.  The first of equal cells
// wins, and the last of several NaN.  value.at<V>(i, c) gives V values from element i on, whose channel is
// c.
template <typename T, typename Index, typename Value, bool relu_after>
struct MaxPool {
    Value value;
    T* y;
    Index* argmax;  // or nullptr
    ImageShape s;
    PoolParams p;

    template <int V>
    __device__ void at(std::int64_t i) const {
        const Place out = place_of(i, p.OH, p.OW, s.C);
        const Cells rows = rows_inside(out.h, p, s), columns = columns_inside(out.w, p, s);
        Vector<T, V> best;
        std::int64_t winner[V];
        for (int k = 0; k < V; ++k) {
            best.v[k] = -T(INFINITY);
            winner[k] = rows.first * p.KW + columns.first;
        }
        // Step 1: go through the cells of each window.
        for (std::int64_t u = rows.first; u < rows.last; ++u) {
            const std::int64_t row = (out.n * s.H + rows.start + u * p.dil_h) * s.W;
            for (std::int64_t v = columns.first; v < columns.last; ++v) {
                const std::int64_t pixel = row + columns.start + v * p.dil_w;
                const Vector<T, V> x = value.template at<V>(pixel * s.C + out.c, out.c);
                // Step 2: keep the largest value and the number of its cell.
                for (int k = 0; k < V; ++k) {
                    if (x.v[k] > best.v[k] || x.v[k] != x.v[k]) {
                        best.v[k] = x.v[k];
                        winner[k] = u * p.KW + v;
                    }
                }
            }
        }
        if (relu_after) {
            for (int k = 0; k < V; ++k) best.v[k] = relu(best.v[k]);
        }
        store(y + i, best);
        if (argmax) {
            for (int k = 0; k < V; ++k) argmax[i + k] = Index(winner[k]);
        }
    }
};

// The gradient of element (n, h, w, c) of the image before the pool: the sum of the gradients of the
// windows that it won, from the last to the first.  gradient(j) is the gradient of window j.
template <typename T, typename Index, typename Gradient>
__device__ T gradient_of_pixel(const Gradient& gradient, const Index* argmax, const Place& at,
                               const ImageShape& s, const PoolParams& p) {
    const Windows rows = windows_around(at.h, p.stride_h, p.pad_h, p.dil_h, p.KH, p.OH);
    const Windows columns = windows_around(at.w, p.stride_w, p.pad_w, p.dil_w, p.KW, p.OW);
    T sum = 0;
    for (std::int64_t oh = rows.last - 1; oh >= rows.first; --oh) {
        const std::int64_t down = at.h + p.pad_h - oh * p.stride_h, u = divide(down, p.dil_h);
        if (u * p.dil_h != down) continue;
        for (std::int64_t ow = columns.last - 1; ow >= columns.first; --ow) {
            const std::int64_t across = at.w + p.pad_w - ow * p.stride_w, v = divide(across, p.dil_w);
            if (v * p.dil_w != across) continue;
            const std::int64_t j = ((at.n * p.OH + oh) * p.OW + ow) * s.C + at.c;
            // Step 3: give each gradient to the pixel that won.
            if (argmax[j] == Index(u * p.KW + v)) sum += gradient(j);
        }
    }
    return sum;
}

}  // namespace minicnn::cuda
