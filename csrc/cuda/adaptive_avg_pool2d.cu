// Average-pooling to a given output size: output i averages rows floor(i*H/OH) .. ceil((i+1)*H/OH) - 1.

#include "../ops.h"
#include "core/windows.h"

namespace minicnn {
namespace {

struct Region {
    std::int64_t first, last;
    __device__ std::int64_t size() const { return last - first; }
};

__device__ Region region(std::int64_t i, std::int64_t size, std::int64_t parts) {
    return {cuda::divide(i * size, parts), cuda::divide((i + 1) * size + parts - 1, parts)};
}

// The outputs whose regions hold this place.
__device__ Region regions_around(std::int64_t at, std::int64_t size, std::int64_t parts) {
    return {cuda::divide(at * parts, size), cuda::divide((at + 1) * parts + size - 1, size)};
}

template <typename T>
struct Forward {
    const T* x;
    T* y;
    ImageShape s;
    std::int64_t OH, OW;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const cuda::Place out = cuda::place_of(i, OH, OW, s.C);
        const Region rows = region(out.h, s.H, OH), columns = region(out.w, s.W, OW);
        cuda::Vector<Sum<T>, V> mean{};
        for (std::int64_t h = rows.first; h < rows.last; ++h) {
            for (std::int64_t w = columns.first; w < columns.last; ++w) {
                const auto cell = cuda::load<V>(x + ((out.n * s.H + h) * s.W + w) * s.C + out.c);
                for (int k = 0; k < V; ++k) mean.v[k] += cell.v[k];
            }
        }
        for (int k = 0; k < V; ++k) mean.v[k] /= Sum<T>(rows.size() * columns.size());
        cuda::store(y + i, mean);
    }
};

template <typename T>
struct Backward {
    const T* dy;
    T* dx;
    ImageShape s;
    std::int64_t OH, OW;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const cuda::Place in = cuda::place_of(i, s.H, s.W, s.C);
        const Region down = regions_around(in.h, s.H, OH), across = regions_around(in.w, s.W, OW);
        cuda::Vector<Sum<T>, V> sum{};
        for (std::int64_t oh = down.first; oh < down.last; ++oh) {
            for (std::int64_t ow = across.first; ow < across.last; ++ow) {
                const Sum<T> count = Sum<T>(region(oh, s.H, OH).size() * region(ow, s.W, OW).size());
                const auto g = cuda::load<V>(dy + ((in.n * OH + oh) * OW + ow) * s.C + in.c);
                for (int k = 0; k < V; ++k) sum.v[k] += g.v[k] / count;
            }
        }
        cuda::store(dx + i, sum);
    }
};

}  // namespace

template <typename T>
void adaptive_avg_pool2d_forward(const T* x, T* y, const ImageShape& s, std::int64_t OH, std::int64_t OW) {
    cuda::for_each_channel<T>(Forward<T>{x, y, s, OH, OW}, s, OH, OW, cuda::aligned(x) && cuda::aligned(y));
}

template <typename T>
void adaptive_avg_pool2d_backward(const T* dy, T* dx, const ImageShape& s, std::int64_t OH,
                                  std::int64_t OW) {
    cuda::for_each_channel<T>(Backward<T>{dy, dx, s, OH, OW}, s, s.H, s.W,
                              cuda::aligned(dy) && cuda::aligned(dx));
}

#define INSTANTIATE(T)                                                                       \
    template void adaptive_avg_pool2d_forward(const T*, T*, const ImageShape&, std::int64_t, \
                                              std::int64_t);                                 \
    template void adaptive_avg_pool2d_backward(const T*, T*, const ImageShape&, std::int64_t, std::int64_t)
INSTANTIATE(float);
INSTANTIATE(double);
INSTANTIATE(bfloat16);

}  // namespace minicnn
