// Runs a correlation band by band.  A band of output rows reads its part of the source from a padded copy
// in scratch memory, or in place where nothing is padded or masked, and goes through the register tiles.
// Fused: zero padding and ReLU mask into the copy; bias, ReLU and max-pool into the tiles.
#include "correlation.h"

#include <limits>

#include "../core/finite.h"
#include "../core/scratch.h"
#include "window.h"

namespace minicnn {

Bands::Bands(int64_t N, int64_t all_rows, int64_t unit, int64_t source_bytes_per_row,
             double flops_per_row) {
    constexpr int64_t band_bytes = 256 << 10, wanted_tasks = 32;
    constexpr double worthwhile_flops = 1e6;
    const int64_t by_size = std::max<int64_t>(1, band_bytes / std::max<int64_t>(1, source_bytes_per_row));
    const int64_t by_tasks = std::max<int64_t>(1, all_rows * N / wanted_tasks);
    const int64_t by_work = static_cast<int64_t>(std::min(1e9, 1 + worthwhile_flops / flops_per_row));
    rows = std::clamp<int64_t>(std::min(by_size, std::max(by_tasks, by_work)), 1,
                               std::max<int64_t>(1, all_rows));
    per_image = (all_rows + rows - 1) / rows;
    rows = per_image ? (all_rows + per_image - 1) / per_image : 1;
    rows = (rows + unit - 1) / unit * unit;
    per_image = (all_rows + rows - 1) / rows;
}

namespace {

// Output channels [first, last).
struct Channels {
    int64_t first, last;
};

// The source of a correlation, band by band, and what is the same for all bands: whether they are copied,
// and how far each tap lies from the first.
template <typename T>
class SourceBands {
  public:
    SourceBands(const Correlation<T>& c, Scratch& scratch) : c_(c) {
        inside_ = !c.mask && c.h.begin(0) >= 0 && c.h.end(c.rows - 1) <= c.H && c.w.begin(0) >= 0 &&
                  c.w.end(c.cols - 1) <= c.W;
        skips_padding_ = !inside_ && c.h.reads_much_padding(c.rows, c.H) && has_finite_filters();
        w0_ = inside_ ? 0 : c.w.begin(0);
        width_ = inside_ ? c.W : c.w.end(c.cols - 1) - w0_;
        int64_t* offset = scratch.take<int64_t>(c.filters.depth);
        offset_ = offset;
        for (int64_t u = 0; u < c.h.count; ++u) {
            for (int64_t v = 0; v < c.w.count; ++v) {
                const int64_t row = c.h.first + u * c.h.step - c.h.lowest(),
                              col = c.w.first + v * c.w.step - w0_;
                for (int64_t i = 0; i < c.C / c.groups; ++i) *offset++ = (row * width_ + col) * c.C + i;
            }
        }
    }

    int64_t bytes_per_row() const { return c_.h.stride * width_ * c_.C * static_cast<int64_t>(sizeof(T)); }
    double flops_per_row() const { return 2.0 * c_.filters.depth * c_.F * c_.cols; }

    // The source of output rows [r0, r1) of image n: where row r0 finds its first row.  A copy lies in
    // `own`.
    const T* band(int64_t n, int64_t r0, int64_t r1, Scratch& own) const {
        const T* image = c_.source + n * c_.H * c_.W * c_.C;
        const int64_t h0 = c_.h.begin(r0), h1 = c_.h.end(r1 - 1);
        if (inside_) return image + h0 * width_ * c_.C;
        T* copy = own.take<T>((h1 - h0) * width_ * c_.C);
        const T* mask = c_.mask ? c_.mask + n * c_.H * c_.W * c_.C : nullptr;
        copy_window(image, mask, c_.H, c_.W, c_.C, h0, h1, w0_, w0_ + width_, copy);
        return copy;
    }

    // The tile's input for output rows [from, to), where `in` is the input for the band's first row.
    // Where padding is skipped, taps that read only padding are left out.
    TileInput<T> for_rows(TileInput<T> in, int64_t first_row, int64_t from, int64_t to) const {
        in.a += (from - first_row) * in.row_stride;
        if (!skips_padding_) return in;
        const Taps::Range taps = c_.h.inside(from, to, c_.H);
        const int64_t row_of_taps = c_.w.count * (c_.C / c_.groups);
        in.offset += taps.first * row_of_taps;
        in.depth = (taps.last - taps.first) * row_of_taps;
        in.b += taps.first * row_of_taps * in.ldb;
        return in;
    }

    int64_t filter_bytes() const {
        return c_.groups * c_.filters.padded * c_.filters.depth * static_cast<int64_t>(sizeof(T));
    }

