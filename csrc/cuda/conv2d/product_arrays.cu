// Arrays as products read them: with channels that fill 16 bytes, weights rounded to bfloat16 beside
// bfloat16, and gradients that have passed back through a ReLU or a max-pool.

#include "products.h"

namespace minicnn::cuda {
namespace {

// Copies lines of `channels` numbers to lines of `wide`, with zeros behind them.  The lines come in blocks
// of `lines`, which become blocks of `padded_lines` with lines of zeros at the end.
template <typename From, typename T>
struct Pad {
    const From* from;
    T* to;
    std::int64_t lines, padded_lines;
    int channels, wide;

    template <int V>
    __device__ void at(std::int64_t i) const {
        const std::int64_t line = divide(i, wide), block = divide(line, padded_lines);
        const std::int64_t in_block = line - block * padded_lines;
        const int c = int(i - line * wide);
        const From* const source = from + (block * lines + in_block) * channels + c;
        Vector<T, V> values;
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const bool in = in_block < lines && c + k < channels;
            values.v[k] = minicnn::narrow<T>(in ? Sum<T>(widen(source[k])) : Sum<T>(0));
        }
        store(to + i, values);
    }
};

// Where the windows of a max-pool lie in the convolution's map.  They do not overlap and have no padding.
struct MapWindows {
    int OH, OW, KH, KW, stride_h, stride_w;
    Divisor by_stride_h, by_stride_w;

    explicit MapWindows(const PoolParams& pool)
        : OH(int(pool.OH)),
          OW(int(pool.OW)),
          KH(int(pool.KH)),
          KW(int(pool.KW)),
          stride_h(narrow(pool.stride_h, "stride")),
          stride_w(narrow(pool.stride_w, "stride")),
          by_stride_h(pool.stride_h),
          by_stride_w(pool.stride_w) {}

    // The number of the window that a pixel lies in, or -1, and which cell of it the pixel is.
    struct Place {
        std::int64_t window;
        int cell;
    };
    __device__ Place place(const Pixel& at) const {
        const int h = by_stride_h.quotient(at.h), w = by_stride_w.quotient(at.w);
        const int u = at.h - h * stride_h, v = at.w - w * stride_w;
        if (h >= OH || w >= OW || u >= KH || v >= KW) return {-1, 0};
        return {(at.n * OH + h) * OW + w, u * KW + v};
    }
};

// The gradient of the map before a ReLU, or before a max-pool if there are winners, padded.
template <typename T>
struct Unmask {
    const T *dy, *relu_y;
    const std::uint8_t* winner;
    MapWindows windows;
    Pixels pixels;
    T* to;
    std::int64_t F;
    int filters, wide;  // of a group, and padded
    bool whole;         // whether all numbers of a vector exist and can be loaded at once

    template <int V>
    __device__ void at(std::int64_t i) const {
        const std::int64_t line = divide(i, wide);
        const int f = int(i - line * wide), groups = int(divide(F, filters));
        const std::int64_t pixel = divide(line, groups);
        const int filter = int(line - pixel * groups) * filters + f;
        const auto from = winner ? windows.place(pixels.at(pixel)) : MapWindows::Place{pixel, 0};
        Vector<T, V> values{};
        if (from.window >= 0) {
            const std::int64_t offset = from.window * F + filter;
            const int count = whole ? V : filters - f;
            values = some<V>(dy + offset, count);
            if (winner) {
                const auto won = some<V>(winner + offset, count);
#pragma unroll
                for (int k = 0; k < V; ++k) {
                    if (won.v[k] != from.cell) values.v[k] = T{};
                }
            } else {
                const auto y = some<V>(relu_y + offset, count);
#pragma unroll
                for (int k = 0; k < V; ++k) {
                    if (widen(y.v[k]) <= 0) values.v[k] = T{};
                }
            }
        }
        store(to + i, values);
    }

