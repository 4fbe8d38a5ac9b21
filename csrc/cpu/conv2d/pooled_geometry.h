// What both gradients over winners share: where the winner of a pooled value lies in a padded image, and
// how a filter is cut into pieces for the kernels of sparse_sum.h.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "sparse_sum.h"
#include "taps.h"

namespace minicnn {

// A filter as runs, which are contiguous in a channels-last image too: each row of taps is one run of
// KW*C values, or where taps or channels lie apart each tap is one.
struct Runs {
    int64_t count, length, per_row, row_step, col_step;  // steps in rows and columns of the image
    explicit Runs(const ConvParams& p) {
        const bool joined = p.dil_w == 1 && p.groups == 1;
        per_row = joined ? 1 : p.KW;
        count = p.KH * per_row;
        length = p.C / p.groups * (joined ? p.KW : 1);
        row_step = p.dil_h;
        col_step = p.dil_w;
    }
};

// The image padded as the convolution pads it, the pool's windows in it, and the pieces of a filter.
template <typename T>
struct PooledGeometry {
    const ConvParams& p;
    const PoolParams& pool;
    Taps h, w;
    int64_t w0, width, Cg, Fg;
    Runs runs;
    SparsePieces<T> pieces;

    // A piece of a filter: where it begins in the packed filter and in the image, how many lanes of its
    // last vector count, and the kernel for its shape.
    struct FilterPiece {
        int64_t in_filter, in_image;
        int tail;
        SparseKernel<T> kernel;
    };
    std::vector<FilterPiece> all_pieces;

    PooledGeometry(const ConvParams& p, const PoolParams& pool)
        : p(p),
          pool(pool),
          h(taps_down(p)),
          w(taps_across(p)),
          w0(w.begin(0)),
          width(w.end(p.OW - 1) - w0),
          Cg(p.C / p.groups),
          Fg(p.F / p.groups),
          runs(p),
          pieces(runs.per_row == 1 ? runs.count : 1, runs.length) {
        const int64_t joined = runs.per_row == 1 ? runs.count : 1;
        for (int64_t first = 0; first < runs.count; first += joined) {
            pieces.for_each(joined, [&](int64_t r, int64_t element, int tail, SparseKernel<T> kernel) {
                const int64_t run = first + r, row = run / runs.per_row * runs.row_step;
                const int64_t col = run % runs.per_row * runs.col_step;
                all_pieces.push_back(
                    {run * pieces.padded + element, (row * width + col) * p.C + element, tail, kernel});
            });
        }
    }

    int64_t row_stride() const { return width * p.C; }
    int64_t bytes_per_pooled_row() const {
        return pool.stride_h * p.stride_h * row_stride() * static_cast<int64_t>(sizeof(T));
    }
    double flops() const { return 2.0 * p.N * pool.OH * pool.OW * p.F * p.KH * p.KW * Cg; }

    // The rows [first, second) of the convolution's map that the pooled rows [r0, r1) look at.
    std::pair<int64_t, int64_t> conv_rows(int64_t r0, int64_t r1) const {
        const int64_t first = r0 * pool.stride_h - pool.pad_h;
        const int64_t last = (r1 - 1) * pool.stride_h - pool.pad_h + (pool.KH - 1) * pool.dil_h;
        return {std::clamp<int64_t>(first, 0, p.OH - 1), std::clamp<int64_t>(last, 0, p.OH - 1) + 1};
    }

    // Where the patch under cell 0 of the pooled value (r, c) begins, in a padded image whose first row
    // serves row h0 of the map.
    int64_t patch(int64_t r, int64_t c, int64_t h0) const {
        return ((r * pool.stride_h - pool.pad_h - h0) * p.stride_h * width +
                (c * pool.stride_w - pool.pad_w) * p.stride_w) *
               p.C;
    }
    // How far the patch under another cell of the window lies from that.
    int64_t cell(int64_t place) const {
        return (place / pool.KW * pool.dil_h * p.stride_h * width +
                place % pool.KW * pool.dil_w * p.stride_w) *
               p.C;
    }

    int64_t image_run_stride() const { return runs.row_step * row_stride(); }
};

}  // namespace minicnn
