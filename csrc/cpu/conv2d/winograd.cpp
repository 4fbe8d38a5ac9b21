// Winograd's F(4x4, 3x3) in blocks of tiles: the tiles of a few rows are transformed, multiplied by the
// filters in one matrix product for each of the 36 planes, and transformed back.
// Fused: padding and ReLU mask into the copy of the source; bias, ReLU and max-pool into the transform
// back.
#include "winograd.h"

#include <atomic>

#include "../core/scratch.h"

namespace minicnn {
namespace {

constexpr int L = lanes<float>;
using V = Vec<float, L>;

// B^T d: six values of a column of the source.
MINICNN_INLINE void source_column(const V (&d)[6], V (&t)[6]) {
    const V even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1], even2 = d[4] - d[2], odd2 = 2 * (d[3] - d[1]);
    t[0] = 4 * d[0] - 5 * d[2] + d[4];
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = even2 + odd2;
    t[4] = even2 - odd2;
    t[5] = 4 * d[1] - 5 * d[3] + d[5];
}

// A^T m: four results of a column of products.
MINICNN_INLINE void result_column(const V (&m)[6], V (&y)[4]) {
    const V s1 = m[1] + m[2], s2 = m[3] + m[4], d1 = m[1] - m[2], d2 = m[3] - m[4];
    y[0] = m[0] + s1 + s2;
    y[1] = d1 + 2 * d2;
    y[2] = s1 + 4 * s2;
    y[3] = d1 + 8 * d2 + m[5];
}

// Transforms the 36 products of a vector of channels into a 4x4 patch of results, and adds the bias.
MINICNN_INLINE void transform_products(const float* planes, int64_t plane, V bias, V (&y)[4][4]) {
    V half[4][6];
    unroll<6>([&](auto col) __attribute__((always_inline)) {
        V m[6], t[4];
        unroll<6>([&](auto r)
                      __attribute__((always_inline)) { m[r] = load<L>(planes + (r * 6 + col) * plane); });
        result_column(m, t);
        unroll<4>([&](auto r) __attribute__((always_inline)) { half[r][col] = t[r]; });
    });
    unroll<4>([&](auto r) __attribute__((always_inline)) {
        V t[4];
        result_column(half[r], t);
        unroll<4>([&](auto col) __attribute__((always_inline)) { y[r][col] = ninth(t[col]) + bias; });
    });
}

// Writes the part of a 4x4 patch at (row, col) that lies inside the map.
MINICNN_INLINE void write_patch(V (&y)[4][4], const WinogradOutput& out, int64_t n, int64_t row,
                                int64_t col, int64_t channel, int count) {
    float* to = out.y + n * out.image_stride + row * out.row_stride + col * out.col_stride + channel;
    if (out.relu) {
        unroll<16>([&](auto i) __attribute__((always_inline)) { y[i / 4][i % 4] = relu(y[i / 4][i % 4]); });
    }
    if (count == L && row + 4 <= out.rows && col + 4 <= out.cols) {
        unroll<16>([&](auto i) __attribute__((always_inline)) {
            store(to + i / 4 * out.row_stride + i % 4 * out.col_stride, y[i / 4][i % 4]);
        });
        return;
    }
    for (int r = 0; r < std::min<int64_t>(4, out.rows - row); ++r) {
        for (int c = 0; c < std::min<int64_t>(4, out.cols - col); ++c) {
            store_part<L>(to + r * out.row_stride + c * out.col_stride, y[r][c], count);
        }
    }
}

// Writes the 2x2 max-pool of a 4x4 patch, whose pooled values begin at (row, col).
void write_pooled_patch(const V (&y)[4][4], const WinogradOutput& out, int64_t n, int64_t row, int64_t col,
                        int64_t channel, int count) {
    using Place = decltype(V{} < V{});
    for (int r = 0; r < std::min<int64_t>(2, out.rows - row); ++r) {
        for (int c = 0; c < std::min<int64_t>(2, out.cols - col); ++c) {
            V best = y[2 * r][2 * c];
            Place place{};
            take_larger(best, place, y[2 * r][2 * c + 1], 1);
            take_larger(best, place, y[2 * r + 1][2 * c], 2);
            take_larger(best, place, y[2 * r + 1][2 * c + 1], 3);
            const int64_t at =
                n * out.image_stride + (row + r) * out.row_stride + (col + c) * out.col_stride + channel;
            if (out.winner) {
                if (out.relu) place = best <= 0 ? Place{} + no_winner : place;
                store_winner<L, float>(out.winner + at, place, count);
            }
            store_part<L>(out.y + at, out.relu ? relu(best) : best, count);
        }
    }
}

class WinogradMap {
  public:
    WinogradMap(const Correlation<float>& c, const WinogradFilters& filters, const WinogradOutput& out,
                Scratch& scratch)
        : c_(c),
          filters_(filters),
          out_(out),
          rows_(c),
          depth_((c.C + L - 1) / L * L),
          source_plane_(rows_.tiles() * depth_ + L),
          product_plane_(rows_.tiles() * filters.padded + L) {
        int64_t* offset = scratch.take<int64_t>(c.C);
        for (int64_t i = 0; i < c.C; ++i) offset[i] = i;
        offset_ = offset;
        float* zeros = scratch.take<float>(2 * L);
        std::fill_n(zeros, 2 * L, 0.0f);
        zeros_ = zeros;
    }

