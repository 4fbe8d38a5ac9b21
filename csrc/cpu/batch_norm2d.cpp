// Batch norm, alone and in one pass with what follows it: the sum with a residual, ReLU or a max-pool.
//
// Sums over the batch are taken in a fixed number of parts, and each part in blocks of pixels.  A block
// is summed in T, or in float for bfloat16; the sums of blocks and parts are added in double and in order.
// So long sums stay exact, and the result does not depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/scratch.h"
#include "max_pool2d.h"

namespace minicnn {
namespace {

constexpr std::int64_t most_parts = 64, block_pixels = 128;

std::int64_t parts_of(std::int64_t items) { return std::min(items, most_parts); }

// Cuts `items` items of so many elements each into parts, and calls f(part, first item, last item) for
// each.
template <typename F>
void for_each_part(std::int64_t items, std::int64_t elements, const F& f) {
    const std::int64_t parts = parts_of(items);
    const std::int64_t grain = items_per_piece(items * elements / std::max(parts, std::int64_t{1}));
    parallel_for(0, parts, grain, [&](std::int64_t from, std::int64_t to) {
        for (std::int64_t part = from; part < to; ++part) {
            f(part, items * part / parts, items * (part + 1) / parts);
        }
    });
}

// Cuts the channels into groups whose width is a compile-time constant, so that their sums stay in
// registers, and calls f(width, first channel) for each.
template <typename F>
void for_channel_groups(std::int64_t C, const F& f) {
    std::int64_t c = 0;
    for (; c + 32 <= C; c += 32) f(std::integral_constant<int, 32>(), c);
    for (; c + 8 <= C; c += 8) f(std::integral_constant<int, 8>(), c);
    for (; c < C; ++c) f(std::integral_constant<int, 1>(), c);
}

// Values as they are summed: bfloat16 is widened into the buffer, of which the compiler makes vectors.
template <typename T>
const T* as_summed(const T* values, std::int64_t, T*) {
    return values;
}
template <typename T>
Sum<T>* buffer_of(std::int64_t count, Scratch& scratch) {
    return std::is_same_v<T, Sum<T>> ? nullptr : scratch.take<Sum<T>>(count);
}
const float* as_summed(const bfloat16* values, std::int64_t count, float* buffer) {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) buffer[i] = to_float(values[i]);
    return buffer;
}

// ---- forward -------------------------------------------------------------------------------------

// The mean of one channel over some pixels, and the sum of the squared distances from it.
struct Moments {
    double mean, squares;
};

// Joins the moments of `more` pixels to those of `count`.  Source: Chan, Golub and LeVeque 1979.
void join(Moments& a, double count, const Moments& b, double more) {
    const double delta = b.mean - a.mean, share = more / (count + more);
    a.mean += delta * share;
    a.squares += b.squares + delta * delta * count * share;
}

// Adds a block of pixels to the moments of `count` pixels before it.
template <typename T>
void add_block(const T* x, std::int64_t pixels, std::int64_t C, std::int64_t count, Moments* moments) {
    for_channel_groups(C, [&](auto width, std::int64_t c0) {
        T sum[width] = {}, squares[width] = {}, mean[width];
        for (std::int64_t i = 0; i < pixels; ++i) {
            for (int c = 0; c < width; ++c) sum[c] += x[i * C + c0 + c];
        }
        for (int c = 0; c < width; ++c) mean[c] = sum[c] / T(pixels);
        for (std::int64_t i = 0; i < pixels; ++i) {
            for (int c = 0; c < width; ++c) {
                const T distance = x[i * C + c0 + c] - mean[c];
                squares[c] += distance * distance;
            }
        }
        for (int c = 0; c < width; ++c) {
            join(moments[c0 + c], double(count), {double(mean[c]), double(squares[c])}, double(pixels));
        }
    });
}

// The moments of every channel over all pixels; NaN for an empty batch.
template <typename T>
std::vector<Moments> batch_moments(const T* x, std::int64_t pixels, std::int64_t C) {
    std::vector<Moments> moments(std::size_t(std::max(parts_of(pixels), std::int64_t{1}) * C));
    for_each_part(pixels, C, [&](std::int64_t part, std::int64_t first, std::int64_t last) {
        Scratch scratch;
        Sum<T>* buffer = buffer_of<T>(block_pixels * C, scratch);
        for (std::int64_t i = first; i < last; i += block_pixels) {
            const std::int64_t count = std::min(block_pixels, last - i);
            add_block(as_summed(x + i * C, count * C, buffer), count, C, i - first,
                      &moments[std::size_t(part * C)]);
        }
    });
    const std::int64_t parts = parts_of(pixels);
    for (std::int64_t part = 1; part < parts; ++part) {
        const std::int64_t first = pixels * part / parts, last = pixels * (part + 1) / parts;
        for (std::int64_t c = 0; c < C; ++c) {
            join(moments[std::size_t(c)], double(first), moments[std::size_t(part * C + c)],
                 double(last - first));
        }
    }
    if (pixels == 0) std::fill(moments.begin(), moments.end(), Moments{NAN, NAN});
    return moments;
}

template <typename T>
void move_towards(T* running, double value, double momentum) {
    if (running) *running = T(1 - momentum) * *running + T(momentum) * T(value);
}

// Fills mean and invstd, and moves the running statistics in training.
template <typename T>
void find_statistics(const T* x, Sum<T>* running_mean, Sum<T>* running_var, Sum<T>* mean, Sum<T>* invstd,
                     const ImageShape& s, const BatchNormParams& p) {
    if (!p.training) {
        for (std::int64_t c = 0; c < s.C; ++c) {
            mean[c] = running_mean[c];
            invstd[c] = Sum<T>(1 / std::sqrt(double(running_var[c]) + p.eps));
        }
        return;
    }
    const std::int64_t pixels = s.N * s.H * s.W;
    // Step 1: the mean and the variance of each channel.
    const std::vector<Moments> moments = batch_moments(x, pixels, s.C);
    for (std::int64_t c = 0; c < s.C; ++c) {
        const auto [average, squares] = moments[std::size_t(c)];
        mean[c] = Sum<T>(average);
        invstd[c] = Sum<T>(1 / std::sqrt(squares / double(pixels) + p.eps));
        if (pixels == 0) continue;  // an empty batch has no statistics
        // Step 2: move the running statistics towards them.
        move_towards(running_mean ? running_mean + c : nullptr, average, p.momentum);
        const double unbiased = squares / double(pixels - 1);
        move_towards(running_var ? running_var + c : nullptr, unbiased, p.momentum);
    }
}

// invstd * weight, and bias, of each channel.
template <typename T>
struct Affine {
    std::vector<T> scale, shift;

