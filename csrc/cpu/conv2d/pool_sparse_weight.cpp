// The gradient to the filters over a max-pool's winners.  For each filter its winners are listed with
// their gradients; its gradient is the sum of the pieces of x that the winners read, times their
// gradients.
// Fused: max-pool, ReLU and convolution backward; padding into the copy of x.
#include "../core/batch_split.h"
#include "../core/parallel.h"
#include "../core/scratch.h"
#include "pool_sparse.h"
#include "pooled_geometry.h"
#include "window.h"

namespace minicnn {
namespace {

template <typename T>
class SparseWeight {
  public:
    SparseWeight(const PooledGeometry<T>& g, const T* dy, const uint8_t* winner, const T* x,
                 Scratch& scratch)
        : g_(g),
          dy_(dy),
          winner_(winner),
          x_(x),
          rows_(band_rows(g)),
          per_image_((g.pool.OH + rows_ - 1) / rows_),
          size_(g.p.F * filter_size()),
          split_(g.p.N * per_image_, g.p.F, size_ * static_cast<int64_t>(sizeof(T))) {
        partials_ = scratch.take<T>(split_.chunks * (size_ + g.p.F));
        for (int64_t i = 0; i < g.pool.KH * g.pool.KW; ++i) cells_[i] = static_cast<int32_t>(g.cell(i));
        patch_step_ = static_cast<int32_t>(g.patch(0, 1, 0) - g.patch(0, 0, 0));
    }

    void run(T* dw, T* db) const {
        const int64_t tasks = split_.chunks * split_.parts;
        const double flops = dw ? g_.flops() : 1.0 * g_.p.N * g_.pool.OH * g_.pool.OW * g_.p.F;
        parallel_for(0, tasks, grain_for(flops / static_cast<double>(tasks)),
                     [&](int64_t first, int64_t last) {
                         for (int64_t task = first; task < last; ++task)
                             sum(task / split_.parts, task % split_.parts, dw != nullptr);
                     });
        const int64_t grain = std::max<int64_t>(1, 65536 / (filter_size() * split_.chunks));
        parallel_for(0, g_.p.F, grain, [&](int64_t first, int64_t last) {
            for (int64_t f = first; f < last; ++f) add_chunks(f, dw, db);
        });
    }

  private:
    static constexpr int together = 8;  // so many filters are listed in one pass over the winners

    // A band has so few rows that its part of x, which is read again for each filter, stays in the
    // first-level cache.
    static int64_t band_rows(const PooledGeometry<T>& g) {
        constexpr int64_t cache_bytes = 24 << 10;
        const int64_t halo = g.row_stride() * (g.p.KH - 1) * g.p.dil_h * static_cast<int64_t>(sizeof(T));
        return std::clamp<int64_t>((cache_bytes - halo) / g.bytes_per_pooled_row(), 1, g.pool.OH);
    }
    int64_t filter_size() const { return g_.runs.count * g_.pieces.padded; }
    T* partial(int64_t chunk) const { return partials_ + chunk * size_; }
    T* bias_partial(int64_t chunk) const { return partials_ + split_.chunks * size_ + chunk * g_.p.F; }

    void sum(int64_t chunk, int64_t part, bool need_dw) const {
        const int64_t f0 = split_.first_block(part), f1 = split_.first_block(part + 1);
        if (need_dw) std::fill_n(partial(chunk) + f0 * filter_size(), (f1 - f0) * filter_size(), T(0));
        std::fill(bias_partial(chunk) + f0, bias_partial(chunk) + f1, T(0));
        Scratch own;
        Entry<T>* lists = own.take<Entry<T>>(together * rows_ * g_.pool.OW + 1);
        for (int64_t unit = split_.first_unit(chunk); unit < split_.first_unit(chunk + 1); ++unit) {
            const int64_t n = unit / per_image_, r0 = unit % per_image_ * rows_;
            const int64_t r1 = std::min(r0 + rows_, g_.pool.OH), h0 = g_.conv_rows(r0, r1).first;
            add_bias(n, r0, r1, f0, f1, bias_partial(chunk));
            if (!need_dw) continue;
            Scratch band;
            const T* x = x_band(n, r0, r1, band);
            int64_t f = f0;
            for (; f + together <= f1; f += together) {
                add_filters<together>(n, r0, r1, h0, f, x, lists, partial(chunk));
            }
            for (; f < f1; ++f) add_filters<1>(n, r0, r1, h0, f, x, lists, partial(chunk));
        }
    }

    // Adds a band to the sums of the filters f ... f + M - 1.
    template <int M>
    void add_filters(int64_t n, int64_t r0, int64_t r1, int64_t h0, int64_t f, const T* x, Entry<T>* lists,
                     T* sums) const {
        const int64_t capacity = rows_ * g_.pool.OW;
        int64_t counts[M] = {};
        list_winners<M>(n, r0, r1, h0, f, lists, counts);
        for (int i = 0; i < M; ++i) {
            for (const auto& piece : g_.all_pieces) {
                const T* source = x + (f + i) / g_.Fg * g_.Cg + piece.in_image;
                T* sum = sums + (f + i) * filter_size() + piece.in_filter;
                piece.kernel(lists + i * capacity, counts[i],
                             {source, g_.image_run_stride(), sum, g_.pieces.padded, piece.tail});
            }
        }
    }

