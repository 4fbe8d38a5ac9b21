// Average-pooling over windows.  Backward gathers: every pixel collects its windows' shares.

#include "../ops.h"
#include "core/windows.h"

namespace minicnn {
namespace {

// How many cells of a window count along one axis; `pad` is the padding after the image.
__device__ std::int64_t counted(const cuda::Cells& cells, std::int64_t kernel, std::int64_t size,
                                std::int64_t pad, bool with_pad) {
    if (!with_pad) return cuda::larger(cells.last - cells.first, std::int64_t{0});
    return cuda::smaller(cells.start + kernel, size + pad) - cells.start;
}

__device__ std::int64_t counted(const cuda::Cells& rows, const cuda::Cells& columns, const ImageShape& s,
                                const PoolParams& p, bool with_pad) {
    return counted(rows, p.KH, s.H, p.pad_bottom, with_pad) *
           counted(columns, p.KW, s.W, p.pad_right, with_pad);
}

template <typename T>
struct Forward {
    const T* x;
    T* y;
    ImageShape s;
    PoolParams p;
    bool with_pad;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const cuda::Place out = cuda::place_of(i, p.OH, p.OW, s.C);
        const cuda::Cells rows = cuda::rows_inside(out.h, p, s),
                          columns = cuda::columns_inside(out.w, p, s);
        cuda::Vector<T, V> mean{};
        for (std::int64_t u = rows.first; u < rows.last; ++u) {
            const std::int64_t row = (out.n * s.H + rows.start + u) * s.W + columns.start;
            for (std::int64_t v = columns.first; v < columns.last; ++v) {
                const auto cell = cuda::load<V>(x + (row + v) * s.C + out.c);
                for (int k = 0; k < V; ++k) mean.v[k] += cell.v[k];
            }
        }
        const T count = T(counted(rows, columns, s, p, with_pad));
        for (int k = 0; k < V; ++k) mean.v[k] /= count;
        cuda::store(y + i, mean);
    }
};

template <typename T>
struct Backward {
    const T* dy;
    T* dx;
    ImageShape s;
    PoolParams p;
    bool with_pad;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const cuda::Place in = cuda::place_of(i, s.H, s.W, s.C);
        const cuda::Windows down = cuda::windows_around(in.h, p.stride_h, p.pad_h, 1, p.KH, p.OH);
        const cuda::Windows across = cuda::windows_around(in.w, p.stride_w, p.pad_w, 1, p.KW, p.OW);
        cuda::Vector<T, V> sum{};
        for (std::int64_t oh = down.last - 1; oh >= down.first; --oh) {
            const cuda::Cells rows = cuda::rows_inside(oh, p, s);
            for (std::int64_t ow = across.last - 1; ow >= across.first; --ow) {
                const T share = T(1) / T(counted(rows, cuda::columns_inside(ow, p, s), s, p, with_pad));
                const auto g = cuda::load<V>(dy + ((in.n * p.OH + oh) * p.OW + ow) * s.C + in.c);
                for (int k = 0; k < V; ++k) sum.v[k] += g.v[k] * share;
            }
        }
        cuda::store(dx + i, sum);
    }
};

}  // namespace

template <typename T>
void avg_pool2d_forward(const T* x, T* y, const ImageShape& s, const PoolParams& p, bool with_pad) {
    cuda::for_each_channel<T>(Forward<T>{x, y, s, p, with_pad}, s, p.OH, p.OW,
                              cuda::aligned(x) && cuda::aligned(y));
}

template <typename T>
void avg_pool2d_backward(const T* dy, T* dx, const ImageShape& s, const PoolParams& p, bool with_pad) {
    cuda::for_each_channel<T>(Backward<T>{dy, dx, s, p, with_pad}, s, s.H, s.W,
                              cuda::aligned(dy) && cuda::aligned(dx));
}

#define INSTANTIATE(T)                                                                          \
    template void avg_pool2d_forward(const T*, T*, const ImageShape&, const PoolParams&, bool); \
    template void avg_pool2d_backward(const T*, T*, const ImageShape&, const PoolParams&, bool)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn
