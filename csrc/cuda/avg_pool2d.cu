// Average-pooling over windows.  Backward gathers: every pixel collects its windows' shares.

#include "../ops.h"
#include "core/windows.h"

namespace minicnn {
namespace {

// How many cells of a window count along one axis; `pad` is the padding after the image.
__device__ int counted(const cuda::PoolAxis& axis, const cuda::Cells& cells, int pad, bool with_pad) {
    if (!with_pad) return cuda::larger(cells.last - cells.first, 0);
    return cuda::smaller(cells.start + axis.kernel(), axis.size() + pad) - cells.start;
}

// An average over windows whose dilation is 1.
struct Averages {
    cuda::Pool pool;
    cuda::Divisor by_channels;
    int pad_bottom, pad_right;
    bool with_pad;

    Averages(const ImageShape& s, const PoolParams& p, bool with_pad_)
        : pool(s, p),
          by_channels(s.C),
          pad_bottom(int(p.pad_bottom)),
          pad_right(int(p.pad_right)),
          with_pad(with_pad_) {}

    __device__ std::int64_t cells_of(const cuda::Cells& rows, const cuda::Cells& columns) const {
        return std::int64_t(counted(pool.down, rows, pad_bottom, with_pad)) *
               counted(pool.across, columns, pad_right, with_pad);
    }
};

template <typename T>
struct Forward {
    const T* x;
    T* y;
    Averages of;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const cuda::Pool& pool = of.pool;
        const std::int64_t number = of.by_channels.quotient(i);
        const cuda::Pixel out = pool.outputs.at(number);
        const int c = int(i - number * pool.C);
        const cuda::Cells rows = pool.down.cells(out.h), columns = pool.across.cells(out.w);
        cuda::Vector<Sum<T>, V> mean{};
        for (int u = rows.first; u < rows.last; ++u) {
            for (int v = columns.first; v < columns.last; ++v) {
                const auto cell =
                    cuda::load<V>(x + pool.input(out.n, rows.start + u, columns.start + v) + c);
                for (int k = 0; k < V; ++k) mean.v[k] += cell.v[k];
            }
        }
        const Sum<T> count = Sum<T>(of.cells_of(rows, columns));
        for (int k = 0; k < V; ++k) mean.v[k] /= count;
        cuda::store(y + i, mean);
    }
};

template <typename T>
struct Backward {
    const T* dy;
    T* dx;
    Averages of;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const cuda::Pool& pool = of.pool;
        const std::int64_t number = of.by_channels.quotient(i);
        const cuda::Pixel in = pool.inputs.at(number);
        const int c = int(i - number * pool.C);
        const cuda::Windows down = pool.down.windows_around(in.h);
        const cuda::Windows across = pool.across.windows_around(in.w);
        cuda::Vector<Sum<T>, V> sum{};
        for (int oh = down.last - 1; oh >= down.first; --oh) {
            const cuda::Cells rows = pool.down.cells(oh);
            for (int ow = across.last - 1; ow >= across.first; --ow) {
                const Sum<T> share = Sum<T>(1) / Sum<T>(of.cells_of(rows, pool.across.cells(ow)));
                const auto g = cuda::load<V>(dy + pool.output(in.n, oh, ow) + c);
                for (int k = 0; k < V; ++k) sum.v[k] += g.v[k] * share;
            }
        }
        cuda::store(dx + i, sum);
    }
};

}  // namespace

template <typename T>
void avg_pool2d_forward(const T* x, T* y, const ImageShape& s, const PoolParams& p, bool with_pad) {
    cuda::for_each_channel<T>(Forward<T>{x, y, Averages(s, p, with_pad)}, s, p.OH, p.OW,
                              cuda::aligned(x) && cuda::aligned(y));
}

template <typename T>
void avg_pool2d_backward(const T* dy, T* dx, const ImageShape& s, const PoolParams& p, bool with_pad) {
    cuda::for_each_channel<T>(Backward<T>{dy, dx, Averages(s, p, with_pad)}, s, s.H, s.W,
                              cuda::aligned(dy) && cuda::aligned(dx));
}

#define INSTANTIATE(T)                                                                          \
    template void avg_pool2d_forward(const T*, T*, const ImageShape&, const PoolParams&, bool); \
    template void avg_pool2d_backward(const T*, T*, const ImageShape&, const PoolParams&, bool)
INSTANTIATE(float);
INSTANTIATE(double);
INSTANTIATE(bfloat16);

}  // namespace minicnn
