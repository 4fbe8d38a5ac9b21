// Backward of convolution + ReLU + max-pool: each pooled gradient reaches one place of its window, so
// the sums run over the winners alone: for 2x2 windows a quarter of the work of a dense backward.
// Fused: max-pool, ReLU and convolution backward; the full-size gradient never exists.
#include <vector>

#include "../core/batch_split.h"
#include "conv2d_weight.h"
#include "conv2d_winograd.h"
#include "correlation.h"
#include "sparse_sum.h"

namespace minicnn {
namespace {

// A filter's rows as contiguous runs of a channels-last image: KH runs of KW*C, or one for each tap.
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

// Geometry that both gradients share: images padded as the convolution pads them, pooled windows in them.
template <typename T>
struct Geometry {
    const ConvParams& p;
    const PoolParams& pool;
    Taps h, w;
    int64_t w0, width, Cg, Fg;
    Runs runs;
    SparsePieces<T> pieces;

    // A piece of a filter: where it begins in the packed filter and in the image, and the kernel for its
    // shape.
    struct Piece {
        int64_t in_filter, in_image;
        int tail;
        SparseKernel<T> kernel;
    };
    std::vector<Piece> all_pieces;

    Geometry(const ConvParams& p, const PoolParams& pool)
        : p(p),
          pool(pool),
          h{-p.pad_h, p.dil_h, p.KH, p.stride_h},
          w{-p.pad_w, p.dil_w, p.KW, p.stride_w},
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

    // Rows [first, second) of the convolution's output that pooled rows [r0, r1) look at.
    std::pair<int64_t, int64_t> conv_rows(int64_t r0, int64_t r1) const {
        const int64_t first = r0 * pool.stride_h - pool.pad_h;
        const int64_t last = (r1 - 1) * pool.stride_h - pool.pad_h + (pool.KH - 1) * pool.dil_h;
        return {std::clamp<int64_t>(first, 0, p.OH - 1), std::clamp<int64_t>(last, 0, p.OH - 1) + 1};
    }

    // Offset, in a padded image whose first row serves output row h0, of the patch under pooled (r, c)'s
    // cell.
    int64_t patch(int64_t r, int64_t c, int64_t h0) const {
        return ((r * pool.stride_h - pool.pad_h - h0) * p.stride_h * width +
                (c * pool.stride_w - pool.pad_w) * p.stride_w) *
               p.C;
    }
    int64_t cell(int64_t place) const {
        return (place / pool.KW * pool.dil_h * p.stride_h * width +
                place % pool.KW * pool.dil_w * p.stride_w) *
               p.C;
    }