    bool run() const {
        std::atomic<bool> finite{true};
        const int64_t blocks = (rows_.total + rows_.per_block - 1) / rows_.per_block;
        const int64_t parts = filter_parts(blocks), wide = (c_.F + 2 * L - 1) / (2 * L);
        const double flops =
            2.0 * winograd_planes * c_.C * c_.F * rows_.tiles() / static_cast<double>(parts);
        parallel_for(0, blocks * parts, grain_for(flops), [&](int64_t first, int64_t last) {
            for (int64_t task = first; task < last; ++task) {
                const int64_t from = task / parts * rows_.per_block, part = task % parts;
                const int64_t to = std::min(from + rows_.per_block, rows_.total);
                const Filters filters{wide * part / parts * 2 * L,
                                      std::min(wide * (part + 1) / parts * 2 * L, c_.F)};
                if (!block(from, to, filters)) finite.store(false, std::memory_order_relaxed);
            }
        });
        return finite;
    }

  private:
    struct Filters {
        int64_t first, last;
    };

    // Into how many parts the filters are cut: more than one where a batch is hardly one block of tiles.
    // Each part transforms the same tiles, which takes little time beside many products.
    int64_t filter_parts(int64_t blocks) const {
        constexpr int64_t few_blocks = 2, least_filters = 64, most = 4;
        return blocks > few_blocks ? 1 : std::clamp<int64_t>(c_.F / least_filters, 1, most);
    }

    // Computes the rows [from, to) of tiles; returns whether all results are finite.
    bool block(int64_t from, int64_t to, const Filters& filters) const {
        Scratch own;
        float* sources = own.take<float>(winograd_planes * source_plane_);
        float* products = own.take<float>(winograd_planes * product_plane_);
        for (int64_t row = from; row < to; ++row)
            read_row(row, sources + (row - from) * rows_.across * depth_);
        for (int64_t p = 0; p < winograd_planes; ++p) {
            multiply(sources + p * source_plane_, filters_.blocks + p * filters_.plane,
                     products + p * product_plane_, (to - from) * rows_.across, filters);
        }
        V sum{};
        for (int64_t row = from; row < to; ++row) {
            write_row(row, products + (row - from) * rows_.across * filters_.padded, filters, sum);
        }
        for (int l = 0; l < L; ++l) {
            if (!(sum[l] == 0)) return false;
        }
        return true;
    }

    void read_row(int64_t row, float* to) const {
        const int64_t n = row / rows_.down, width = 4 * rows_.across + 2;
        const int64_t h0 = row % rows_.down * 4 + c_.h.lowest(), w0 = c_.w.lowest();
        Scratch own;
        float* copy = own.take<float>(6 * width * c_.C);
        read_window(c_, n, h0, h0 + 6, w0, w0 + width, copy);
        for (int64_t t = 0; t < rows_.across; ++t) {
            for (int64_t c = 0; c < c_.C; c += L) {
                transform_source(copy + 4 * t * c_.C + c, width * c_.C, c_.C, to + t * depth_ + c,
                                 source_plane_);
            }
        }
    }

    void multiply(const float* sources, const float* filters, float* products, int64_t tiles,
                  const Filters& part) const {
        for (int64_t f = part.first; f < part.last; f += 2 * L) {
            const BlockWidth width = block_width<float>(c_.F - f);
            TileInput<float> in{
                sources, 0, depth_, offset_, c_.C, filters + f * c_.C, block_lanes<float>(width), zeros_};
            for_each_tile(tile_kernels<float>(width).plain, tiles, plain_cols(width == two_vectors ? 2 : 1),
                          1, [&](TileKernel<float> kernel, int64_t i) {
                              in.a = sources + i * depth_;
                              kernel(in, {products + i * filters_.padded + f, 0, filters_.padded,
                                          block_lanes<float>(width), false, nullptr});
                          });
        }
    }

