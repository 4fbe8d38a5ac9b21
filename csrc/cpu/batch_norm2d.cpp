// Batch norm, alone and in one pass with what follows it: the sum with a residual, ReLU or a max-pool.
//
// Sums over the batch are taken in a fixed number of parts, and each part in blocks of pixels.  A block
// is summed in T; the sums of blocks and parts are added in double and in order.  So long sums stay
// exact, and the result does not depend on the number of threads.

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
        for (std::int64_t i = first; i < last; i += block_pixels) {
            add_block(x + i * C, std::min(block_pixels, last - i), C, i - first,
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
void find_statistics(const T* x, T* running_mean, T* running_var, T* mean, T* invstd, const ImageShape& s,
                     const BatchNormParams& p) {
    if (!p.training) {
        for (std::int64_t c = 0; c < s.C; ++c) {
            mean[c] = running_mean[c];
            invstd[c] = T(1 / std::sqrt(double(running_var[c]) + p.eps));
        }
        return;
    }
    const std::int64_t pixels = s.N * s.H * s.W;
    // Step 1: the mean and the variance of each channel.
    const std::vector<Moments> moments = batch_moments(x, pixels, s.C);
    for (std::int64_t c = 0; c < s.C; ++c) {
        const auto [average, squares] = moments[std::size_t(c)];
        mean[c] = T(average);
        invstd[c] = T(1 / std::sqrt(squares / double(pixels) + p.eps));
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
void backward(const GradientRow& gradient_row, const T* x, const T* weight, const T* mean, const T* invstd,
              T* dx, T* dw, T* db, const ImageShape& s, bool training) {
    const std::int64_t rows = s.N * s.H, length = s.W * s.C, C = s.C;
    const std::int64_t parts = std::max(parts_of(rows), std::int64_t{1});
    std::vector<double> sums(std::size_t(parts * 2 * C));
    const bool summed = training || dw || db || !dx;
    const auto add_part = [&](std::int64_t part, std::int64_t first, std::int64_t last) {
        Scratch scratch;
        T* buffer = scratch.take<T>(length);
        for (std::int64_t row = first; row < last; ++row) {
            const T* g = gradient_row(row, buffer, false);
            for (std::int64_t w = 0; w < s.W; w += block_pixels) {
                add_row_sums(g + w * C, x + row * length + w * C, mean, std::min(block_pixels, s.W - w), C,
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

    Coefficients<T> k{Affine<T>(weight, nullptr, invstd, C).scale, std::vector<T>(std::size_t(C)),
                      std::vector<T>(std::size_t(C))};
    const double count = double(std::max(rows * s.W, std::int64_t{1}));
    for (std::int64_t c = 0; c < C; ++c) {
        const double sum = sums[std::size_t(c)], product = sums[std::size_t(C + c)],
                     inverse = double(invstd[c]);
        if (db) db[c] = T(sum);
        if (dw) dw[c] = rows == 0 ? T(0) : T(product * inverse);  // an empty batch makes `inverse` NaN
        if (training) {
            k.offset[std::size_t(c)] = T(sum / count);
            k.slope[std::size_t(c)] = T(product * inverse * inverse / count);
        }
    }
    if (!dx) return;
    parallel_for(0, rows, items_per_piece(length), [&](std::int64_t first, std::int64_t last) {
        Scratch scratch;
        T* buffer = scratch.take<T>(length);
        const T *scale = k.scale.data(), *offset = k.offset.data(), *slope = k.slope.data();
        for (std::int64_t row = first; row < last; ++row) {
            const T* g = gradient_row(row, buffer, summed);
            for (std::int64_t i = 0; i < length; i += C) {
                const T* pixel = x + row * length + i;
                T* result = dx + row * length + i;
#pragma GCC ivdep
                for (std::int64_t c = 0; c < C; ++c) {
                    // Step 5: take from dy what normalisation cancels.
                    result[c] = scale[c] * (g[i + c] - offset[c] - (pixel[c] - mean[c]) * slope[c]);
                }
            }
        }
    });
}

}  // namespace

template <typename T>
void batch_norm2d_forward(const T* x, const T* weight, const T* bias, T* running_mean, T* running_var,
                          const T* residual, T* y, T* mean, T* invstd, const ImageShape& s,
                          const BatchNormParams& p, bool relu) {
    find_statistics(x, running_mean, running_var, mean, invstd, s, p);
    const Affine<T> affine(weight, bias, invstd, s.C);
    const T *scale = affine.scale.data(), *shift = affine.shift.data();
    const auto normalise = [=, C = s.C](const auto& finish) {
        parallel_for(0, s.N * s.H * s.W, items_per_piece(C), [&](std::int64_t first, std::int64_t last) {
            for (std::int64_t i = first * C; i < last * C; i += C) {
#pragma GCC ivdep
                for (std::int64_t c = 0; c < C; ++c) {
                    // Step 3: normalise, scale and shift.
                    y[i + c] = finish((x[i + c] - mean[c]) * scale[c] + shift[c], i + c);
                }
            }
        });
    };
    const auto rectified = [](T value) { return value < 0 ? T(0) : value; };
    if (residual && relu) {
        normalise([=](T value, std::int64_t i) { return rectified(value + residual[i]); });
    } else if (residual) {
        normalise([=](T value, std::int64_t i) { return value + residual[i]; });
    } else if (relu) {
        normalise([=](T value, std::int64_t) { return rectified(value); });
    } else {
        normalise([](T value, std::int64_t) { return value; });
    }
}

template <typename T>
void batch_norm2d_backward(const T* dy, const T* relu_y, const T* x, const T* weight, const T* mean,
                           const T* invstd, T* dx, T* dresidual, T* dw, T* db, const ImageShape& s,
                           bool training) {
    const std::int64_t length = s.W * s.C;
    const auto gradient_row = [=](std::int64_t row, T* buffer, bool again) -> const T* {
        const T* upstream = dy + row * length;
        if (!relu_y && !dresidual) return upstream;
        if (again && dresidual) return dresidual + row * length;
        // the residual's gradient is the same as batch norm's
        T* g = dresidual ? dresidual + row * length : buffer;
        const T* output = relu_y ? relu_y + row * length : nullptr;
#pragma GCC ivdep
        for (std::int64_t i = 0; i < length; ++i) g[i] = output && output[i] <= 0 ? T(0) : upstream[i];
        return g;
    };
    backward(gradient_row, x, weight, mean, invstd, dx, dw, db, s, training);
}

template <typename T, typename Index>
void batch_norm2d_pool_forward(const T* x, const T* weight, const T* bias, T* running_mean, T* running_var,
                               T* y, Index* argmax, T* mean, T* invstd, const ImageShape& s,
                               const BatchNormParams& p, const PoolParams& pool) {
    find_statistics(x, running_mean, running_var, mean, invstd, s, p);
    const Affine<T> affine(weight, bias, invstd, s.C);
    const T *scale = affine.scale.data(), *shift = affine.shift.data();
    const auto normalised = [=](auto L, std::int64_t offset, std::int64_t c) {
        return (load<L>(x + offset + c) - load<L>(mean + c)) * load<L>(scale + c) + load<L>(shift + c);
    };
    const auto rectify = [](const auto& maxima) { return relu(maxima); };
    max_pool<Denormals::zero>(normalised, rectify, y, argmax, s, pool);
}

template <typename T, typename Index>
void batch_norm2d_pool_backward(const T* dy, const T* y, const Index* argmax, const T* x, const T* weight,
                                const T* mean, const T* invstd, T* dx, T* dw, T* db, const ImageShape& s,
                                bool training, const PoolParams& pool) {
    const auto rectified = [=](std::int64_t i) { return relu_gradient(y[i], dy[i]); };
    // The gradient is kept in dx, because collecting it a second time takes longer.
    const auto gradient_row = [&](std::int64_t row, T* buffer, bool again) -> const T* {
        T* g = dx ? dx + row * s.W * s.C : buffer;
        if (!again) max_pool_dx_row(rectified, argmax, g, row / s.H, row % s.H, s, pool);
        return g;
    };
    backward(gradient_row, x, weight, mean, invstd, dx, dw, db, s, training);
}

#define INSTANTIATE(T)                                                                                  \
    template void batch_norm2d_forward(const T*, const T*, const T*, T*, T*, const T*, T*, T*, T*,      \
                                       const ImageShape&, const BatchNormParams&, bool);                \
    template void batch_norm2d_backward(const T*, const T*, const T*, const T*, const T*, const T*, T*, \
                                        T*, T*, T*, const ImageShape&, bool)
INSTANTIATE(float);
INSTANTIATE(double);

#define INSTANTIATE_POOL(T, Index)                                                                         \
    template void batch_norm2d_pool_forward(const T*, const T*, const T*, T*, T*, T*, Index*, T*, T*,      \
                                            const ImageShape&, const BatchNormParams&, const PoolParams&); \
    template void batch_norm2d_pool_backward(const T*, const T*, const Index*, const T*, const T*,         \
                                             const T*, const T*, T*, T*, T*, const ImageShape&, bool,      \
                                             const PoolParams&)
INSTANTIATE_POOL(float, std::uint8_t);
INSTANTIATE_POOL(float, std::int64_t);
INSTANTIATE_POOL(double, std::uint8_t);
INSTANTIATE_POOL(double, std::int64_t);

}  // namespace minicnn