    int64_t image_run_stride() const { return runs.row_step * row_stride(); }
};

template <typename T>
class SparseWeight {
  public:
    SparseWeight(const Geometry<T>& g, const T* dy, const uint8_t* winner, const T* x)
        : g_(g),
          dy_(dy),
          winner_(winner),
          x_(x),
          rows_(band_rows(g)),
          per_image_((g.pool.OH + rows_ - 1) / rows_),
          size_(g.p.F * filter_size()),
          split_(g.p.N * per_image_, g.p.F, size_ * static_cast<int64_t>(sizeof(T))) {
        partials_ = scratch<T>(Slot::shared_partials, split_.chunks * (size_ + g.p.F));
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
    static constexpr int together = 8;  // filters listed in one pass over the winners

    // The rows of x that a band reads again for each filter should stay in the first-level cache.
    static int64_t band_rows(const Geometry<T>& g) {
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
        Entry<T>* lists = scratch<Entry<T>>(Slot::lists, together * rows_ * g_.pool.OW + 1);
        for (int64_t unit = split_.first_unit(chunk); unit < split_.first_unit(chunk + 1); ++unit) {
            const int64_t n = unit / per_image_, r0 = unit % per_image_ * rows_;
            const int64_t r1 = std::min(r0 + rows_, g_.pool.OH), h0 = g_.conv_rows(r0, r1).first;
            add_bias(n, r0, r1, f0, f1, bias_partial(chunk));
            if (!need_dw) continue;
            const T* x = x_band(n, r0, r1);
            int64_t f = f0;
            for (; f + together <= f1; f += together) {
                add_filters<together>(n, r0, r1, h0, f, x, lists, partial(chunk));
            }
            for (; f < f1; ++f) add_filters<1>(n, r0, r1, h0, f, x, lists, partial(chunk));
        }
    }

    // Adds a band to the sums of filters f ... f + M - 1.
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

    void add_bias(int64_t n, int64_t r0, int64_t r1, int64_t f0, int64_t f1, T* sum) const {
        constexpr int L = lanes<T>;
        const int64_t F = g_.p.F, first = (n * g_.pool.OH + r0) * g_.pool.OW * F,
                      pixels = (r1 - r0) * g_.pool.OW;
        const uint8_t* winner = winner_ + first;
        const T* dy = dy_ + first;
        int64_t f = f0;
        for (; f + L <= f1; f += L) {
            using Place = decltype(Vec<T, L>{} < Vec<T, L>{});
            Vec<T, L> acc = load<L>(sum + f);
            for (int64_t at = f; at < pixels * F; at += F) {
                const Place place = __builtin_convertvector(load<L>(winner + at), Place);
                acc += place == relu_off ? Vec<T, L>{} : load<L>(dy + at);
            }
            store(sum + f, acc);
        }
        for (; f < f1; ++f) {
            T acc = sum[f];
            for (int64_t at = f; at < pixels * F; at += F) {
                const T choice[2] = {dy[at], T(0)};  // indexed, as a branch here is hard to foretell
                acc += choice[winner[at] == relu_off];
            }
            sum[f] = acc;
        }
    }

    const T* x_band(int64_t n, int64_t r0, int64_t r1) const {
        const ConvParams& p = g_.p;
        const auto [first, last] = g_.conv_rows(r0, r1);
        const int64_t h0 = g_.h.begin(first), h1 = g_.h.end(last - 1);
        T* copy = scratch<T>(Slot::image, (h1 - h0) * g_.row_stride());
        copy_window<T>(x_ + n * p.H * p.W * p.C, nullptr, p.H, p.W, p.C, h0, h1, g_.w0, g_.w0 + g_.width,
                       copy);
        return copy;
    }

    // For each of M filters, its gradients that are not zero and where in the band the winner's patch of x
    // lies.
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
                    counts[i] += int{place[i] != relu_off} & int{value[i] != 0};
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

    const Geometry<T>& g_;
    const T* dy_;
    const uint8_t* winner_;
    const T* x_;
    int64_t rows_, per_image_, size_;
    BatchSplit split_;
    T* partials_;
    int32_t cells_[256] = {}, patch_step_;  // of a place in the window; from one pooled column to the next
};

template <typename T>
class SparseData {
  public:
    SparseData(const Geometry<T>& g, const T* dy, const uint8_t* winner, const T* weight)
        : g_(g), dy_(dy), winner_(winner), cells_(g.pool.KH * g.pool.KW) {
        T* packed = scratch<T>(Slot::shared_weights, g.p.F * filter_size());
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

    // Pooled rows with a winner that may reach rows [h0, h1) of dx.
    std::pair<int64_t, int64_t> pooled_rows(int64_t h0, int64_t h1) const {
        int64_t first = 0, last = g_.pool.OH;
        while (first < last && g_.h.end(g_.conv_rows(first, first + 1).second - 1) <= h0) ++first;
        while (last > first && g_.h.begin(g_.conv_rows(last - 1, last).first) >= h1) --last;
        return {first, last};
    }

    // Rows [h0, h1) of one image of dx, through a padded map that all windows reaching them add to.
    void band(int64_t n, int64_t h0, int64_t h1, T* dx) const {
        const ConvParams& p = g_.p;
        const auto [r0, r1] = pooled_rows(h0, h1);
        const auto [first, last] = r0 < r1 ? g_.conv_rows(r0, r1) : std::pair<int64_t, int64_t>{0, 0};
        const int64_t top = std::min(h0, g_.h.begin(first)),
                      bottom = r0 < r1 ? std::max(h1, g_.h.end(last - 1)) : h1;
        T* map = scratch<T>(Slot::map, (bottom - top + 1) * g_.row_stride() + p.W * p.C);
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
        Entry<T>* entries = scratch<Entry<T>>(Slot::lists, pixels * g_.p.F + groups * g_.Fg);
        int64_t* starts = scratch<int64_t>(Slot::sums, pixels * groups + 1);
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

    // For each pooled pixel, cell of its window and group: the filters that the cell won, with gradients.
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
                    if (winner[f] >= cells_ || dy[f] == 0) continue;  // relu_off is no cell
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

    const Geometry<T>& g_;
    const T* dy_;
    const uint8_t* winner_;
    int64_t cells_;
    const T* packed_;
};

}  // namespace

template <typename T>
void conv2d_pool_backward(const T* dy, const uint8_t* winner, const T* x, const T* weight, T* dx, T* dw,
                          T* db, const ConvParams& p, const PoolParams& pool) {
    const Geometry<T> geometry(p, pool);
    if (is_two_by_two(pool, p.OH, p.OW)) {
        if (dx && data_winograd(dy, nullptr, winner, weight, dx, p, sparse_data_share)) dx = nullptr;
        if (dw && weight_winograd(dy, nullptr, winner, x, dw, p, sparse_weight_share)) dw = nullptr;
        if (dw && p.KH * p.KW * p.C / p.groups <= 32 && p.F / p.groups >= lanes<T>) {
            unpooled_backward_weight(dy, winner, x, dw, p);
            dw = nullptr;
        }
    }
    if (dx) SparseData<T>(geometry, dy, winner, weight).run(dx);
    if (dw || db) SparseWeight<T>(geometry, dy, winner, x).run(dw, db);
}

#define INSTANTIATE(T)                                                                           \
    template void conv2d_pool_backward(const T*, const uint8_t*, const T*, const T*, T*, T*, T*, \
                                       const ConvParams&, const PoolParams&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
