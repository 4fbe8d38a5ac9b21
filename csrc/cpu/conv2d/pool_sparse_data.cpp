// The gradient to the input over a max-pool's winners.  Each cell of a window that is the winner of some
// filters adds these filters, times their gradients, to the pixels that it read.
// Fused: max-pool, ReLU and convolution backward.
#include "../core/parallel.h"
#include "../core/scratch.h"
#include "correlation.h"
#include "pool_sparse.h"
#include "pooled_geometry.h"

namespace minicnn {
namespace {

template <typename T>
class SparseData {
  public:
    SparseData(const PooledGeometry<T>& g, const T* dy, const uint8_t* winner, const T* weight,
               Scratch& scratch)
        : g_(g), dy_(dy), winner_(winner), cells_(g.pool.KH * g.pool.KW) {
        T* packed = scratch.take<T>(g.p.F * filter_size());
        const int64_t rows = g.p.F * g.runs.count, padded = g.pieces.padded, length = g.runs.length;
        for (int64_t i = 0; i < rows; ++i) {
            std::copy_n(weight + i * length, length, packed + i * padded);
            std::fill(packed + i * padded + length, packed + (i + 1) * padded, T(0));
        }
        packed_ = packed;
    }

    void run(T* dx) const {
        const ConvParams& p = g_.p;
        const Bands bands(p.N, p.H, 1, g_.row_stride() * static_cast<int64_t>(sizeof(T)),
                          g_.flops() / static_cast<double>(std::max<int64_t>(1, p.N * p.H)));
        const double flops = g_.flops() / static_cast<double>(std::max<int64_t>(1, p.N * bands.per_image));
        parallel_for(0, p.N * bands.per_image, grain_for(flops), [&](int64_t first, int64_t last) {
            for (int64_t task = first; task < last; ++task) {
                const int64_t r0 = task % bands.per_image * bands.rows;
                band(task / bands.per_image, r0, std::min(r0 + bands.rows, p.H), dx);
            }
        });
    }

  private:
    int64_t filter_size() const { return g_.runs.count * g_.pieces.padded; }

    // The pooled rows whose winners may have read the rows [h0, h1) of the image.
    std::pair<int64_t, int64_t> pooled_rows(int64_t h0, int64_t h1) const {
        int64_t first = 0, last = g_.pool.OH;
        while (first < last && g_.h.end(g_.conv_rows(first, first + 1).second - 1) <= h0) ++first;
        while (last > first && g_.h.begin(g_.conv_rows(last - 1, last).first) >= h1) --last;
        return {first, last};
    }

    // Computes the rows [h0, h1) of one image of dx, in a padded map to which all windows that reach them
    // add.
    void band(int64_t n, int64_t h0, int64_t h1, T* dx) const {
        const ConvParams& p = g_.p;
        const auto [r0, r1] = pooled_rows(h0, h1);
        const auto [first, last] = r0 < r1 ? g_.conv_rows(r0, r1) : std::pair<int64_t, int64_t>{0, 0};
        const int64_t top = std::min(h0, g_.h.begin(first)),
                      bottom = r0 < r1 ? std::max(h1, g_.h.end(last - 1)) : h1;
        Scratch own;
        T* map = own.take<T>((bottom - top + 1) * g_.row_stride() + p.W * p.C);
        std::fill_n(map, (bottom - top) * g_.row_stride(), T(0));
        if (r0 < r1) add_windows(n, r0, r1, first, map + (g_.h.begin(first) - top) * g_.row_stride());
        const int64_t columns = std::clamp<int64_t>(g_.width + g_.w0, 0, p.W);
        for (int64_t h = h0; h < h1; ++h) {
            T* row = dx + (n * p.H + h) * p.W * p.C;
            const T* from = map + ((h - top) * g_.width - g_.w0) * p.C;
            std::copy_n(from, columns * p.C, row);
            std::fill(row + columns * p.C, row + p.W * p.C, T(0));
        }
    }

    void add_windows(int64_t n, int64_t r0, int64_t r1, int64_t first, T* map) const {
        const int64_t pixels = (r1 - r0) * g_.pool.OW, groups = cells_ * g_.p.groups;
        Scratch own;
        Entry<T>* entries = own.take<Entry<T>>(pixels * g_.p.F + groups * g_.Fg);
        int64_t* starts = own.take<int64_t>(pixels * groups + 1);
        list_filters(n, r0, r1, entries, starts);
        for (const auto& piece : g_.all_pieces) {
            const T* source = packed_ + piece.in_filter;
            const int64_t* start = starts;
            for (int64_t i = 0; i < pixels; ++i) {
                const int64_t patch = g_.patch(r0 + i / g_.pool.OW, i % g_.pool.OW, first) + piece.in_image;
                for (int64_t q = 0; q < groups; ++q, ++start) {
                    if (start[0] == start[1]) continue;
                    T* sum = map + patch + g_.cell(q / g_.p.groups) + q % g_.p.groups * g_.Cg;
                    piece.kernel(entries + start[0], start[1] - start[0],
                                 {source, g_.pieces.padded, sum, g_.image_run_stride(), piece.tail});
                }
            }
        }
    }

    // Lists for each pooled pixel, cell of its window and group the filters whose winner is in that cell,
    // with their gradients.  The list of number i is entries[starts[i]] ... entries[starts[i + 1] - 1].
    void list_filters(int64_t n, int64_t r0, int64_t r1, Entry<T>* entries, int64_t* starts) const {
        const int64_t pixels = (r1 - r0) * g_.pool.OW, F = g_.p.F, groups = cells_ * g_.p.groups;
        const T* dy = dy_ + (n * g_.pool.OH + r0) * g_.pool.OW * F;
        const uint8_t* winner = winner_ + (n * g_.pool.OH + r0) * g_.pool.OW * F;
        Entry<T>* sorted = entries + pixels * F;
        int64_t total = 0;
        for (int64_t i = 0; i < pixels; ++i, dy += F, winner += F) {
            int64_t counts[256] = {};
            for (int64_t q = 0, f0 = 0; f0 < F; f0 += g_.Fg, ++q) {
                std::fill_n(counts, cells_, 0);
                for (int64_t f = f0; f < f0 + g_.Fg; ++f) {
                    if (winner[f] >= cells_ || dy[f] == 0)
                        continue;  // no cell won where ReLU switched the value off
                    sorted[(winner[f] * g_.p.groups + q) * g_.Fg + counts[winner[f]]++] = {
                        dy[f], static_cast<int32_t>(f * filter_size())};
                }
                for (int64_t cell = 0; cell < cells_; ++cell) starts[cell * g_.p.groups + q] = counts[cell];
            }
            for (int64_t q = 0; q < groups; ++q) {
                const int64_t count = starts[q];
                std::copy_n(sorted + q * g_.Fg, count, entries + total);
                starts[q] = total;
                total += count;
            }
            starts += groups;
        }
        *starts = total;
    }

    const PooledGeometry<T>& g_;
    const T* dy_;
    const uint8_t* winner_;
    int64_t cells_;
    const T* packed_;
};

}  // namespace

template <typename T>
void sparse_data(const T* dy, const uint8_t* winner, const T* weight, T* dx, const ConvParams& p,
                 const PoolParams& pool) {
    const PooledGeometry<T> geometry(p, pool);
    Scratch scratch;
    SparseData<T>(geometry, dy, winner, weight, scratch).run(dx);
}

#define INSTANTIATE(T) \
    template void sparse_data(const T*, const uint8_t*, const T*, T*, const ConvParams&, const PoolParams&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
