// The windows of a max-pool: which cell of a window wins, and which windows a pixel has won.  Max-pooling
// itself and batch norm with a max-pool share it.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "../ops.h"
#include "core/elementwise.h"
#include "core/row_of_sums.h"
#include "core/simd.h"

namespace minicnn {

// The cells [first, last) of a window along one axis that lie in the image.  `start` is the place of cell
// 0, which may lie in the padding.
struct Cells {
    std::int64_t start, first, last;
};

inline Cells cells_inside(std::int64_t out, std::int64_t stride, std::int64_t pad, std::int64_t dilation,
                          std::int64_t kernel, std::int64_t size) {
    const std::int64_t start = out * stride - pad;
    const std::int64_t first = start < 0 ? (-start + dilation - 1) / dilation : 0;
    const std::int64_t last = start < size ? std::min(kernel, (size - 1 - start) / dilation + 1) : 0;
    return {start, first, last};
}

// The maximum of a window at the channels [c, c + L).  Of equal cells the first wins, of several NaN the
// last; over a window without cells y is -inf.
// value(lanes, offset, c) gives the values at those channels of the pixel at this offset; finish(maxima)
// is what is stored of them.  Without `places` no winner is noted.
template <int L, bool places, typename T, typename Index, typename Value, typename Finish>
MINICNN_INLINE void max_of_lanes(const Value& value, const Finish& finish, T* y, Index* argmax,
                                 const ImageShape& s, const PoolParams& p, std::int64_t image,
                                 const Cells& rows, const Cells& columns, std::int64_t c) {
    // The number of a winner is kept in a lane as wide as the value or the index, whichever is wider.
    using Values = Vec<Sum<T>, L>;
    using Number = std::conditional_t<sizeof(Index) == 8 || sizeof(T) == 8, std::int64_t, std::int32_t>;
    Values best = Values{} - std::numeric_limits<Sum<T>>::infinity();
    Vec<Number, L> winner = Vec<Number, L>{} + Number(rows.first * p.KW + columns.first);
    // Step 1: go through the cells of each window.
    for (std::int64_t u = rows.first; u < rows.last; ++u) {
        const std::int64_t row = image + (rows.start + u * p.dil_h) * s.W;
        for (std::int64_t v = columns.first; v < columns.last; ++v) {
            const std::int64_t offset = (row + columns.start + v * p.dil_w) * s.C;
            const Values x = value(std::integral_constant<int, L>{}, offset, c);
            // Step 2: keep the largest value and the number of its cell.
            const auto wins = (x > best) | (x != x);
            best = wins ? x : best;
            if constexpr (places) {
                const Vec<Number, L> number = Vec<Number, L>{} + Number(u * p.KW + v);
                winner = __builtin_convertvector(wins, Vec<Number, L>) ? number : winner;
            }
        }
    }
    store_narrow<L>(y + c, Values(finish(best)));
    if constexpr (places) {
        Vec<Index, L> number;
        convert_numbers<L>(winner, number);
        store(argmax + c, number);
    }
}

// All channels of a window in vectors of L lanes, of which the last may overlap the one before.  Where
// there are fewer than L channels, narrower vectors serve.
template <int L, bool places, typename T, typename Index, typename Value, typename Finish>
void max_of_window(const Value& value, const Finish& finish, T* y, Index* argmax, const ImageShape& s,
                   const PoolParams& p, std::int64_t image, const Cells& rows, const Cells& columns) {
    if constexpr (L > 1) {
        if (s.C < L)
            return max_of_window<L / 2, places>(value, finish, y, argmax, s, p, image, rows, columns);
    }
    for (std::int64_t c = 0; c < s.C; c += L) {
        max_of_lanes<L, places>(value, finish, y, argmax, s, p, image, rows, columns, std::min(c, s.C - L));
    }
}

// Calls f(item, rows) for each row of windows, counted over all images, with the rows of their cells.
template <Denormals denormals, typename F>
void for_each_row_of_windows(const ImageShape& s, const PoolParams& p, const F& f) {
    const std::int64_t grain = items_per_piece(p.OW * s.C * std::min(p.KH * p.KW, s.H * s.W));
    parallel_for<denormals>(0, s.N * p.OH, grain, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t item = first; item < last; ++item) {
            f(item, cells_inside(item % p.OH, p.stride_h, p.pad_h, p.dil_h, p.KH, s.H));
        }
    });
}

