// Batch norm, ReLU and max-pool in one pass.  The map before the pool is never stored.

#include "../ops.h"
#include "batch_norm2d.h"
#include "max_pool2d.h"

namespace minicnn {
namespace {

using cuda::Pixel, cuda::Pool, cuda::Vector;

template <typename T, typename Index>
struct NormaliseAndPool {
    using S = Sum<T>;
    using Numbers = cuda::AffineNumbers<S>;
    static constexpr int at_once = 1, most_blocks = 528;
    cuda::Statistics<T> statistics;
    const T* x;
    T* y;
    Index* argmax;  // or nullptr
    Pool pool;

    __device__ Numbers finish(int c, const cuda::TwoSums& sums, bool is_first) const {
        return statistics.finish(c, sums, is_first);
    }
    template <int V>
    __device__ cuda::Maxima<S, V> read(std::int64_t window, int c, const Numbers* of) const {
        const auto normalised = [this, of](std::int64_t i) {
            Vector<S, V> values = cuda::load<V>(x + i);
            for (int k = 0; k < V; ++k) values.v[k] = of[k](values.v[k]);
            return values;
        };
        auto found = cuda::maxima_of_window<S, V>(normalised, pool, pool.outputs.at(window), c);
        for (int k = 0; k < V; ++k) found.best.v[k] = cuda::relu(found.best.v[k]);
        return found;
    }
    template <int V>
    __device__ void write(std::int64_t window, int c, const Numbers*,
                          const cuda::Maxima<S, V>& found) const {
        const std::int64_t i = window * pool.C + c;
        cuda::store(y + i, found.best);
        if (argmax) cuda::store_winners(argmax + i, found);
    }
};

// The gradient of a window before the ReLU, and the x that won it.
template <typename T, typename Index>
struct Windows {
    using S = Sum<T>;
    const T *dy, *y;
    const Index* argmax;
    const T* x;
    Pool pool;
    cuda::Divisor by_width;

    template <int V>
    __device__ Vector<S, V> gradient(std::int64_t i) const {
        Vector<S, V> g = cuda::load<V>(dy + i);
        const Vector<S, V> output = cuda::load<V>(y + i);
        for (int k = 0; k < V; ++k) g.v[k] = cuda::relu_gradient(output.v[k], g.v[k]);
        return g;
    }
    template <int V>
    __device__ void read(std::int64_t window, int c, Vector<S, V>& g, Vector<S, V>& values) const {
        const std::int64_t i = window * pool.C + c;
        const Vector<Index, V> winner = cuda::load<V>(argmax + i);
        const Pixel at = pool.outputs.at(window);
        const std::int64_t cells = std::int64_t(pool.down.kernel()) * pool.across.kernel();
        g = gradient<V>(i);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const std::int64_t won = winner.v[k];
            values.v[k] = 0;
            bool counts = won >= 0 && won < cells;
            if (counts) {
                const int u = by_width.quotient(int(won)), v = int(won) - u * pool.across.kernel();
                const int h = pool.down.place(at.h, u), w = pool.across.place(at.w, v);
                counts = pool.down.in_image(h) && pool.across.in_image(w);
                if (counts) values.v[k] = widen(x[pool.input(at.n, h, w) + c + k]);
            }
            if (!counts) g.v[k] = 0;
        }
    }
};

template <typename T, typename Index>
struct InputGradient {
    using S = Sum<T>;
    using Numbers = cuda::GradientNumbers<S>;
    static constexpr int at_once = 1, most_blocks = 528;
    cuda::Gradients<S> gradients;
    Windows<T, Index> windows;
    T* dx;

    __device__ Numbers finish(int c, const cuda::TwoSums& sums, bool is_first) const {
        return gradients.finish(c, sums, is_first);
    }
    template <int V>
    __device__ Vector<S, V> read(std::int64_t pixel, int c, const Numbers* of) const {
        const Pool& pool = windows.pool;
        const auto gradient = [this](std::int64_t j) { return windows.template gradient<V>(j); };
        const auto g =
            cuda::gradient_of_pixel<S, V>(gradient, windows.argmax, pool, pool.inputs.at(pixel), c);
        return cuda::input_gradient<V>(g, windows.x + pixel * pool.C + c, gradients.training, of);
    }
    template <int V>
    __device__ void write(std::int64_t pixel, int c, const Numbers*, const Vector<S, V>& gradient) const {
        cuda::store(dx + pixel * windows.pool.C + c, gradient);
    }
};

}  // namespace

template <typename T, typename Index>
void batch_norm2d_pool_forward(const T* x, const Sum<T>* weight, const Sum<T>* bias, Sum<T>* running_mean,
                               Sum<T>* running_var, T* y, Index* argmax, Sum<T>* mean, Sum<T>* invstd,
                               const ImageShape& s, const BatchNormParams& p, const PoolParams& pool) {
    const std::int64_t rows = s.N * s.H * s.W;
    const cuda::Deviations<T> terms{x, s.C};
    const NormaliseAndPool<T, Index> step{
        {x, weight, bias, running_mean, running_var, mean, invstd, rows, p}, x, y, argmax, Pool(s, pool)};
    cuda::for_each_pixel<T, (sizeof(Index) == 1)>(
        p.training && rows > 0 ? &terms : nullptr, rows, step, s.N * pool.OH * pool.OW, s.C,
        cuda::aligned(x) && cuda::aligned(y) && cuda::aligned_winners<T>(argmax));
}

template <typename T, typename Index>
void batch_norm2d_pool_backward(const T* dy, const T* y, const Index* argmax, const T* x,
                                const Sum<T>* weight, const Sum<T>* mean, const Sum<T>* invstd, T* dx,
                                Sum<T>* dw, Sum<T>* db, const ImageShape& s, bool training,
                                const PoolParams& pool) {
    const std::int64_t rows = s.N * s.H * s.W;
    const Windows<T, Index> windows{dy, y, argmax, x, Pool(s, pool), cuda::Divisor(pool.KW)};
    // A pixel's gradient is the sum of its windows' gradients.  So the sums are over the windows, which are
    // fewer.
    const cuda::GradientTerms<T, Windows<T, Index>> terms{windows, mean};
    const InputGradient<T, Index> step{{weight, mean, invstd, dw, db, double(rows), training}, windows, dx};
    cuda::for_each_pixel<T, (sizeof(Index) == 1)>(
        dw || db || (dx && training) ? &terms : nullptr, s.N * pool.OH * pool.OW, step, dx ? rows : 0, s.C,
        cuda::aligned(dy) && cuda::aligned(y) && cuda::aligned(x) && cuda::aligned(dx) &&
            cuda::aligned_winners<T>(argmax));
}

#define INSTANTIATE(T, S, Index)                                                                           \
    template void batch_norm2d_pool_forward(const T*, const S*, const S*, S*, S*, T*, Index*, S*, S*,      \
                                            const ImageShape&, const BatchNormParams&, const PoolParams&); \
    template void batch_norm2d_pool_backward(const T*, const T*, const Index*, const T*, const S*,         \
                                             const S*, const S*, T*, S*, S*, const ImageShape&, bool,      \
                                             const PoolParams&)
INSTANTIATE(float, float, std::uint8_t);
INSTANTIATE(float, float, std::int64_t);
INSTANTIATE(double, double, std::uint8_t);
INSTANTIATE(double, double, std::int64_t);
INSTANTIATE(bfloat16, float, std::uint8_t);
INSTANTIATE(bfloat16, float, std::int64_t);

}  // namespace minicnn
