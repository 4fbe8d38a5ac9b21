// The gradient to 3x3 filters by Winograd's F(3x3, 4x4).  The 36 planes of x are those of the forward
// pass; they are multiplied by 36 planes of the gradient's 4x4 tiles and summed over all tiles.  At the
// end each filter is transformed back once.
// Fused: padding into the copy of x; ReLU mask or the max-pool's winners into the copy of the gradient.
#include <atomic>

#include "../core/elementwise.h"
#include "../core/gradient_tile.h"
#include "../core/scratch.h"
#include "winograd.h"

namespace minicnn {
namespace {

constexpr int L = lanes<float>;
using V = Vec<float, L>;

// 3 G g for a column of four values, as winograd_filter_column has it for three.
MINICNN_INLINE void gradient_column(const V (&g)[4], V (&u)[6]) {
    const V even = g[0] + g[2], odd = g[1] + g[3];
    const V even2 = g[0] * 0.125f + g[2] * 0.5f, odd2 = g[1] * 0.25f + g[3];
    u[0] = g[0] * 0.75f;
    u[1] = (even + odd) * -0.5f;
    u[2] = (even - odd) * -0.5f;
    u[3] = even2 + odd2;
    u[4] = even2 - odd2;
    u[5] = g[3] * 3;
}

// A^T m: three taps from a column of sums.
MINICNN_INLINE void tap_column(const V (&m)[6], V (&y)[3]) {
    const V s1 = m[1] + m[2], s2 = m[3] + m[4];
    y[0] = m[0] + s1 + s2;
    y[1] = (m[1] - m[2]) + 2 * (m[3] - m[4]);
    y[2] = s1 + 4 * s2 + m[5];
}

// Transforms one 4x4 patch of a vector of channels of the gradient into the 36 planes.
void transform_gradient(const float* patch, int64_t row_stride, int64_t col_stride, float* planes,
                        int64_t plane) {
    V half[6][4];
    unroll<4>([&](auto col) __attribute__((always_inline)) {
        V g[4], u[6];
        unroll<4>([&](auto r) __attribute__((always_inline)) {
            g[r] = load<L>(patch + r * row_stride + col * col_stride);
        });
        gradient_column(g, u);
        unroll<6>([&](auto r) __attribute__((always_inline)) { half[r][col] = u[r]; });
    });
    unroll<6>([&](auto r) __attribute__((always_inline)) {
        V u[6];
        gradient_column(half[r], u);
        unroll<6>([&](auto col)
                      __attribute__((always_inline)) { store(planes + (r * 6 + col) * plane, u[col]); });
    });
}

// Takes some rows of tiles at a time: first the planes of both sides for all of them, then the products
// of each plane.  So every patch is transformed once, and a sum is read and written once for many tiles.
// Where the sums are small, the batch is cut into a fixed number of chunks with sums of their own; each
// is computed by one thread, whose planes stay in its cache.  Where they are large, there is one sum, and
// the threads share first the rows and then the planes.
class WinogradWeight {
  public:
    WinogradWeight(const Correlation<float>& x, const Correlation<float>& dy, Scratch& scratch)
        : x_(x),
          dy_(dy),
          rows_(x),
          width_(block_width<float>(x.C) == two_vectors ? two_vectors : one_vector),
          block_(block_lanes<float>(width_)),
          blocks_((x.C + block_ - 1) / block_),
          sum_plane_(blocks_ * block_ * x.F + L),
          size_(winograd_planes * sum_plane_),
          chunks_(count_chunks(size_, rows_)),
          held_(chunks_ > 1 ? std::min(rows_.per_block, rows_.total) : rows_to_hold(x, rows_)),
          gradient_step_(odd_lines(x.F)),
          source_plane_(held_ * rows_.across * blocks_ * block_ + L),
          gradient_plane_(held_ * rows_.across * gradient_step_ + L) {
        int64_t* offset = scratch.take<int64_t>(x.F);
        for (int64_t i = 0; i < x.F; ++i) offset[i] = i;
        offset_ = offset;
        sums_ = scratch.take<float>(chunks_ * size_);
    }

