// Arrays as tensor cores read them: with channels that fill 16 bytes, weights rounded to bfloat16 beside
// bfloat16, and gradients that have passed back through a ReLU or a max-pool.

#include "tensor_conv2d.h"

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
            values.v[k] = minicnn::narrow<T>(in ? float(widen(source[k])) : 0.0f);
        }
        store(to + i, values);
    }
};

// dy behind a ReLU or a max-pool as the gradient of the map before it, padded.
template <typename T>
struct Unmask {
    Upstream<T, true> upstream;
    Pixels pixels;
    T* to;
    int filters, wide, groups;  // of a group, and padded
    bool whole;                 // whether 16 bytes can be loaded at once

    template <int V>
    __device__ void at(std::int64_t i) const {
        const std::int64_t pixel = divide(i, std::int64_t(groups) * wide);
        const int rest = int(i - pixel * groups * wide), group = rest / wide, f = rest - group * wide;
        const auto from = upstream.pixel(pixels.at(pixel));
        Vector<T, V> values{};
        if (from.in) {
            const std::int64_t offset = from.offset + group * filters + f;
            if (whole) {
                values = load_values<V>(upstream.dy + offset);
                mask(values, from.cell, offset, V);
            } else {
#pragma unroll
                for (int k = 0; k < V; ++k) {
                    if (f + k < filters) values.v[k] = upstream.dy[offset + k];
                }
                mask(values, from.cell, offset, filters - f);
            }
        }
        store(to + i, values);
    }

    template <int V, typename U>
    __device__ static Vector<U, V> load_values(const U* at) {
        return *reinterpret_cast<const Vector<U, V>*>(at);
    }

    // Makes those of the first `count` values zero that the mask excludes.
    template <int V>
    __device__ void mask(Vector<T, V>& values, int cell, std::int64_t offset, int count) const {
        if (upstream.winner) {
            Vector<std::uint8_t, V> won{};
            if (whole) won = load_values<V>(upstream.winner + offset);
#pragma unroll
            for (int k = 0; k < V; ++k) {
                if (!whole && k < count) won.v[k] = upstream.winner[offset + k];
                if (won.v[k] != cell) values.v[k] = T{};
            }
        } else {
            Vector<T, V> y{};
            if (whole) y = load_values<V>(upstream.relu_y + offset);
#pragma unroll
            for (int k = 0; k < V; ++k) {
                if (!whole && k < count) y.v[k] = upstream.relu_y[offset + k];
                if (widen(y.v[k]) <= 0) values.v[k] = T{};
            }
        }
    }
};

}  // namespace

template <typename T>
TensorArray<T> tensor_images(const T* x, const ConvParams& p) {
    const std::int64_t channels = p.C / p.groups, wide = padded<T>(channels);
    if (wide == channels && aligned(x)) return TensorArray<T>(x);
    const std::int64_t lines = p.N * p.H * p.W * p.groups;
    return TensorArray<T>(lines * wide, [&](T* copy) {
        for_each<T>(Pad<T, T>{x, copy, lines, lines, int(channels), int(wide)}, lines * wide, true);
    });
}

template <typename T>
TensorArray<T> tensor_filters(const float* weight, const ConvParams& p) {
    const std::int64_t channels = p.C / p.groups, wide = padded<T>(channels);
    const std::int64_t filters = p.F / p.groups, many = padded<T>(filters);
    if constexpr (std::is_same_v<T, float>) {
        if (wide == channels && many == filters && aligned(weight)) return TensorArray<T>(weight);
    }
    const std::int64_t size = p.groups * many * p.KH * p.KW * wide;
    return TensorArray<T>(size, [&](T* copy) {
        const Pad<float, T> pad{weight,        copy,     filters * p.KH * p.KW, many * p.KH * p.KW,
                                int(channels), int(wide)};
        for_each<T>(pad, size, true);
    });
}

template <typename T>
TensorArray<T> tensor_gradient(const T* dy, const Fused& f, const ConvParams& p) {
    const std::int64_t filters = p.F / p.groups, wide = padded<T>(filters);
    const std::int64_t lines = p.N * p.OH * p.OW * p.groups;
    const bool masked = f.relu_y || f.winner, whole = wide == filters && aligned(dy);
    if (!masked && whole) return TensorArray<T>(dy);
    return TensorArray<T>(lines * wide, [&](T* copy) {
        if (masked) {
            const Unmask<T> unmask{Upstream<T, true>(dy, p, f),
                                   Pixels(p.OH, p.OW),
                                   copy,
                                   int(filters),
                                   int(wide),
                                   int(p.groups),
                                   whole && aligned(f.relu_y) && aligned(f.winner)};
            for_each<T>(unmask, lines * wide, true);
        } else {
            for_each<T>(Pad<T, T>{dy, copy, lines, lines, int(filters), int(wide)}, lines * wide, true);
        }
    });
}

template <typename T>
void tensor_conv2d_gradients(const T* dy, const Fused& f, const T* x, const float* weight, T* dx, float* dw,
                             const ConvParams& p) {
    if (!dx && !dw) return;
    const TensorArray<T> gradient = tensor_gradient(dy, f, p);
    if (dx) tensor_input_gradient(gradient.get(), tensor_filters<T>(weight, p).get(), dx, p);
    if (dw) tensor_weight_gradient(gradient.get(), tensor_images(x, p).get(), dw, p);
}

#define INSTANTIATE(T)                                                                                \
    template TensorArray<T> tensor_images(const T*, const ConvParams&);                               \
    template TensorArray<T> tensor_filters(const float*, const ConvParams&);                          \
    template void tensor_conv2d_gradients(const T*, const Fused&, const T*, const float*, T*, float*, \
                                          const ConvParams&)
INSTANTIATE(float);
INSTANTIATE(bfloat16);

}  // namespace minicnn::cuda