  private:
    // The first `count` of V numbers, and zeros.
    template <int V, typename U>
    __device__ Vector<U, V> some(const U* at, int count) const {
        if (whole) return *reinterpret_cast<const Vector<U, V>*>(at);
        Vector<U, V> values{};
#pragma unroll
        for (int k = 0; k < V; ++k) {
            if (k < count) values.v[k] = at[k];
        }
        return values;
    }
};

}  // namespace

template <typename T>
PaddedArray<T> padded_images(const T* x, const ConvParams& p) {
    const std::int64_t channels = p.C / p.groups, wide = padded<T>(channels);
    if (wide == channels && aligned(x)) return PaddedArray<T>(x);
    const std::int64_t lines = p.N * p.H * p.W * p.groups;
    return PaddedArray<T>(lines * wide, [&](T* copy) {
        for_each<T>(Pad<T, T>{x, copy, lines, lines, int(channels), int(wide)}, lines * wide, true);
    });
}

template <typename T>
PaddedArray<T> padded_filters(const Sum<T>* weight, const ConvParams& p) {
    const std::int64_t channels = p.C / p.groups, wide = padded<T>(channels);
    const std::int64_t filters = p.F / p.groups, many = padded<T>(filters);
    if constexpr (std::is_same_v<T, Sum<T>>) {
        if (wide == channels && many == filters && aligned(weight)) return PaddedArray<T>(weight);
    }
    const std::int64_t size = p.groups * many * p.KH * p.KW * wide;
    return PaddedArray<T>(size, [&](T* copy) {
        const Pad<Sum<T>, T> pad{weight,        copy,     filters * p.KH * p.KW, many * p.KH * p.KW,
                                 int(channels), int(wide)};
        for_each<T>(pad, size, true);
    });
}

template <typename T>
PaddedArray<T> map_gradient(const T* dy, const Fused& f, const ConvParams& p, std::int64_t wide) {
    const std::int64_t filters = p.F / p.groups, lines = p.N * p.OH * p.OW * p.groups;
    const bool masked = f.relu_y || f.winner, whole = wide == filters && aligned(dy);
    if (!masked && whole) return PaddedArray<T>(dy);
    const bool vectors = wide % full_width<T> == 0;
    return PaddedArray<T>(lines * wide, [&](T* copy) {
        if (masked) {
            const Unmask<T> unmask{dy,
                                   static_cast<const T*>(f.relu_y),
                                   f.winner,
                                   MapWindows(f.pool),
                                   Pixels(p.OH, p.OW),
                                   copy,
                                   p.F,
                                   int(filters),
                                   int(wide),
                                   whole && aligned(f.relu_y) && aligned(f.winner)};
            for_each<T>(unmask, lines * wide, vectors);
        } else {
            for_each<T>(Pad<T, T>{dy, copy, lines, lines, int(filters), int(wide)}, lines * wide, vectors);
        }
    });
}

template <typename T>
void product_gradients(const T* dy, const Fused& f, const T* x, const Sum<T>* weight, T* dx, Sum<T>* dw,
                       const ConvParams& p) {
    if (!dx && !dw) return;
    const PaddedArray<T> gradient = map_gradient(dy, f, p, padded<T>(p.F / p.groups));
    if (dx) product_input_gradient(gradient.get(), padded_filters<T>(weight, p).get(), dx, p);
    if (dw) product_weight_gradient(gradient.get(), padded_images(x, p).get(), dw, p);
}

#define INSTANTIATE(T)                                                                             \
    template PaddedArray<T> padded_images(const T*, const ConvParams&);                            \
    template PaddedArray<T> padded_filters(const Sum<T>*, const ConvParams&);                      \
    template PaddedArray<T> map_gradient(const T*, const Fused&, const ConvParams&, std::int64_t); \
    template void product_gradients(const T*, const Fused&, const T*, const Sum<T>*, T*, Sum<T>*,  \
                                    const ConvParams&)
INSTANTIATE(float);
INSTANTIATE(double);
INSTANTIATE(bfloat16);

}  // namespace minicnn::cuda
