// The gradient to the filters by direct sums: register tiles of (tap, channel) times filters, summed over
// the pixels of a band.  The batch is cut into a fixed number of chunks, whose partial sums are added in
// order.
// Fused: zero padding and ReLU mask into the copies that the tiles read.
#include "direct_weight.h"

#include "../core/batch_split.h"
#include "../core/finite.h"
#include "../core/gradient_tile.h"
#include "../core/scratch.h"
#include "correlation.h"
#include "window.h"

namespace minicnn {
namespace {

// to = from, with 0 where the mask (or nullptr) is <= 0.
template <typename T>
void copy_masked(const T* from, const T* mask, T* to, int64_t count) {
    constexpr int L = lanes<T>;
    int64_t i = 0;
    for (; mask && i + L <= count; i += L) {
        store(to + i, load<L>(mask + i) <= 0 ? Vec<T, L>{} : load<L>(from + i));
    }
    for (; mask && i < count; ++i) {
        const T choice[2] = {from[i], T(0)};  // an index, because a branch on it could not be predicted
        to[i] = choice[mask[i] <= 0];
    }
    for (; i < count; ++i) to[i] = from[i];
}

// Writes a pooled gradient to the four cells of its 2x2 window, which lie `right` and `below` of `to`:
// the winner's cell gets it, the others get 0.
template <typename T>
void unpool(const T* dy, const uint8_t* winner, T* to, int64_t right, int64_t below, int64_t count) {
    constexpr int L = lanes<T>;
    using Place = decltype(Vec<T, L>{} < Vec<T, L>{});
    int64_t i = 0;
    for (; i + L <= count; i += L) {
        Place place;
        convert_numbers<L>(load<L>(winner + i), place);
        const Vec<T, L> value = load<L>(dy + i), none{};
        store(to + i, place == 0 ? value : none);
        store(to + right + i, place == 1 ? value : none);
        store(to + below + i, place == 2 ? value : none);
        store(to + below + right + i, place == 3 ? value : none);
    }
    for (; i < count; ++i) {
        T choice[5] = {};
        choice[std::min<int>(winner[i], 4)] = dy[i];
        to[i] = choice[0];
        to[right + i] = choice[1];
        to[below + i] = choice[2];
        to[below + right + i] = choice[3];
    }
}

template <typename T>
class WeightGradient {
  public:
    WeightGradient(const T* dy, const T* relu_y, const uint8_t* winner, const T* x, const ConvParams& p,
                   Scratch& scratch)
        : dy_(dy),
          relu_y_(relu_y),
          winner_(winner),
          x_(x),
          p_(p),
          h_(taps_down(p)),
          w_(taps_across(p)),
          width_(w_.end(p.OW - 1) - w_.begin(0)),
          Fg_(p.F / p.groups),
          Cg_(p.C / p.groups),
          depth_(p.KH * p.KW * Cg_),
          padded_(padded_lanes<T>(Fg_)),
          inside_(h_.begin(0) >= 0 && h_.end(p.OH - 1) <= p.H && w_.begin(0) >= 0 &&
                  w_.end(p.OW - 1) <= p.W),
          skips_padding_(h_.reads_much_padding(p.OH, p.H) &&
                         all_finite(dy, p.N * (winner ? (p.OH / 2) * (p.OW / 2) : p.OH * p.OW) * p.F)),
          dy_direct_(!relu_y && !winner && padded_ == Fg_),
          bands_(p.N, p.OH, winner ? 2 : 1,
                 (p.stride_h * row_stride() + p.OW * p.F) * static_cast<int64_t>(sizeof(T)),
                 2.0 * depth_ * p.F * p.OW),
          split_(p.N * bands_.per_image, p.groups * blocks_per_group(),
                 size() * static_cast<int64_t>(sizeof(T))) {
        int64_t* offset = scratch.take<int64_t>(depth_);
        offset_ = offset;
        for (int64_t u = 0; u < p.KH; ++u) {
            for (int64_t v = 0; v < p.KW; ++v) {
                for (int64_t c = 0; c < Cg_; ++c)
                    *offset++ = u * p.dil_h * row_stride() + v * p.dil_w * p.C + c;
            }
        }
        partials_ = scratch.take<T>(split_.chunks * size());
    }

    void run(T* dw) const {
        const double flops = 2.0 * p_.N * p_.OH * p_.OW * p_.F * depth_ / static_cast<double>(tasks());
        parallel_for(0, tasks(), grain_for(flops), [&](int64_t first, int64_t last) {
            for (int64_t task = first; task < last; ++task) sum(task / split_.parts, task % split_.parts);
        });
        parallel_for(0, split_.blocks, std::max<int64_t>(1, 16384 / (block_lanes<T>(two_vectors) * depth_)),
                     [&](int64_t first, int64_t last) {
                         for (int64_t block = first; block < last; ++block) add_chunks(block, dw);
                     });
    }