    // Calls f(first channel, channels, width, input) for each block of output channels from `part.first` on
    // and before `part.last`; `input` is that of the output in the band's first row and column.
    template <typename F>
    void for_each_block(const T* source, const Channels& part, const F& f) const {
        const int64_t channels = c_.F / c_.groups, pixel = c_.w.stride * c_.C;
        for (int64_t g = 0; g < c_.groups; ++g) {
            for (int64_t lane = 0; lane < channels;) {
                const BlockWidth width = block_width<T>(channels - lane);
                const int64_t channel = g * channels + lane;
                const TileInput<T> in{source + g * (c_.C / c_.groups),
                                      c_.h.stride * width_ * c_.C,
                                      pixel,
                                      offset_,
                                      c_.filters.depth,
                                      c_.filters.block(g, lane),
                                      block_lanes<T>(width),
                                      c_.filters.block_bias(g, lane)};
                if (part.first <= channel && channel < part.last) {
                    f(channel, std::min<int64_t>(block_lanes<T>(width), channels - lane), width, in);
                }
                lane += block_lanes<T>(width);
            }
        }
    }

  private:
    bool has_finite_filters() const {
        return c_.filters.finite ||
               all_finite(c_.filters.blocks, c_.groups * c_.filters.padded * c_.filters.depth);
    }