    Affine(const T* weight, const T* bias, const T* invstd, std::int64_t C)
        : scale(invstd, invstd + C), shift(std::size_t(C), T(0)) {
        for (std::int64_t c = 0; weight && c < C; ++c) scale[std::size_t(c)] *= weight[c];
        if (bias) std::copy(bias, bias + C, shift.begin());
    }
};

// ---- backward ------------------------------------------------------------------------------------

// What one channel's dx needs: dx = scale * (g - offset - (x - mean) * slope).
template <typename T>
struct Coefficients {
    std::vector<T> scale, offset, slope;
};

// The sums of g and of g * (x - mean) over pixels, for each channel.
template <typename T>
void add_row_sums(const T* g, const T* x, const T* mean, std::int64_t pixels, std::int64_t C,
                  double* sums) {
    for_channel_groups(C, [&](auto width, std::int64_t c0) {
        T sum[width] = {}, product[width] = {}, centre[width];
        for (int c = 0; c < width; ++c) centre[c] = mean[c0 + c];
        for (std::int64_t i = 0; i < pixels; ++i) {
            for (int c = 0; c < width; ++c) {
                const T value = g[i * C + c0 + c];
                sum[c] += value;
                product[c] += value * (x[i * C + c0 + c] - centre[c]);
            }
        }
        for (int c = 0; c < width; ++c) {
            sums[c0 + c] += double(sum[c]);
            sums[C + c0 + c] += double(product[c]);
        }
    });
}

// The backward pass.  gradient_row(row, buffer, again) gives the gradient at batch norm's own output for
// one row of an image.  It returns a pointer to it, or fills the buffer and returns that.  `again` says
// that it gave the same row before.
template <typename T, typename GradientRow>
void backward(const GradientRow& gradient_row, const T* x, const Sum<T>* weight, const Sum<T>* mean,
              const Sum<T>* invstd, T* dx, Sum<T>* dw, Sum<T>* db, const ImageShape& s, bool training) {
    const std::int64_t rows = s.N * s.H, length = s.W * s.C, C = s.C;
    const std::int64_t parts = std::max(parts_of(rows), std::int64_t{1});
    std::vector<double> sums(std::size_t(parts * 2 * C));
    const bool summed = training || dw || db || !dx;
    const auto add_part = [&](std::int64_t part, std::int64_t first, std::int64_t last) {
        Scratch scratch;
        T* buffer = scratch.take<T>(length);
        Sum<T>*wide_g = buffer_of<T>(block_pixels * C, scratch),
        *wide_x = buffer_of<T>(block_pixels * C, scratch);
        for (std::int64_t row = first; row < last; ++row) {
            const T* g = gradient_row(row, buffer, false);
            for (std::int64_t w = 0; w < s.W; w += block_pixels) {
                const std::int64_t count = std::min(block_pixels, s.W - w);
                add_row_sums(as_summed(g + w * C, count * C, wide_g),
                             as_summed(x + row * length + w * C, count * C, wide_x), mean, count, C,
                             &sums[std::size_t(part * 2 * C)]);
            }
        }
    };
    // Step 4: sum dy, and dy times the normalised x.
    if (summed) for_each_part(rows, length, add_part);
    for (std::int64_t part = 1; part < parts; ++part) {
        for (std::int64_t i = 0; i < 2 * C; ++i)
            sums[std::size_t(i)] += sums[std::size_t(part * 2 * C + i)];
    }

    using S = Sum<T>;
    Coefficients<S> k{Affine<S>(weight, nullptr, invstd, C).scale, std::vector<S>(std::size_t(C)),
                      std::vector<S>(std::size_t(C))};
    const double count = double(std::max(rows * s.W, std::int64_t{1}));
    for (std::int64_t c = 0; c < C; ++c) {
        const double sum = sums[std::size_t(c)], product = sums[std::size_t(C + c)],
                     inverse = double(invstd[c]);
        if (db) db[c] = S(sum);
        if (dw) dw[c] = rows == 0 ? S(0) : S(product * inverse);  // an empty batch makes `inverse` NaN
        if (training) {
            k.offset[std::size_t(c)] = S(sum / count);
            k.slope[std::size_t(c)] = S(product * inverse * inverse / count);
        }
    }
    if (!dx) return;
    parallel_for(0, rows, items_per_piece(length), [&](std::int64_t first, std::int64_t last) {
        Scratch scratch;
        T* buffer = scratch.take<T>(length);
        const S *scale = k.scale.data(), *offset = k.offset.data(), *slope = k.slope.data();
        for (std::int64_t row = first; row < last; ++row) {
            const T* g = gradient_row(row, buffer, summed);
            for (std::int64_t i = 0; i < length; i += C) {
                const T* pixel = x + row * length + i;
                T* result = dx + row * length + i;
#pragma GCC ivdep
                for (std::int64_t c = 0; c < C; ++c) {
                    // Step 5: take from dy what normalisation cancels.
                    const S centred = widen(pixel[c]) - mean[c];
                    result[c] = narrow<T>(scale[c] * (widen(g[i + c]) - offset[c] - centred * slope[c]));
                }
            }
        }
    });
}

}  // namespace

