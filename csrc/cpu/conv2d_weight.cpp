// The gradient of a convolution to its filters: register tiles of (tap, channel) times filters,
// accumulated over the pixels of a band; partial sums over fixed chunks of the batch, added in order.
// Fused: zero padding and ReLU mask into the copies that the tiles read.
#include "conv2d_weight.h"

#include "batch_split.h"
#include "correlation.h"
#include "gradient_tile.h"

namespace minicnn {
namespace {

template <typename T>
class WeightGradient {
  public:
    WeightGradient(const T* dy, const T* relu_y, const T* x, const ConvParams& p)
        : dy_(dy),
          relu_y_(relu_y),
          x_(x),
          p_(p),
          h_{-p.pad_h, p.dil_h, p.KH, p.stride_h},
          w_{-p.pad_w, p.dil_w, p.KW, p.stride_w},
          width_(w_.end(p.OW - 1) - w_.begin(0)),
          Fg_(p.F / p.groups),
          Cg_(p.C / p.groups),
          depth_(p.KH * p.KW * Cg_),
          padded_(padded_lanes<T>(Fg_)),
          inside_(p.pad_h == 0 && p.pad_w == 0),
          dy_direct_(!relu_y && padded_ == Fg_),
          bands_(p.N, p.OH, (p.stride_h * row_stride() + p.OW * p.F) * static_cast<int64_t>(sizeof(T)),
                 2.0 * depth_ * p.F * p.OW),
          split_(p.N * bands_.per_image, p.groups * blocks_per_group(),
                 size() * static_cast<int64_t>(sizeof(T))) {
        int64_t* offset = scratch<int64_t>(Slot::shared_offsets, depth_);
        offset_ = offset;
        for (int64_t u = 0; u < p.KH; ++u) {
            for (int64_t v = 0; v < p.KW; ++v) {
                for (int64_t c = 0; c < Cg_; ++c)
                    *offset++ = u * p.dil_h * row_stride() + v * p.dil_w * p.C + c;
            }
        }
        partials_ = scratch<T>(Slot::shared_partials, split_.chunks * size());
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
    // Group, first lane in the group and width of a block of filters.
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
        for (int64_t b = b0; b < b1; ++b) {
            const Block block = block_at(b);
            std::fill_n(partial(chunk, block), block_lanes<T>(block.width) * depth_, T(0));
        }
        for (int64_t unit = split_.first_unit(chunk); unit < split_.first_unit(chunk + 1); ++unit) {
            const int64_t n = unit / bands_.per_image, r0 = unit % bands_.per_image * bands_.rows;
            const int64_t r1 = std::min(r0 + bands_.rows, p_.OH);
            const T* x = x_band(n, r0, r1);
            for (int64_t b = b0; b < b1; ++b) {
                const Block block = block_at(b);
                GradientInput<T> in{x + block.group * Cg_,
                                    p_.stride_h * row_stride(),
                                    p_.stride_w * p_.C,
                                    offset_,
                                    nullptr,
                                    0,
                                    0,
                                    r1 - r0,
                                    p_.OW};
                set_dy(in, n, r0, r1, block);
                add_gradient(in, depth_, block.width, partial(chunk, block));
            }
        }
    }

    const T* x_band(int64_t n, int64_t r0, int64_t r1) const {
        const T* image = x_ + n * p_.H * p_.W * p_.C;
        const int64_t h0 = h_.begin(r0), h1 = h_.end(r1 - 1), w0 = w_.begin(0);
        if (inside_) return image + h0 * row_stride();
        T* copy = scratch<T>(Slot::image, (h1 - h0) * row_stride());
        copy_window<T>(image, nullptr, p_.H, p_.W, p_.C, h0, h1, w0, w0 + width_, copy);
        return copy;
    }

    // dy of one block of filters: in place, or a masked copy with whole vectors.
    void set_dy(GradientInput<T>& in, int64_t n, int64_t r0, int64_t r1, const Block& b) const {
        const int64_t at = (n * p_.OH + r0) * p_.OW * p_.F + b.group * Fg_ + b.lane,
                      pixels = (r1 - r0) * p_.OW;
        in.dy_col = dy_direct_ ? p_.F : block_lanes<T>(b.width);
        in.dy_row = p_.OW * in.dy_col;
        in.dy = dy_ + at;
        if (dy_direct_) return;
        T* copy = scratch<T>(Slot::map, pixels * in.dy_col);
        const int64_t count = std::min<int64_t>(in.dy_col, Fg_ - b.lane);
        for (int64_t i = 0; i < pixels; ++i) {
            const T *from = dy_ + at + i * p_.F, *mask = relu_y_ ? relu_y_ + at + i * p_.F : nullptr;
            T* to = copy + i * in.dy_col;
            for (int64_t f = 0; f < count; ++f) to[f] = mask && mask[f] <= 0 ? T(0) : from[f];
            for (int64_t f = count; f < in.dy_col; ++f) to[f] = T(0);
        }
        in.dy = copy;
    }

    // Adds the chunks' partial sums in order and turns [k][lane] into rows of dw.
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

    const T *dy_, *relu_y_, *x_;
    const ConvParams& p_;
    Taps h_, w_;
    int64_t width_, Fg_, Cg_, depth_, padded_;
    bool inside_, dy_direct_;
    Bands bands_;
    BatchSplit split_;
    const int64_t* offset_;
    T* partials_;
};

}  // namespace

template <typename T>
void sum_channels(const T* dy, const T* relu_y, T* db, int64_t pixels, int64_t F) {
    const BatchSplit split(pixels / 256, 1, F * static_cast<int64_t>(sizeof(T)));
    T* partials = scratch<T>(Slot::shared_partials, split.chunks * F);
    parallel_for(0, split.chunks, grain_for(static_cast<double>(pixels * F) / split.chunks),
                 [&](int64_t first, int64_t last) {
                     for (int64_t chunk = first; chunk < last; ++chunk) {
                         T* sum = partials + chunk * F;
                         std::fill_n(sum, F, T(0));
                         for (int64_t i = pixels * chunk / split.chunks;
                              i < pixels * (chunk + 1) / split.chunks; ++i) {
                             const T *from = dy + i * F, *mask = relu_y ? relu_y + i * F : nullptr;
                             if (mask) {
                                 for (int64_t f = 0; f < F; ++f) sum[f] += mask[f] <= 0 ? T(0) : from[f];
                             } else {
                                 for (int64_t f = 0; f < F; ++f) sum[f] += from[f];
                             }
                         }
                     }
                 });
    std::copy_n(partials, F, db);
    for (int64_t chunk = 1; chunk < split.chunks; ++chunk) {
        for (int64_t f = 0; f < F; ++f) db[f] += partials[chunk * F + f];
    }
}

template <typename T>
void backward_weight(const T* dy, const T* relu_y, const T* x, T* dw, T* db, const ConvParams& p) {
    if (db) sum_channels(dy, relu_y, db, p.N * p.OH * p.OW, p.F);
    if (dw) WeightGradient<T>(dy, relu_y, x, p).run(dw);
}

#define INSTANTIATE(T)                                                    \
    template void sum_channels(const T*, const T*, T*, int64_t, int64_t); \
    template void backward_weight(const T*, const T*, const T*, T*, T*, const ConvParams&);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace minicnn
