// The gradient to 3x3 filters by Winograd's F(3x3, 4x4): the same 36 planes of x as in the forward pass,
// times planes of the gradient's 4x4 tiles, summed over all tiles, and one transform back for each filter
// at the end. Fused: padding into the copy of x; ReLU mask or the max-pool's winners into that of the
// gradient.
#include <atomic>

#include "batch_split.h"
#include "elementwise.h"
#include "gradient_tile.h"
#include "winograd.h"

namespace minicnn {
namespace {

constexpr int L = lanes<float>;
using V = Vec<float, L>;

// 3 G g for a column of four values; see winograd_filter_column.
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

// One 4x4 patch of L channels of the gradient into the 36 planes.
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

// So many tiles or more, that a chunk's sums cost more than keeping and adding them.
constexpr int64_t tiles_per_chunk = 32;

class Runner {
  public:
    Runner(const Correlation<float>& x, const Correlation<float>& dy)
        : x_(x),
          dy_(dy),
          rows_(x),
          depth_((x.C + L - 1) / L * L),
          width_(block_width<float>(x.F) == two_vectors ? two_vectors : one_vector),
          block_(block_lanes<float>(width_)),
          padded_((x.F + block_ - 1) / block_ * block_),
          source_plane_(rows_.tiles() * depth_ + L),
          size_(winograd_planes * padded_ * x.C),
          split_((rows_.total + rows_.per_block - 1) / rows_.per_block, padded_ / block_,
                 size_ * static_cast<int64_t>(sizeof(float)),
                 rows_.total * rows_.across / tiles_per_chunk) {
        int64_t* offset = scratch<int64_t>(Slot::shared_offsets, x.C);
        for (int64_t i = 0; i < x.C; ++i) offset[i] = i;
        offset_ = offset;
        partials_ = scratch<float>(Slot::shared_partials, split_.chunks * size_);
    }

    bool run(float* dw) const {
        const int64_t tasks = split_.chunks * split_.parts;
        const double flops = 2.0 * winograd_planes * static_cast<double>(rows_.total * rows_.across) *
                             static_cast<double>(x_.C * padded_) / static_cast<double>(tasks);
        parallel_for(0, tasks, grain_for(flops), [&](int64_t first, int64_t last) {
            for (int64_t task = first; task < last; ++task) sum(task / split_.parts, task % split_.parts);
        });
        std::atomic<bool> finite{true};
        const int64_t values = winograd_planes * x_.C * L * split_.chunks;
        parallel_for(0, padded_ / L, items_per_piece(values), [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) {
                if (!add_chunks(i * L, dw)) finite.store(false, std::memory_order_relaxed);
            }
        });
        return finite;
    }

  private:
    // plane p, block of filters: [c][lane]
    float* partial(int64_t chunk, int64_t p, int64_t block) const {
        return partials_ + chunk * size_ + (p * padded_ + block * block_) * x_.C;
    }

    void sum(int64_t chunk, int64_t part) const {
        const int64_t b0 = split_.first_block(part), b1 = split_.first_block(part + 1),
                      width = (b1 - b0) * block_;
        const int64_t gradient_plane = rows_.tiles() * width + L;
        float* sources = scratch<float>(Slot::lists, winograd_planes * source_plane_);
        float* gradients = scratch<float>(Slot::map, winograd_planes * gradient_plane);
        for (int64_t unit = split_.first_unit(chunk); unit < split_.first_unit(chunk + 1); ++unit) {
            const int64_t from = unit * rows_.per_block, to = std::min(from + rows_.per_block, rows_.total);
            for (int64_t row = from; row < to; ++row) {
                const int64_t tile = (row - from) * rows_.across;
                read_row(row, sources + tile * depth_);
                read_gradient_row(row, b0 * block_, width, gradients + tile * width, gradient_plane);
            }
            for (int64_t p = 0; p < winograd_planes; ++p) {
                for (int64_t b = b0; b < b1; ++b) {
                    const GradientInput<float> in{sources + p * source_plane_,
                                                  0,
                                                  depth_,
                                                  offset_,
                                                  gradients + p * gradient_plane + (b - b0) * block_,
                                                  0,
                                                  width,
                                                  1,
                                                  (to - from) * rows_.across,
                                                  unit == split_.first_unit(chunk)};
                    add_gradient(in, x_.C, width_, partial(chunk, p, b));
                }
            }
        }
    }

