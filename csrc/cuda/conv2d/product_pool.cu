// Convolution, ReLU and max-pool in one kernel.  A block computes whole windows and pools them in shared
// memory; the map before the pool is never stored.

#include "operands.h"
#include "products.h"

namespace minicnn::cuda {
namespace {

template <typename Shape>
constexpr int map_pitch = Shape::BN + 4;  // so that the lanes of a warp store to different banks

template <typename Shape, typename A, typename B>
constexpr int pool_bytes = std::max(Block<Shape, A, B>::shared_bytes,
                                    Shape::BM* map_pitch<Shape>* int(sizeof(Sum<typename Shape::T>)));

template <typename Shape, typename A, typename B>
__global__ void __launch_bounds__(Shape::threads, Shape::resident)
    product_pool_kernel(A a, B b, PoolOutput<typename Shape::T> out, ProductSize s) {
    using T = typename Shape::T;
    using Sums = typename Block<Shape, A, B>::Sums;
    constexpr int pitch = map_pitch<Shape>, side_by_side = Shape::threads / Shape::BN;
    static_assert(Shape::threads % Shape::BN == 0);
    MINICNN_DYNAMIC_SHARED(T, shared);
    const int group = int(blockIdx.z), first_column = int(blockIdx.y) * Shape::BN;
    const std::int64_t first_row = std::int64_t(blockIdx.x) * s.tile_rows;
    a.select(group);
    b.select(group);
    Block<Shape, A, B> block;
    block.multiply(a, b, s, shared, first_row, first_column, 0);
    __syncthreads();  // the last slice is read
    auto* const map = reinterpret_cast<Sum<T>*>(shared);
#pragma unroll
    for (int i = 0; i < Sums::rows; ++i) {
#pragma unroll
        for (int j = 0; j < Sums::across; ++j)
            store(map + Sums::row(i) * pitch + Sums::column(j), block.sums.values(i, j));
    }
    __syncthreads();  // the map is whole
    const WindowOrder& order = a.pixels;
    const int cells = order.cells(), column = int(threadIdx.x) % Shape::BN, n = first_column + column;
    if (n >= s.N) return;
    const int f = group * out.group_filters + n;
    const auto offset = out.offset(f);
    for (int row = int(threadIdx.x) / Shape::BN * cells; row < s.tile_rows; row += side_by_side * cells) {
        if (first_row + row >= s.M) break;
        const std::int64_t window = (first_row + row) / cells;
        const Pixel first = order.window(window);
        Maximum<Sum<T>> maximum;
        for (int cell = 0; cell < cells; ++cell) {
            if (out.in_map(order.cell(first, cell)))
                maximum.take(cell, map[(row + cell) * pitch + column] + offset);
        }
        maximum = out.after_relu(maximum);
        out.y[window * out.F + f] = minicnn::narrow<T>(maximum.best);
        if (out.winner) out.winner[window * out.F + f] = std::uint8_t(maximum.won);
    }
}

}  // namespace

template <typename T>
void product_pool_forward(const T* x, const Sum<T>* weight, const PoolOutput<T>& out, const ConvParams& p,
                          const PoolParams& pool) {
    using A = Patches<T, true, WindowOrder>;
    using B = Matrix<T, true>;
    const std::int64_t channels = padded<T>(p.C / p.groups), filters = p.F / p.groups;
    const std::int64_t depth = p.KH * p.KW * channels;
    const PaddedArray<T> images = padded_images(x, p), weights = padded_filters<T>(weight, p);
    const WindowOrder order(pool);
    const A a{images.get(), p.groups * channels, int(channels), place_in_input(p),
              order,        Taps(p.KW, channels)};
    const B b{weights.get(), depth, padded<T>(filters) * depth};
    ProductSize s{p.N * pool.OH * pool.OW * order.cells(), depth, narrow(filters, "F"), int(p.groups)};
    s.split_depth = depth;
    with_shape<ManyRows, T>(s, false, [&](auto choice, int) {
        using Shape = typename decltype(choice)::type;
        s.tile_rows = Shape::BM / order.cells() * order.cells();
        const dim3 grid(unsigned(narrow(ceil_div(s.M, s.tile_rows), "tiles of a convolution")),
                        unsigned(ceil_div(s.N, Shape::BN)), unsigned(s.groups));
        launch(product_pool_kernel<Shape, A, B>, grid, Shape::threads, pool_bytes<Shape, A, B>,
               current_stream(), a, b, out, s);
    });
}

#define INSTANTIATE(T)                                                                                   \
    template void product_pool_forward(const T*, const Sum<T>*, const PoolOutput<T>&, const ConvParams&, \
                                       const PoolParams&)
INSTANTIATE(float);
INSTANTIATE(double);
INSTANTIATE(bfloat16);

}  // namespace minicnn::cuda