    // Adds the gradients of `pixels` pixels to the sums of NV vectors of filters.
    template <int NV>
    void add_bias_of(const T* dy, const uint8_t* winner, int64_t pixels, T* sum) const {
        constexpr int L = lanes<T>;
        using Place = decltype(Vec<T, L>{} < Vec<T, L>{});
        Vec<T, L> acc[NV];
        unroll<NV>([&](auto v) __attribute__((always_inline)) { acc[v] = load<L>(sum + v * L); });
        for (int64_t i = 0; i < pixels; ++i, dy += g_.p.F, winner += g_.p.F) {
            unroll<NV>([&](auto v) __attribute__((always_inline)) {
                Place place;
                convert_numbers<L>(load<L>(winner + v * L), place);
                acc[v] += place == relu_off ? Vec<T, L>{} : load<L>(dy + v * L);
            });
        }
        unroll<NV>([&](auto v) __attribute__((always_inline)) { store(sum + v * L, acc[v]); });
    }

    void add_bias(int64_t n, int64_t r0, int64_t r1, int64_t f0, int64_t f1, T* sum) const {
        constexpr int L = lanes<T>;
        const int64_t F = g_.p.F, first = (n * g_.pool.OH + r0) * g_.pool.OW * F,
                      pixels = (r1 - r0) * g_.pool.OW;
        const uint8_t* winner = winner_ + first;
        const T* dy = dy_ + first;
        int64_t f = f0;
        // Several vectors at once, so that whole stretches of memory are read.
        for (; f + 4 * L <= f1; f += 4 * L) add_bias_of<4>(dy + f, winner + f, pixels, sum + f);
        for (; f + 2 * L <= f1; f += 2 * L) add_bias_of<2>(dy + f, winner + f, pixels, sum + f);
        for (; f + L <= f1; f += L) add_bias_of<1>(dy + f, winner + f, pixels, sum + f);
        for (; f < f1; ++f) {
            T acc = sum[f];
            for (int64_t at = f; at < pixels * F; at += F) {
                const T choice[2] = {dy[at],
                                     T(0)};  // an index, because a branch on it could not be predicted
                acc += choice[winner[at] == relu_off];
            }
            sum[f] = acc;
        }
    }

    const T* x_band(int64_t n, int64_t r0, int64_t r1, Scratch& own) const {
        const ConvParams& p = g_.p;
        const auto [first, last] = g_.conv_rows(r0, r1);
        const int64_t h0 = g_.h.begin(first), h1 = g_.h.end(last - 1);
        T* copy = own.take<T>((h1 - h0) * g_.row_stride());
        copy_window<T>(x_ + n * p.H * p.W * p.C, nullptr, p.H, p.W, p.C, h0, h1, g_.w0, g_.w0 + g_.width,
                       copy);
        return copy;
    }

    // Lists for each of M filters the gradients that are not zero, and where in the band the patch of x
    // lies that the winner read.
    template <int M>
    void list_winners(int64_t n, int64_t r0, int64_t r1, int64_t h0, int64_t f, Entry<T>* lists,
                      int64_t (&counts)[M]) const {
        const int64_t capacity = rows_ * g_.pool.OW;
        for (int64_t r = r0; r < r1; ++r) {
            int64_t at = (n * g_.pool.OH + r) * g_.pool.OW * g_.p.F + f;
            int32_t patch = static_cast<int32_t>(g_.patch(r, 0, h0));
            for (int64_t c = 0; c < g_.pool.OW; ++c, at += g_.p.F, patch += patch_step_) {
                uint8_t place[M];
                T value[M];
                std::memcpy(place, winner_ + at, sizeof place);
                std::memcpy(value, dy_ + at, sizeof value);
                unroll<M>([&](auto i) __attribute__((always_inline)) {
                    lists[i * capacity + counts[i]] = {value[i], patch + cells_[place[i]]};
                    // written in any case and counted only if it matters: no branch, which could not be
                    // predicted
                    const bool counts_too = (place[i] != relu_off) & (value[i] != 0);
                    counts[i] += counts_too;
                });
            }
        }
    }

    void add_chunks(int64_t f, T* dw, T* db) const {
        if (db) {
            db[f] = bias_partial(0)[f];
            for (int64_t chunk = 1; chunk < split_.chunks; ++chunk) db[f] += bias_partial(chunk)[f];
        }
        if (!dw) return;
        for (int64_t run = 0; run < g_.runs.count; ++run) {
            T* to = dw + (f * g_.runs.count + run) * g_.runs.length;
            const T* from = partials_ + f * filter_size() + run * g_.pieces.padded;
            std::copy_n(from, g_.runs.length, to);
            for (int64_t chunk = 1; chunk < split_.chunks; ++chunk) {
                const T* more = from + chunk * size_;
                for (int64_t i = 0; i < g_.runs.length; ++i) to[i] += more[i];
            }
        }
    }

    const PooledGeometry<T>& g_;
    const T* dy_;
    const uint8_t* winner_;
    const T* x_;
    int64_t rows_, per_image_, size_;
    BatchSplit split_;
    T* partials_;
    int32_t cells_[256] =
        {};               // how far the patch under each cell of a window lies from that under the first
    int32_t patch_step_;  // how far a patch lies from that of the pooled column before
};

}  // namespace

template <typename T>
void sparse_weight(const T* dy, const uint8_t* winner, const T* x, T* dw, T* db, const ConvParams& p,
                   const PoolParams& pool) {
    const PooledGeometry<T> geometry(p, pool);
    Scratch scratch;
    SparseWeight<T>(geometry, dy, winner, x, scratch).run(dw, db);
}

#define INSTANTIATE(T)                                                                         \
    template void sparse_weight(const T*, const uint8_t*, const T*, T*, T*, const ConvParams&, \
                                const PoolParams&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