    bool run(float* dw) const {
        if (chunks_ == 1) {
            auto together = [](int64_t count, double flops, const auto& f) {
                parallel_for(0, count, grain_for(flops), f);
            };
            Scratch scratch;
            sum_rows(0, rows_.total, planes(scratch), sums_, together);
        } else {
            auto alone = [](int64_t count, double, const auto& f) { f(0, count); };
            parallel_for(0, chunks_, 1, [&](int64_t first, int64_t last) {
                Scratch own;
                const Planes held = planes(own);
                for (int64_t i = first; i < last; ++i) {
                    sum_rows(rows_.total * i / chunks_, rows_.total * (i + 1) / chunks_, held,
                             sums_ + i * size_, alone);
                }
            });
        }
        std::atomic<bool> finite{true};
        const int64_t values = winograd_planes * chunks_ * block_;
        parallel_for(0, blocks_ * x_.F, items_per_piece(values), [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) {
                if (!transform_sums(i / x_.F, i % x_.F, dw)) finite.store(false, std::memory_order_relaxed);
            }
        });
        return finite;
    }

  private:
    // The number of chunks must not depend on the number of threads: it is enough for many threads, or 1.
    static int64_t count_chunks(int64_t size, const TileRows& rows) {
        constexpr int64_t chunks = 16, most_bytes = 4 << 20, least_tiles = 32;
        const bool small = chunks * size * static_cast<int64_t>(sizeof(float)) <= most_bytes;
        return small && rows.total * rows.across >= chunks * least_tiles && rows.total >= chunks ? chunks
                                                                                                 : 1;
    }
    // How many rows of tiles are held at once: so many that their planes are about as large as the sums,
    // within bounds.
    static int64_t rows_to_hold(const Correlation<float>& x, const TileRows& rows) {
        constexpr int64_t least_tiles = 128, most_bytes = 16 << 20;
        const int64_t tile_bytes = winograd_planes * (x.C + x.F) * static_cast<int64_t>(sizeof(float));
        const int64_t tiles = std::min(2 * x.C * x.F / (x.C + x.F), most_bytes / tile_bytes);
        return std::clamp<int64_t>(std::max(tiles, least_tiles) / rows.across, 1, rows.total);
    }
    // Rounds a row of values up to an odd number of cache lines: rows that follow each other then spread
    // over all sets of the cache.
    static int64_t odd_lines(int64_t values) {
        constexpr int64_t line = 64 / sizeof(float);
        const int64_t lines = (values + line - 1) / line;
        return (lines % 2 == 0 ? lines + 1 : lines) * line;
    }

    // The planes of the rows held: [plane][block of channels][tile][lane] of x, and [plane][tile][f] of
    // dy.
    struct Planes {
        float *sources, *gradients;
    };
    Planes planes(Scratch& scratch) const {
        float* p = scratch.take<float>(winograd_planes * (source_plane_ + gradient_plane_));
        return {p, p + winograd_planes * source_plane_};
    }
    int64_t source_block(int64_t block) const { return block * held_ * rows_.across * block_; }
    // Where the sums of a plane and block begin; they are [plane][block of channels][f][lane].
    int64_t sum_block(int64_t p, int64_t block) const { return p * sum_plane_ + block * block_ * x_.F; }

    // Sums over the rows [begin, end).  share(count, flops of one, f) calls f on pieces of [0, count).
    template <typename Share>
    void sum_rows(int64_t begin, int64_t end, const Planes& held, float* sums, const Share& share) const {
        const int64_t across = rows_.across;
        for (int64_t from = begin; from < end; from += held_) {
            const int64_t rows = std::min(held_, end - from);
            const double row_flops = 1000.0 * static_cast<double>(across * (x_.C + x_.F));
            share(rows, row_flops, [&](int64_t first, int64_t last) {
                for (int64_t i = first; i < last; ++i) {
                    read_row(from + i, i * across, held.sources);
                    read_gradient_row(from + i, i * across, held.gradients);
                }
            });
            const double flops = 2.0 * static_cast<double>(rows * across * x_.F * block_);
            share(winograd_planes * blocks_, flops, [&](int64_t first, int64_t last) {
                for (int64_t i = first; i < last; ++i) {
                    multiply(held, i / blocks_, i % blocks_, rows * across, from == begin, sums);
                }
            });
        }
    }

