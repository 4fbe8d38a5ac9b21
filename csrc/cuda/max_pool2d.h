// The maximum of a window over values that a functor computes, and the gradient of a pixel from the windows
// that it won.
#pragma once

#include <cmath>

#include "core/windows.h"

namespace minicnn::cuda {

// The maxima of a window in V neighbouring channels, and the numbers of the cells that won.
template <typename S, int V>
struct Maxima {
    Vector<S, V> best;
    int winner[V];
};

// The first of equal cells wins, and the last of several NaN.  value(i) gives V values from element i on.
template <typename S, int V, typename Value>
__device__ __forceinline__ Maxima<S, V> maxima_of_window(const Value& value, const Pool& pool,
                                                         const Pixel& window, int c) {
    const Cells rows = pool.down.cells(window.h), columns = pool.across.cells(window.w);
    Maxima<S, V> found;
#pragma unroll
    for (int k = 0; k < V; ++k) {
        found.best.v[k] = -S(INFINITY);
        found.winner[k] = rows.first * pool.across.kernel() + columns.first;
    }
    // Step 1: go through the cells of each window.
    for (int u = rows.first; u < rows.last; ++u) {
        for (int v = columns.first; v < columns.last; ++v) {
            const Vector<S, V> x = value(
                pool.input(window.n, pool.down.place(window.h, u), pool.across.place(window.w, v)) + c);
            const int cell = u * pool.across.kernel() + v;
            // Step 2: keep the largest value and the number of its cell.
#pragma unroll
            for (int k = 0; k < V; ++k) {
                if (x.v[k] > found.best.v[k] || x.v[k] != x.v[k]) {
                    found.best.v[k] = x.v[k];
                    found.winner[k] = cell;
                }
            }
        }
    }
    return found;
}

template <typename Index, typename S, int V>
__device__ __forceinline__ void store_winners(Index* argmax, const Maxima<S, V>& found) {
    Vector<Index, V> winners;
#pragma unroll
    for (int k = 0; k < V; ++k) winners.v[k] = Index(found.winner[k]);
    store(argmax, winners);
}

// The gradients of V neighbouring channels of a pixel before the pool: for each, the sum of the gradients
// of the windows that it won, from the last to the first.  gradient(j) gives V gradients from element j of
// the windows on.
template <typename S, int V, typename Index, typename Gradient>
__device__ __forceinline__ Vector<S, V> gradient_of_pixel(const Gradient& gradient, const Index* argmax,
                                                          const Pool& pool, const Pixel& at, int c) {
    const Windows rows = pool.down.windows_around(at.h), columns = pool.across.windows_around(at.w);
    Vector<S, V> sum{};
    for (int oh = rows.last - 1; oh >= rows.first; --oh) {
        const int u = pool.down.cell_at(oh, at.h);
        if (u < 0) continue;
        for (int ow = columns.last - 1; ow >= columns.first; --ow) {
            const int v = pool.across.cell_at(ow, at.w);
            if (v < 0) continue;
            const std::int64_t j = pool.output(at.n, oh, ow) + c;
            const Index cell = Index(u * pool.across.kernel() + v);
            const Vector<Index, V> winner = load<V>(argmax + j);
            const Vector<S, V> more = gradient(j);
            // Step 3: give each gradient to the pixel that won.
#pragma unroll
            for (int k = 0; k < V; ++k) {
                if (winner.v[k] == cell) sum.v[k] += more.v[k];
            }
        }
    }
    return sum;
}

// Whether the winners can be loaded and stored as vectors.
template <typename T, typename Index>
bool aligned_winners(const Index* argmax) {
    return reinterpret_cast<std::uintptr_t>(argmax) % sizeof(Vector<Index, full_width<T>>) == 0;
}

}  // namespace minicnn::cuda