// One row of windows.  Arguments as in max_of_lanes; y and argmax are those of the row.
template <bool places, typename T, typename Index, typename Value, typename Finish>
void max_pool_row(const Value& value, const Finish& finish, T* y, Index* argmax, const ImageShape& s,
                  const PoolParams& p, std::int64_t image, const Cells& rows) {
    for (std::int64_t ow = 0; ow < p.OW; ++ow) {
        const Cells columns = cells_inside(ow, p.stride_w, p.pad_w, p.dil_w, p.KW, s.W);
        max_of_window<lanes<Sum<T>>, places>(
            value, finish, y + ow * s.C, places ? argmax + ow * s.C : nullptr, s, p, image, rows, columns);
    }
}

// Max-pooling of an image that exists only as the function `value`: batch norm's output, for example,
// which is computed while it is pooled.  Denormal values are kept where none is computed.  Arguments as in
// max_of_lanes; argmax is optional.
template <Denormals denormals, typename T, typename Index, typename Value, typename Finish>
void max_pool(const Value& value, const Finish& finish, T* y, Index* argmax, const ImageShape& s,
              const PoolParams& p) {
    for_each_row_of_windows<denormals>(s, p, [&](std::int64_t item, const Cells& rows) {
        const std::int64_t image = item / p.OH * s.H * s.W, at = item * p.OW * s.C;
        if (argmax) {
            max_pool_row<true>(value, finish, y + at, argmax + at, s, p, image, rows);
        } else {
            max_pool_row<false>(value, finish, y + at, argmax, s, p, image, rows);
        }
    });
}

// The windows [first, last) along one axis whose span holds a place.  With a dilation the place may lie
// between the cells of a window: then the window does not contain it.
struct Windows {
    std::int64_t first, last;
};

inline Windows windows_around(std::int64_t at, std::int64_t stride, std::int64_t pad, std::int64_t dilation,
                              std::int64_t kernel, std::int64_t out) {
    const std::int64_t reach = dilation * (kernel - 1), place = at + pad;
    const std::int64_t first = place > reach ? (place - reach + stride - 1) / stride : 0;
    return {first, std::min(out, place / stride + 1)};
}

// Row h of image n of dx: every pixel collects the gradients of the windows that it won, from the last
// window to the first.  gradient(i) is the pooled gradient at element i.
template <typename T, typename Index, typename Gradient>
void max_pool_dx_row(const Gradient& gradient, const Index* argmax, T* dx, std::int64_t n, std::int64_t h,
                     const ImageShape& s, const PoolParams& p) {
    Scratch scratch;
    Sum<T>* sums = sums_of(dx, s.W * s.C, scratch);
    std::fill(sums, sums + s.W * s.C, Sum<T>(0));
    const Windows rows = windows_around(h, p.stride_h, p.pad_h, p.dil_h, p.KH, p.OH);
    for (std::int64_t w = 0; w < s.W; ++w) {
        const Windows columns = windows_around(w, p.stride_w, p.pad_w, p.dil_w, p.KW, p.OW);
        Sum<T>* pixel = sums + w * s.C;
        for (std::int64_t oh = rows.last - 1; oh >= rows.first; --oh) {
            const std::int64_t u = h + p.pad_h - oh * p.stride_h;
            if (p.dil_h != 1 && u % p.dil_h) continue;
            for (std::int64_t ow = columns.last - 1; ow >= columns.first; --ow) {
                const std::int64_t v = w + p.pad_w - ow * p.stride_w;
                if (p.dil_w != 1 && v % p.dil_w) continue;
                const std::int64_t at = ((n * p.OH + oh) * p.OW + ow) * s.C;
                const Index number = Index(u / p.dil_h * p.KW + v / p.dil_w);
#pragma GCC ivdep
                for (std::int64_t c = 0; c < s.C; ++c) {
                    // Step 3: give each gradient to the pixel that won.
                    // read whether it won or not, so that the compiler can make vectors of the loop
                    const Sum<T> passed = widen(gradient(at + c));
                    pixel[c] += argmax[at + c] == number ? passed : Sum<T>(0);
                }
            }
        }
    }
    keep(sums, dx, s.W * s.C);
}

}  // namespace minicnn
