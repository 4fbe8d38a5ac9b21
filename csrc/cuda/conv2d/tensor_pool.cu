// Convolution, ReLU and max-pool in one kernel, by tensor cores.  A block computes whole windows and pools
// them in shared memory; the map before the pool is never stored.

#include "tensor_conv2d.h"
#include "tensor_operands.h"

namespace minicnn::cuda {
namespace {

template <typename Shape>
constexpr int pooled_pitch = Shape::BN + 4;  // so that the lanes of a warp store to different banks

template <typename Shape, typename A, typename B>
constexpr int pooled_bytes =
    std::max(TensorBlock<Shape, A, B>::shared_bytes, Shape::BM* pooled_pitch<Shape>* int(sizeof(float)));

template <typename Shape, typename A, typename B>
__global__ void __launch_bounds__(Shape::threads, Shape::blocks)
    tensor_pool_kernel(A a, B b, PoolOutput<typename Shape::T> out, const float* bias, GemmSize s) {
    using T = typename Shape::T;
    using Block = TensorBlock<Shape, A, B>;
    using Sums = typename Block::Sums;
    constexpr int pitch = pooled_pitch<Shape>, side_by_side = Shape::threads / Shape::BN;
    static_assert(Shape::threads % Shape::BN == 0);
    MINICNN_DYNAMIC_SHARED(T, shared);
    const int group = int(blockIdx.z), first_column = int(blockIdx.y) * Shape::BN;
    const std::int64_t first_row = std::int64_t(blockIdx.x) * s.tile_rows;
    a.select(group);
    b.select(group);
    Block block;
    block.multiply(a, b, s, shared, first_row, first_column, 0);
    __syncthreads();  // the last slice is read
    float* const map = reinterpret_cast<float*>(shared);
#pragma unroll
    for (int i = 0; i < 2 * Sums::down; ++i) {
        const int row = block.row() + Sums::row(i / 2, i % 2);
#pragma unroll
        for (int j = 0; j < Sums::across; ++j) {
            store(map + row * pitch + block.column() + Sums::column(j), block.sums.pair(i, j));
        }
    }
    __syncthreads();  // the map is whole
    const WindowOrder& order = a.pixels;
    const int cells = order.cells(), column = int(threadIdx.x) % Shape::BN, n = first_column + column;
    if (n >= s.N) return;
    const int f = group * out.group_filters + n;
    const float offset = bias ? bias[f] : 0.0f;
    for (int row = int(threadIdx.x) / Shape::BN * cells; row < s.tile_rows; row += side_by_side * cells) {
        if (first_row + row >= s.M) break;
        const std::int64_t window = (first_row + row) / cells;
        const Pixel first = order.window(window);
        Maximum<float> maximum;
        for (int cell = 0; cell < cells; ++cell) {
            if (out.in_map(order.cell(first, cell)))
                maximum.take(cell, map[(row + cell) * pitch + column] + offset);
        }
        if (out.relu && maximum.best <= 0) maximum = {0.0f, relu_off};
        out.y[window * out.F + f] = minicnn::narrow<T>(maximum.best);
        if (out.winner) out.winner[window * out.F + f] = std::uint8_t(maximum.won);
    }
}

}  // namespace

template <typename T>
void tensor_conv2d_pool_forward(const T* x, const float* weight, const float* bias,
                                const PoolOutput<T>& out, const ConvParams& p, const PoolParams& pool) {
    using A = TensorPatches<T, true, WindowOrder>;
    using B = TensorMatrix<T, true>;
    const std::int64_t channels = padded<T>(p.C / p.groups), filters = p.F / p.groups;
    const std::int64_t depth = p.KH * p.KW * channels;
    const TensorArray<T> images = tensor_images(x, p), weights = tensor_filters<T>(weight, p);
    const WindowOrder order(pool);
    const A a{images.get(), p.groups * channels, int(channels), place_in_input(p),
              order,        Taps(p.KW, channels)};
    const B b{weights.get(), depth, padded<T>(filters) * depth};
    GemmSize s{
        p.N * pool.OH * pool.OW * order.cells(), depth, narrow(filters, "F"), 0, int(p.groups), 1, depth};
    with_shape(ShapesOfRows<T>(), s, 1, [&](auto choice, int) {
        using Shape = typename decltype(choice)::type;
        s.tile_rows = Shape::BM / order.cells() * order.cells();
        const dim3 grid(unsigned(narrow(ceil_div(s.M, s.tile_rows), "tiles of a convolution")),
                        unsigned(ceil_div(s.N, Shape::BN)), unsigned(s.groups));
        launch(tensor_pool_kernel<Shape, A, B>, grid, Shape::threads, pooled_bytes<Shape, A, B>,
               current_stream(), a, b, out, bias, s);
    });
}

#define INSTANTIATE(T)                                                                                   \
    template void tensor_conv2d_pool_forward(const T*, const float*, const float*, const PoolOutput<T>&, \
                                             const ConvParams&, const PoolParams&)
INSTANTIATE(float);
INSTANTIATE(bfloat16);

}  // namespace minicnn::cuda