template <typename T>
void batch_norm2d_forward(const T* x, const Sum<T>* weight, const Sum<T>* bias, Sum<T>* running_mean,
                          Sum<T>* running_var, const T* residual, T* y, Sum<T>* mean, Sum<T>* invstd,
                          const ImageShape& s, const BatchNormParams& p, bool relu) {
    using S = Sum<T>;
    find_statistics(x, running_mean, running_var, mean, invstd, s, p);
    const Affine<S> affine(weight, bias, invstd, s.C);
    const S *scale = affine.scale.data(), *shift = affine.shift.data();
    const auto normalise = [=, C = s.C](const auto& finish) {
        parallel_for(0, s.N * s.H * s.W, items_per_piece(C), [&](std::int64_t first, std::int64_t last) {
            for (std::int64_t i = first * C; i < last * C; i += C) {
#pragma GCC ivdep
                for (std::int64_t c = 0; c < C; ++c) {
                    // Step 3: normalise, scale and shift.
                    y[i + c] = narrow<T>(finish((widen(x[i + c]) - mean[c]) * scale[c] + shift[c], i + c));
                }
            }
        });
    };
    const auto rectified = [](S value) { return value < 0 ? S(0) : value; };
    if (residual && relu) {
        normalise([=](S value, std::int64_t i) { return rectified(value + widen(residual[i])); });
    } else if (residual) {
        normalise([=](S value, std::int64_t i) { return value + widen(residual[i]); });
    } else if (relu) {
        normalise([=](S value, std::int64_t) { return rectified(value); });
    } else {
        normalise([](S value, std::int64_t) { return value; });
    }
}

