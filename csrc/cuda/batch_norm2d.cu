// Batch norm, alone and in one pass with what follows it: + residual, ReLU.

#include "../ops.h"
#include "batch_norm2d.h"

namespace minicnn {
namespace {

using cuda::Vector;

template <typename T>
struct Normalise {
    using S = Sum<T>;
    using Numbers = cuda::AffineNumbers<S>;
    static constexpr int at_once = cuda::rows_at_once<T>, most_blocks = 264;
    cuda::Statistics<T> statistics;
    const T *x, *residual;
    T* y;
    std::int64_t C;
    bool relu;

    __device__ Numbers finish(int c, const cuda::TwoSums& sums, bool is_first) const {
        return statistics.finish(c, sums, is_first);
    }
    template <int V>
    __device__ Vector<S, V> read(std::int64_t row, int c, const Numbers* of) const {
        const std::int64_t i = row * C + c;
        Vector<S, V> values = cuda::load<V>(x + i);
        // Step 3: normalise, scale and shift.
        for (int k = 0; k < V; ++k) values.v[k] = of[k](values.v[k]);
        if (residual) {
            const Vector<S, V> more = cuda::load<V>(residual + i);
            for (int k = 0; k < V; ++k) values.v[k] += more.v[k];
        }
        if (relu) {
            for (int k = 0; k < V; ++k) values.v[k] = cuda::relu(values.v[k]);
        }
        return values;
    }
    template <int V>
    __device__ void write(std::int64_t row, int c, const Numbers*, const Vector<S, V>& values) const {
        cuda::store(y + row * C + c, values);
    }
};

// The gradient before the ReLU, if there is one, and x; relu_y is the output of the ReLU.
template <typename T>
struct Upstream {
    using S = Sum<T>;
    const T *dy, *relu_y, *x;
    std::int64_t C;
    template <int V>
    __device__ Vector<S, V> gradient(std::int64_t row, int c) const {
        Vector<S, V> g = cuda::load<V>(dy + row * C + c);
        if (relu_y) {
            const Vector<S, V> y = cuda::load<V>(relu_y + row * C + c);
            for (int k = 0; k < V; ++k) g.v[k] = cuda::relu_gradient(y.v[k], g.v[k]);
        }
        return g;
    }
    template <int V>
    __device__ void read(std::int64_t row, int c, Vector<S, V>& g, Vector<S, V>& values) const {
        g = gradient<V>(row, c);
        values = cuda::load<V>(x + row * C + c);
    }
};

template <typename T>
struct InputGradient {
    using S = Sum<T>;
    using Numbers = cuda::GradientNumbers<S>;
    static constexpr int at_once = cuda::rows_at_once<T> / 2, most_blocks = 528;
    cuda::Gradients<S> gradients;
    Upstream<T> upstream;
    T *dx, *dresidual;

    template <int V>
    struct Pixel {
        Vector<S, V> g, dx;
    };
    __device__ Numbers finish(int c, const cuda::TwoSums& sums, bool is_first) const {
        return gradients.finish(c, sums, is_first);
    }
    template <int V>
    __device__ Pixel<V> read(std::int64_t row, int c, const Numbers* of) const {
        Pixel<V> pixel{upstream.template gradient<V>(row, c), {}};
        if (dx) {
            pixel.dx =
                cuda::input_gradient<V>(pixel.g, upstream.x + row * upstream.C + c, gradients.training, of);
        }
        return pixel;
    }
    template <int V>
    __device__ void write(std::int64_t row, int c, const Numbers*, const Pixel<V>& pixel) const {
        if (dx) cuda::store(dx + row * upstream.C + c, pixel.dx);
        if (dresidual) cuda::store(dresidual + row * upstream.C + c, pixel.g);
    }
};

}  // namespace

template <typename T>
void batch_norm2d_forward(const T* x, const Sum<T>* weight, const Sum<T>* bias, Sum<T>* running_mean,
                          Sum<T>* running_var, const T* residual, T* y, Sum<T>* mean, Sum<T>* invstd,
                          const ImageShape& s, const BatchNormParams& p, bool relu) {
    const std::int64_t rows = s.N * s.H * s.W;
    const cuda::Deviations<T> terms{x, s.C};
    const Normalise<T> step{
        {x, weight, bias, running_mean, running_var, mean, invstd, rows, p}, x, residual, y, s.C, relu};
    cuda::for_each_pixel<T>(p.training && rows > 0 ? &terms : nullptr, rows, step, rows, s.C,
                            cuda::aligned(x) && cuda::aligned(residual) && cuda::aligned(y));
}

template <typename T>
void batch_norm2d_backward(const T* dy, const T* relu_y, const T* x, const Sum<T>* weight,
                           const Sum<T>* mean, const Sum<T>* invstd, T* dx, T* dresidual, Sum<T>* dw,
                           Sum<T>* db, const ImageShape& s, bool training) {
    const std::int64_t rows = s.N * s.H * s.W;
    const Upstream<T> upstream{dy, relu_y, x, s.C};
    const cuda::GradientTerms<T, Upstream<T>> terms{upstream, mean};
    const InputGradient<T> step{
        {weight, mean, invstd, dw, db, double(rows), training}, upstream, dx, dresidual};
    cuda::for_each_pixel<T>(dw || db || (dx && training) ? &terms : nullptr, rows, step,
                            dx || dresidual ? rows : 0, s.C,
                            cuda::aligned(dy) && cuda::aligned(relu_y) && cuda::aligned(x) &&
                                cuda::aligned(dx) && cuda::aligned(dresidual));
}

#define INSTANTIATE(T, S)                                                                               \
    template void batch_norm2d_forward(const T*, const S*, const S*, S*, S*, const T*, T*, S*, S*,      \
                                       const ImageShape&, const BatchNormParams&, bool);                \
    template void batch_norm2d_backward(const T*, const T*, const T*, const S*, const S*, const S*, T*, \
                                        T*, S*, S*, const ImageShape&, bool)
INSTANTIATE(float, float);
INSTANTIATE(double, double);
INSTANTIATE(bfloat16, float);

}  // namespace minicnn