  private:
    int64_t tasks() const { return split_.chunks * split_.parts; }
    int64_t row_stride() const { return (inside_ ? p_.W : width_) * p_.C; }
    int64_t size() const { return p_.groups * padded_ * depth_; }
    int64_t blocks_per_group() const {
        return (Fg_ + block_lanes<T>(two_vectors) - 1) / block_lanes<T>(two_vectors);
    }
    // A block of filters: its group, its first lane in the group, and its width.
    struct Block {
        int64_t group, lane;
        BlockWidth width;
    };
    Block block_at(int64_t i) const {
        const int64_t lane = i % blocks_per_group() * block_lanes<T>(two_vectors);
        return {i / blocks_per_group(), lane, block_width<T>(Fg_ - lane)};
    }
    T* partial(int64_t chunk, const Block& b) const {
        return partials_ + chunk * size() + (b.group * padded_ + b.lane) * depth_;
    }

    void sum(int64_t chunk, int64_t part) const {
        const int64_t b0 = split_.first_block(part), b1 = split_.first_block(part + 1);
        for (int64_t b = b0; b < b1 && split_.units == 0; ++b) {
            const Block block = block_at(b);
            std::fill_n(partial(chunk, block), block_lanes<T>(block.width) * depth_, T(0));
        }
        for (int64_t unit = split_.first_unit(chunk); unit < split_.first_unit(chunk + 1); ++unit) {
            const int64_t n = unit / bands_.per_image, r0 = unit % bands_.per_image * bands_.rows;
            const int64_t r1 = std::min(r0 + bands_.rows, p_.OH);
            Scratch band;
            const T* x = x_band(n, r0, r1, band);
            for (int64_t b = b0; b < b1; ++b) {
                add_band(n, r0, r1, x, block_at(b), unit == split_.first_unit(chunk),
                         partial(chunk, block_at(b)));
            }
        }
    }

    // Adds the gradient of one block of filters from output rows [r0, r1), whose band of x is `x`.  A copy
    // of dy is made and read a few rows at a time, so that it stays in the first-level cache.
    void add_band(int64_t n, int64_t r0, int64_t r1, const T* x, const Block& block, bool first,
                  T* dst) const {
        constexpr int64_t cache_bytes = 16 << 10;
        const int64_t row_bytes = p_.OW * block_lanes<T>(block.width) * static_cast<int64_t>(sizeof(T));
        const int64_t step = dy_direct_ ? r1 - r0 : std::max<int64_t>(1, cache_bytes / (2 * row_bytes)) * 2;
        for (int64_t from = r0; from < r1; from += step, first = false) {
            const int64_t to = std::min(from + step, r1), x_row = p_.stride_h * row_stride();
            const T* source = x + block.group * Cg_ + (from - r0) * x_row;
            GradientInput<T> in{source, x_row, p_.stride_w * p_.C, offset_, nullptr,
                                0,      0,     to - from,          p_.OW,   first};
            Scratch own;
            set_dy(in, n, from, to, block, own);
            add_rows(in, from, to, block.width, dst);
        }
    }

    // Adds the gradient from output rows [r0, r1).  Where padding is skipped, each row of taps takes only
    // the output rows whose products with it are not with padding.
    void add_rows(const GradientInput<T>& in, int64_t r0, int64_t r1, BlockWidth width, T* dst) const {
        const int64_t row_of_taps = p_.KW * Cg_;
        if (!skips_padding_) return add_gradient(in, depth_, width, dst);
        for (int64_t u = 0; u < p_.KH; ++u) {
            const Taps::Range rows = h_.outputs_inside(u, r0, r1, p_.H);
            GradientInput<T> part = in;
            part.x += (rows.first - r0) * in.x_row;
            part.dy += (rows.first - r0) * in.dy_row;
            part.rows = rows.last - rows.first;
            part.offset += u * row_of_taps;
            add_gradient(part, row_of_taps, width, dst + u * row_of_taps * block_lanes<T>(width));
        }
    }

    const T* x_band(int64_t n, int64_t r0, int64_t r1, Scratch& own) const {
        const T* image = x_ + n * p_.H * p_.W * p_.C;
        const int64_t h0 = h_.begin(r0), h1 = h_.end(r1 - 1), w0 = w_.begin(0);
        if (inside_) return image + h0 * row_stride();
        T* copy = own.take<T>((h1 - h0) * row_stride());
        copy_window<T>(image, nullptr, p_.H, p_.W, p_.C, h0, h1, w0, w0 + width_, copy);
        return copy;
    }