    void read_row(int64_t row, int64_t tile, float* sources) const {
        const int64_t width = 4 * rows_.across + 2, h0 = row % rows_.down * 4 + x_.h.lowest(),
                      w0 = x_.w.lowest();
        Scratch own;
        float* copy = own.take<float>(6 * width * x_.C + 2 * L);
        read_window(x_, row / rows_.down, h0, h0 + 6, w0, w0 + width, copy);
        std::fill_n(copy + 6 * width * x_.C, 2 * L, 0.0f);
        for (int64_t t = 0; t < rows_.across; ++t) {
            for (int64_t c = 0; c < blocks_ * block_; c += L) {
                // After the last channel anything may be read, as it counts for nothing.
                transform_source(copy + 4 * t * x_.C + std::min(c, x_.C), width * x_.C, x_.C,
                                 sources + source_block(c / block_) + (tile + t) * block_ + c % block_,
                                 source_plane_);
            }
        }
    }

    void read_gradient_row(int64_t row, int64_t tile, float* gradients) const {
        const int64_t cols = 4 * rows_.across, F = x_.F, h0 = row % rows_.down * 4;
        Scratch own;
        float* copy = own.take<float>(4 * cols * F + 2 * L);
        read_window(dy_, row / rows_.down, h0, h0 + 4, 0, cols, copy);
        for (int64_t t = 0; t < rows_.across; ++t) {
            for (int64_t f = 0; f < F; f += L) {
                transform_gradient(copy + 4 * t * F + f, cols * F, F,
                                   gradients + (tile + t) * gradient_step_ + f, gradient_plane_);
            }
        }
    }

    void multiply(const Planes& held, int64_t p, int64_t block, int64_t tiles, bool first,
                  float* sums) const {
        const float* gradients = held.gradients + p * gradient_plane_;
        const float* sources = held.sources + p * source_plane_ + source_block(block);
        const GradientInput<float> in{gradients, 0, gradient_step_, offset_, sources, 0,
                                      block_,    1, tiles,          first};
        add_gradient(in, x_.F, width_, sums + sum_block(p, block));
    }

    // Transforms the sums of a filter for a block of channels back into taps; returns whether all are
    // finite.
    bool transform_sums(int64_t block, int64_t f, float* dw) const {
        float bad = 0;
        const int64_t end = std::min((block + 1) * block_, x_.C);
        for (int64_t c = block * block_; c < end; c += L) {
            const float* from = sums_ + sum_block(0, block) + f * block_ + c % block_;
            V half[3][6];
            for (int b = 0; b < 6; ++b) {
                V m[6], taps[3];
                for (int a = 0; a < 6; ++a) {
                    const float* plane = from + (a * 6 + b) * sum_plane_;
                    m[a] = load<L>(plane);
                    for (int64_t i = 1; i < chunks_; ++i) m[a] += load<L>(plane + i * size_);
                }
                tap_column(m, taps);
                for (int a = 0; a < 3; ++a) half[a][b] = taps[a];
            }
            const int count = static_cast<int>(std::min<int64_t>(L, end - c));
            for (int a = 0; a < 3; ++a) {
                V taps[3];
                tap_column(half[a], taps);
                for (int b = 0; b < 3; ++b) {
                    const V value = ninth(taps[b]);
                    store_part<L>(dw + (f * 9 + a * 3 + b) * x_.C + c, value, count);
                    for (int l = 0; l < count; ++l) bad += value[l] * 0.0f;
                }
            }
        }
        return bad == 0;
    }

    const Correlation<float>&x_, &dy_;
    TileRows rows_;
    BlockWidth width_;
    int64_t block_, blocks_, sum_plane_, size_, chunks_;
    int64_t held_;  // so many rows of tiles have their planes held at once
    int64_t gradient_step_, source_plane_, gradient_plane_;
    const int64_t* offset_;
    float* sums_;
};

}  // namespace

bool winograd_weight_sums(const Correlation<float>& x, const Correlation<float>& dy, float* dw) {
    Scratch scratch;
    return WinogradWeight(x, dy, scratch).run(dw);
}

}  // namespace minicnn