    // Writes these filters' results of one row of tiles.  `sum` stays 0 as long as all results are finite.
    void write_row(int64_t row, const float* products, const Filters& part, V& sum) const {
        const int64_t n = row / rows_.down, r = row % rows_.down * (out_.pooled ? 2 : 4);
        for (int64_t t = 0; t < rows_.across; ++t) {
            for (int64_t f = part.first; f < part.last; f += L) {
                const int count = static_cast<int>(std::min<int64_t>(L, c_.F - f));
                V y[4][4];
                transform_products(products + t * filters_.padded + f, product_plane_,
                                   load<L>(filters_.bias + f), y);
                check_finite(y, count, sum);
                if (out_.pooled) {
                    write_pooled_patch(y, out_, n, r, 2 * t, f, count);
                } else {
                    write_patch(y, out_, n, r, 4 * t, f, count);
                }
            }
        }
    }

    static MINICNN_INLINE void check_finite(const V (&y)[4][4], int count, V& sum) {
        V zero{};
        unroll<16>([&](auto i) __attribute__((always_inline)) { zero += y[i / 4][i % 4] * 0.0f; });
        if (count == L) {
            sum += zero;
        } else {
            for (int l = 0; l < count; ++l) sum[l] += zero[l];
        }
    }

    const Correlation<float>& c_;
    const WinogradFilters& filters_;
    const WinogradOutput& out_;
    TileRows rows_;
    int64_t depth_, source_plane_, product_plane_;
    const int64_t* offset_;
    const float* zeros_;
};

}  // namespace

void transform_source(const float* patch, int64_t row_stride, int64_t col_stride, float* planes,
                      int64_t plane) {
    V half[6][6];
    unroll<6>([&](auto col) __attribute__((always_inline)) {
        V d[6], t[6];
        unroll<6>([&](auto r) __attribute__((always_inline)) {
            d[r] = load<L>(patch + r * row_stride + col * col_stride);
        });
        source_column(d, t);
        unroll<6>([&](auto r) __attribute__((always_inline)) { half[r][col] = t[r]; });
    });
    unroll<6>([&](auto r) __attribute__((always_inline)) {
        V t[6];
        source_column(half[r], t);
        unroll<6>([&](auto col)
                      __attribute__((always_inline)) { store(planes + (r * 6 + col) * plane, t[col]); });
    });
}

TileRows::TileRows(const Correlation<float>& c)
    : across((c.cols + 3) / 4), down((c.rows + 3) / 4), total(c.N * down) {
    constexpr int64_t cache_bytes = 1 << 20, least_tiles = 48, even_tasks = 8;
    // The sums of 8 tiles keep the processor busy where blocks of filters are two vectors wide.
    const int64_t few_tiles = c.F > L ? 8 : 16;
    const int64_t tile_bytes = winograd_planes * (c.C + c.F) * static_cast<int64_t>(sizeof(float));
    const int64_t rows = std::max<int64_t>(1, std::max(cache_bytes / tile_bytes, least_tiles) / across);
    const int64_t blocks = (total + rows - 1) / rows;
    per_block = std::max((few_tiles + across - 1) / across,
                         total / ((blocks + even_tasks - 1) / even_tasks * even_tasks));
}

namespace {

// Copies a window of the gradient at full size, where each value of a 2x2 max-pool's gradient goes to its
// winner.
void unpool_window(const float* dy, const uint8_t* winner, int64_t H, int64_t W, int64_t C, int64_t h0,
                   int64_t h1, int64_t w0, int64_t w1, float* out) {
    for (int64_t h = h0; h < h1; ++h) {
        for (int64_t w = w0; w < w1; ++w, out += C) {
            if (h < 0 || h >= 2 * H || w < 0 || w >= 2 * W) {
                std::fill_n(out, C, 0.0f);
                continue;
            }
            const int64_t at = ((h / 2) * W + w / 2) * C;
            const uint8_t place = static_cast<uint8_t>(h % 2 * 2 + w % 2);
            for (int64_t c = 0; c < C; ++c) out[c] = winner[at + c] == place ? dy[at + c] : 0.0f;
        }
    }
}

}  // namespace

void read_window(const Correlation<float>& c, int64_t n, int64_t h0, int64_t h1, int64_t w0, int64_t w1,
                 float* out) {
    if (c.winner) {
        const int64_t image = n * (c.H / 2) * (c.W / 2) * c.C;
        unpool_window(c.source + image, c.winner + image, c.H / 2, c.W / 2, c.C, h0, h1, w0, w1, out);
        return;
    }
    const int64_t image = n * c.H * c.W * c.C;
    copy_window(c.source + image, c.mask ? c.mask + image : nullptr, c.H, c.W, c.C, h0, h1, w0, w1, out);
}

bool winograd(const Correlation<float>& c, const WinogradFilters& filters, const WinogradOutput& out) {
    Scratch scratch;
    return WinogradMap(c, filters, out, scratch).run();
}

}  // namespace minicnn