template <typename T>
void batch_norm2d_backward(const T* dy, const T* relu_y, const T* x, const Sum<T>* weight,
                           const Sum<T>* mean, const Sum<T>* invstd, T* dx, T* dresidual, Sum<T>* dw,
                           Sum<T>* db, const ImageShape& s, bool training) {
    const std::int64_t length = s.W * s.C;
    const auto gradient_row = [=](std::int64_t row, T* buffer, bool again) -> const T* {
        const T* upstream = dy + row * length;
        if (!relu_y && !dresidual) return upstream;
        if (again && dresidual) return dresidual + row * length;
        // the residual's gradient is the same as batch norm's
        T* g = dresidual ? dresidual + row * length : buffer;
        if (!relu_y) {
            std::copy_n(upstream, length, g);
            return g;
        }
        const T* output = relu_y + row * length;
#pragma GCC ivdep
        for (std::int64_t i = 0; i < length; ++i) g[i] = relu_gradient(output[i], upstream[i]);
        return g;
    };
    backward(gradient_row, x, weight, mean, invstd, dx, dw, db, s, training);
}

template <typename T, typename Index>
void batch_norm2d_pool_forward(const T* x, const Sum<T>* weight, const Sum<T>* bias, Sum<T>* running_mean,
                               Sum<T>* running_var, T* y, Index* argmax, Sum<T>* mean, Sum<T>* invstd,
                               const ImageShape& s, const BatchNormParams& p, const PoolParams& pool) {
    find_statistics(x, running_mean, running_var, mean, invstd, s, p);
    const Affine<Sum<T>> affine(weight, bias, invstd, s.C);
    const Sum<T>*scale = affine.scale.data(), *shift = affine.shift.data();
    const auto normalised = [=](auto L, std::int64_t offset, std::int64_t c) {
        return (load_wide<L>(x + offset + c) - load<L>(mean + c)) * load<L>(scale + c) + load<L>(shift + c);
    };
    const auto rectify = [](const auto& maxima) { return relu(maxima); };
    max_pool<Denormals::zero>(normalised, rectify, y, argmax, s, pool);
}

template <typename T, typename Index>
void batch_norm2d_pool_backward(const T* dy, const T* y, const Index* argmax, const T* x,
                                const Sum<T>* weight, const Sum<T>* mean, const Sum<T>* invstd, T* dx,
                                Sum<T>* dw, Sum<T>* db, const ImageShape& s, bool training,
                                const PoolParams& pool) {
    const auto rectified = [=](std::int64_t i) { return relu_gradient(y[i], dy[i]); };
    // The gradient is kept in dx, because collecting it a second time takes longer.
    const auto gradient_row = [&](std::int64_t row, T* buffer, bool again) -> const T* {
        T* g = dx ? dx + row * s.W * s.C : buffer;
        if (!again) max_pool_dx_row(rectified, argmax, g, row / s.H, row % s.H, s, pool);
        return g;
    };
    backward(gradient_row, x, weight, mean, invstd, dx, dw, db, s, training);
}

#define INSTANTIATE(T, S)                                                                               \
    template void batch_norm2d_forward(const T*, const S*, const S*, S*, S*, const T*, T*, S*, S*,      \
                                       const ImageShape&, const BatchNormParams&, bool);                \
    template void batch_norm2d_backward(const T*, const T*, const T*, const S*, const S*, const S*, T*, \
                                        T*, S*, S*, const ImageShape&, bool)
INSTANTIATE(float, float);
INSTANTIATE(double, double);
INSTANTIATE(bfloat16, float);

#define INSTANTIATE_POOL(T, S, Index)                                                                      \
    template void batch_norm2d_pool_forward(const T*, const S*, const S*, S*, S*, T*, Index*, S*, S*,      \
                                            const ImageShape&, const BatchNormParams&, const PoolParams&); \
    template void batch_norm2d_pool_backward(const T*, const T*, const Index*, const T*, const S*,         \
                                             const S*, const S*, T*, S*, S*, const ImageShape&, bool,      \
                                             const PoolParams&)
INSTANTIATE_POOL(float, float, std::uint8_t);
INSTANTIATE_POOL(float, float, std::int64_t);
INSTANTIATE_POOL(double, double, std::uint8_t);
INSTANTIATE_POOL(double, double, std::int64_t);
INSTANTIATE_POOL(bfloat16, float, std::uint8_t);
INSTANTIATE_POOL(bfloat16, float, std::int64_t);

}  // namespace minicnn