    // Sets the dy of one block of filters: in place, or a masked copy that fills whole vectors.
    void set_dy(GradientInput<T>& in, int64_t n, int64_t r0, int64_t r1, const Block& b,
                Scratch& own) const {
        const int64_t at = (n * p_.OH + r0) * p_.OW * p_.F + b.group * Fg_ + b.lane,
                      pixels = (r1 - r0) * p_.OW;
        in.dy_col = dy_direct_ ? p_.F : block_lanes<T>(b.width);
        in.dy_row = p_.OW * in.dy_col;
        in.dy = dy_ + at;
        if (dy_direct_) return;
        T* copy = own.take<T>(pixels * in.dy_col);
        in.dy = copy;
        const int64_t count = std::min<int64_t>(in.dy_col, Fg_ - b.lane);
        const bool cells_left = winner_ && (p_.OW % 2 != 0 || r1 % 2 != 0);  // that lie in no window
        if (cells_left || count < in.dy_col) std::fill_n(copy, pixels * in.dy_col, T(0));
        if (winner_) return unpool_rows(n, r0, r1, b.group * Fg_ + b.lane, count, in, copy);
        for (int64_t i = 0; i < pixels; ++i) {
            const T* mask = relu_y_ ? relu_y_ + at + i * p_.F : nullptr;
            copy_masked(dy_ + at + i * p_.F, mask, copy + i * in.dy_col, count);
        }
    }

    // Copies rows [r0, r1), where r0 is even, of the gradient at full size: each value of the 2x2
    // max-pool's gradient goes to its winner.
    void unpool_rows(int64_t n, int64_t r0, int64_t r1, int64_t f, int64_t count,
                     const GradientInput<T>& in, T* copy) const {
        const int64_t rows = p_.OH / 2, cols = p_.OW / 2;
        for (int64_t r = r0 / 2; r < std::min(r1 / 2, rows); ++r) {
            for (int64_t c = 0; c < cols; ++c) {
                const int64_t at = ((n * rows + r) * cols + c) * p_.F + f;
                T* to = copy + (2 * r - r0) * in.dy_row + 2 * c * in.dy_col;
                unpool(dy_ + at, winner_ + at, to, in.dy_col, in.dy_row, count);
            }
        }
    }

    // Adds the partial sums of the chunks in order, and brings them from [k][lane] into the rows of dw.
    void add_chunks(int64_t block, T* dw) const {
        const Block b = block_at(block);
        const int64_t width = block_lanes<T>(b.width), count = std::min<int64_t>(width, Fg_ - b.lane);
        constexpr int64_t rows = 16;
        T sums[rows * block_lanes<T>(two_vectors)];
        for (int64_t k0 = 0; k0 < depth_; k0 += rows) {
            const int64_t n = std::min(rows, depth_ - k0);
            std::copy_n(partial(0, b) + k0 * width, n * width, sums);
            for (int64_t chunk = 1; chunk < split_.chunks; ++chunk) {
                const T* more = partial(chunk, b) + k0 * width;
                for (int64_t i = 0; i < n * width; ++i) sums[i] += more[i];
            }
            for (int64_t f = 0; f < count; ++f) {
                T* to = dw + (b.group * Fg_ + b.lane + f) * depth_ + k0;
                for (int64_t k = 0; k < n; ++k) to[k] = sums[k * width + f];
            }
        }
    }

    const T *dy_, *relu_y_;
    const uint8_t* winner_;
    const T* x_;
    const ConvParams& p_;
    Taps h_, w_;
    int64_t width_, Fg_, Cg_, depth_, padded_;
    bool inside_, skips_padding_, dy_direct_;
    Bands bands_;
    BatchSplit split_;
    const int64_t* offset_;
    T* partials_;
};

}  // namespace

template <typename T>
void direct_weight(const T* dy, const T* relu_y, const T* x, T* dw, const ConvParams& p) {
    Scratch scratch;
    WeightGradient<T>(dy, relu_y, nullptr, x, p, scratch).run(dw);
}

template <typename T>
void unpooled_direct_weight(const T* dy, const uint8_t* winner, const T* x, T* dw, const ConvParams& p) {
    Scratch scratch;
    WeightGradient<T>(dy, nullptr, winner, x, p, scratch).run(dw);
}

#define INSTANTIATE(T)                                                                \
    template void direct_weight(const T*, const T*, const T*, T*, const ConvParams&); \
    template void unpooled_direct_weight(const T*, const uint8_t*, const T*, T*, const ConvParams&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