    const Correlation<T>& c_;
    bool inside_, skips_padding_;
    int64_t w0_, width_;
    const int64_t* offset_;
};

template <typename T>
void plain_rows(const SourceBands<T>& source, int64_t n, int64_t r0, int64_t r1, const Channels& part,
                int64_t cols, T* y, int64_t row_stride, int64_t col_stride, bool relu) {
    Scratch own;
    source.for_each_block(
        source.band(n, r0, r1, own), part,
        [&](int64_t channel, int64_t count, BlockWidth width, const TileInput<T>& block) {
            const auto& kernels = tile_kernels<T>(width).plain;
            for (int64_t r = r0; r < r1; ++r) {
                // Step 1: find the pixels of each window.
                TileInput<T> in = source.for_rows(block, r0, r, r + 1);
                const T* a = in.a;
                for_each_tile(kernels, cols, plain_cols(width == two_vectors ? 2 : 1), 1,
                              [&](TileKernel<T> kernel, int64_t j) {
                                  in.a = a + j * in.col_stride;
                                  T* to = y + (r - r0) * row_stride + j * col_stride + channel;
                                  // Step 2: multiply them by the filter and add up.
                                  kernel(in, {to, 0, col_stride, static_cast<int>(count), relu, nullptr});
                              });
            }
        });
}

template <typename T>
void pooled_rows(const SourceBands<T>& source, int64_t n, int64_t r0, int64_t r1, int64_t cols, int64_t F,
                 T* y, uint8_t* winner, bool relu) {
    Scratch own;
    source.for_each_block(source.band(n, 2 * r0, 2 * r1, own), {0, F},
                          [&](int64_t channel, int64_t count, BlockWidth width, const TileInput<T>& block) {
                              const auto& kernels = tile_kernels<T>(width).pooled;
                              for (int64_t r = r0; r < r1; ++r) {
                                  TileInput<T> in = source.for_rows(block, 2 * r0, 2 * r, 2 * r + 2);
                                  const T* a = in.a;
                                  for_each_tile(
                                      kernels, 2 * cols, pooled_cols(width == two_vectors ? 2 : 1), 2,
                                      [&](TileKernel<T> kernel, int64_t j) {
                                          in.a = a + j * in.col_stride;
                                          const int64_t at = ((r - r0) * cols + j / 2) * F + channel;
                                          kernel(in, {y + at, 0, F, static_cast<int>(count), relu,
                                                      winner ? winner + at : nullptr});
                                      });
                              }
                          });
}

// The max-pool of one pooled row; `map` holds the rows of the convolution's map from h0 on.
template <typename T>
void pool_row(const T* map, int64_t h0, const Correlation<T>& c, const PoolParams& pool, int64_t ph, T* y,
              uint8_t* winner, bool relu) {
    for (int64_t pw = 0; pw < pool.OW; ++pw) {
        for (int64_t f = 0; f < c.F; ++f) {
            T best = -std::numeric_limits<T>::infinity();
            int place = -1;
            for (int64_t u = 0; u < pool.KH; ++u) {
                const int64_t h = ph * pool.stride_h - pool.pad_h + u * pool.dil_h;
                if (h < 0 || h >= c.rows) continue;
                for (int64_t v = 0; v < pool.KW; ++v) {
                    const int64_t w = pw * pool.stride_w - pool.pad_w + v * pool.dil_w;
                    if (w < 0 || w >= c.cols) continue;
                    const T value = map[((h - h0) * c.cols + w) * c.F + f];
                    if (place < 0 || value > best || value != value) {
                        best = value, place = static_cast<int>(u * pool.KW + v);
                    }
                }
            }
            const bool off = place < 0 || (relu && best <= 0);
            y[pw * c.F + f] = relu && best <= 0 ? T(0) : best;
            if (winner) winner[pw * c.F + f] = off ? relu_off : static_cast<uint8_t>(place);
        }
    }
}

}  // namespace

// Into how many parts the filters are cut: more than one where there are few pixels and so many filters
// that each thread had better read its own of them, once.
template <typename T>
int64_t filter_parts(const Correlation<T>& c, int64_t filter_bytes) {
    constexpr int64_t few_pixels = 256, many_bytes = 128 << 10, most = 8;
    if (c.groups > 1 || c.N * c.rows * c.cols > few_pixels || filter_bytes < many_bytes) return 1;
    const int wide = block_lanes<T>(two_vectors);
    return std::min(most, (c.F + wide - 1) / wide);
}

template <typename T>
void correlate(const Correlation<T>& c, const PlainOutput<T>& out) {
    if (c.N * c.rows * c.cols == 0) return;
    Scratch scratch;
    const SourceBands<T> source(c, scratch);
    const int64_t parts = filter_parts(c, source.filter_bytes()), wide = block_lanes<T>(two_vectors);
    const int64_t blocks = (c.F + wide - 1) / wide;
    Bands bands(c.N, c.rows, 1, source.bytes_per_row(), source.flops_per_row());
    if (parts > 1) bands.rows = c.rows, bands.per_image = 1;
    const double flops = bands.rows * source.flops_per_row() / static_cast<double>(parts);
    parallel_for(0, c.N * bands.per_image * parts, grain_for(flops), [&](int64_t first, int64_t last) {
        for (int64_t task = first; task < last; ++task) {
            const int64_t band = task / parts, part = task % parts;
            const Channels channels{blocks * part / parts * wide, blocks * (part + 1) / parts * wide};
            const int64_t n = band / bands.per_image, r0 = band % bands.per_image * bands.rows;
            const int64_t r1 = std::min(r0 + bands.rows, c.rows);
            plain_rows(source, n, r0, r1, channels, c.cols,
                       out.y + n * out.image_stride + r0 * out.row_stride, out.row_stride, out.col_stride,
                       out.relu);
        }
    });
}

template <typename T>
void correlate_pooled(const Correlation<T>& c, const PoolParams& pool, bool in_tiles, T* y, uint8_t* winner,
                      bool relu) {
    if (c.N * pool.OH * pool.OW == 0) return;
    Scratch scratch;
    const SourceBands<T> source(c, scratch);
    const Bands bands(c.N, pool.OH, 1, pool.stride_h * source.bytes_per_row(),
                      pool.stride_h * source.flops_per_row());
    const double flops = bands.rows * pool.stride_h * source.flops_per_row();
    parallel_for(0, c.N * bands.per_image, grain_for(flops), [&](int64_t first, int64_t last) {
        for (int64_t task = first; task < last; ++task) {
            const int64_t n = task / bands.per_image, r0 = task % bands.per_image * bands.rows;
            const int64_t r1 = std::min(r0 + bands.rows, pool.OH), at = (n * pool.OH + r0) * pool.OW * c.F;
            uint8_t* band_winner = winner ? winner + at : nullptr;
            if (in_tiles) {
                pooled_rows(source, n, r0, r1, pool.OW, c.F, y + at, band_winner, relu);
                continue;
            }
            const int64_t reach = (pool.KH - 1) * pool.dil_h + 1;
            const int64_t h0 = std::clamp<int64_t>(r0 * pool.stride_h - pool.pad_h, 0, c.rows - 1);
            const int64_t h1 =
                std::clamp<int64_t>((r1 - 1) * pool.stride_h - pool.pad_h + reach, h0 + 1, c.rows);
            Scratch own;
            T* map = own.take<T>((h1 - h0) * c.cols * c.F);
            plain_rows(source, n, h0, h1, {0, c.F}, c.cols, map, c.cols * c.F, c.F, false);
            for (int64_t r = r0; r < r1; ++r) {
                const int64_t row = (r - r0) * pool.OW * c.F;
                pool_row(map, h0, c, pool, r, y + at + row, band_winner ? band_winner + row : nullptr,
                         relu);
            }
        }
    });
}

#define INSTANTIATE(T)                                                     \
    template void correlate(const Correlation<T>&, const PlainOutput<T>&); \
    template void correlate_pooled(const Correlation<T>&, const PoolParams&, bool, T*, uint8_t*, bool);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