    void read_row(int64_t row, float* to) const {
        const int64_t width = 4 * rows_.across + 2, h0 = row % rows_.down * 4 + x_.h.lowest(),
                      w0 = x_.w.lowest();
        float* copy = scratch<float>(Slot::image, 6 * width * x_.C);
        read_window(x_, row / rows_.down, h0, h0 + 6, w0, w0 + width, copy);
        for (int64_t t = 0; t < rows_.across; ++t) {
            for (int64_t c = 0; c < x_.C; c += L) {
                transform_source(copy + 4 * t * x_.C + c, width * x_.C, x_.C, to + t * depth_ + c,
                                 source_plane_);
            }
        }
    }

    // Filters [f0, f0 + width) of a row of tiles of the gradient; what lies behind the last filter counts
    // for nothing.
    void read_gradient_row(int64_t row, int64_t f0, int64_t width, float* to, int64_t plane) const {
        const int64_t cols = 4 * rows_.across, F = x_.F, h0 = row % rows_.down * 4;
        float* copy = scratch<float>(Slot::image, 4 * cols * F + 2 * L);
        std::fill_n(copy + 4 * cols * F, 2 * L, 0.0f);
        read_window(dy_, row / rows_.down, h0, h0 + 4, 0, cols, copy);
        for (int64_t t = 0; t < rows_.across; ++t) {
            for (int64_t f = 0; f < width; f += L) {
                transform_gradient(copy + 4 * t * F + std::min(f0 + f, F), cols * F, F, to + t * width + f,
                                   plane);
            }
        }
    }

    // Adds the chunks in order and transforms filters [f, f + L) back; whether all is finite.
    bool add_chunks(int64_t f, float* dw) const {
        const int64_t count = std::clamp<int64_t>(x_.F - f, 0, L), block = f / block_;
        float bad = 0;
        for (int64_t c = 0; c < x_.C; ++c) {
            V m[6][6], half[3][6];
            for (int64_t p = 0; p < winograd_planes; ++p) {
                const int64_t at = c * block_ + f % block_;
                V total = load<L>(partial(0, p, block) + at);
                for (int64_t chunk = 1; chunk < split_.chunks; ++chunk) {
                    total += load<L>(partial(chunk, p, block) + at);
                }
                m[p % 6][p / 6] = total;
            }
            for (int b = 0; b < 6; ++b) {
                V taps[3];
                tap_column(m[b], taps);
                for (int a = 0; a < 3; ++a) half[a][b] = taps[a];
            }
            for (int a = 0; a < 3; ++a) {
                V taps[3];
                tap_column(half[a], taps);
                for (int b = 0; b < 3; ++b) {
                    const V value = ninth(taps[b]);
                    for (int64_t l = 0; l < count; ++l) {
                        dw[((f + l) * 9 + a * 3 + b) * x_.C + c] = value[l];
                        bad += value[l] * 0.0f;
                    }
                }
            }
        }
        return bad == 0;
    }

    const Correlation<float>&x_, &dy_;
    TileRows rows_;
    int64_t depth_;
    BlockWidth width_;
    int64_t block_, padded_, source_plane_, size_;
    BatchSplit split_;
    const int64_t* offset_;
    float* partials_;
};

}  // namespace

bool winograd_weight(const Correlation<float>& x, const Correlation<float>& dy, float* dw) {
    return Runner(x, dy).run(dw);
}

}  // namespace minicnn
