// Convolution fused with a max-pool, and with a ReLU between them.  The convolution's own output is never
// stored. Forward, a block computes whole windows and pools them in shared memory.  Backward, the kernels
// look up which cell of a window won.

#include "conv2d.h"
#include "first_layer.h"

namespace minicnn {
namespace {

using cuda::narrow, cuda::PoolOutput, cuda::WindowOrder;

template <typename Math>
constexpr int pool_pitch = 16 * Math::TN + 1;

template <typename Math, typename A, typename B, int W>
__global__ void __launch_bounds__(cuda::block_threads, 1)
    conv2d_pool_kernel(A a, B b, PoolOutput<typename Math::T> out, cuda::GemmSize s) {
    using T = typename Math::T;
    constexpr int BN = 16 * Math::TN, pitch = pool_pitch<Math>;
    MINICNN_DYNAMIC_SHARED(T, shared);
    const int group = int(blockIdx.z), first_column = int(blockIdx.y) * BN;
    const std::int64_t first_row = std::int64_t(blockIdx.x) * s.tile_rows;
    a.select(group);
    b.select(group);
    Math math;
    cuda::multiply<Math, A, B, W, W>(math, a, b, s, shared, first_row, first_column, 0);
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < Math::TM; ++i) {
#pragma unroll
        for (int j = 0; j < Math::TN; ++j) {
            shared[cuda::Share<A, Math::TM>::row(ty, i) * pitch + cuda::Share<B, Math::TN>::row(tx, j)] =
                math.sum[i][j];
        }
    }
    __syncthreads();
    const WindowOrder& order = a.pixels;
    const int cells = order.cells();
    for (int row = int(threadIdx.x) / BN * cells; row < s.tile_rows;
         row += cuda::block_threads / BN * cells) {
        const int column = int(threadIdx.x) % BN, n = first_column + column;
        if (n >= s.N || first_row + row >= s.M) continue;
        const std::int64_t window = (first_row + row) / cells;
        const cuda::Pixel first = order.window(window);
        const int f = group * out.group_filters + n;
        cuda::Maximum<T> maximum;
        for (int cell = 0; cell < cells; ++cell) {
            if (out.in_map(order.cell(first, cell)))
                maximum.take(cell, shared[(row + cell) * pitch + column] + out.offset(f));
        }
        maximum = out.after_relu(maximum);
        out.y[window * out.F + f] = maximum.best;
        if (out.winner) out.winner[window * out.F + f] = std::uint8_t(maximum.won);
    }
}

template <typename Math, int W>
void launch_pool(const typename Math::T* x, const typename Math::T* weight,
                 const PoolOutput<typename Math::T>& out, const ConvParams& p, const PoolParams& pool) {
    using T = typename Math::T;
    using A = cuda::Patches<T, true, WindowOrder>;
    using B = cuda::Matrix<T, true>;
    using Layout = cuda::GemmLayout<Math, A, B>;
    const std::int64_t depth = p.KH * p.KW * (p.C / p.groups), filters = p.F / p.groups;
    const WindowOrder order(pool);
    const int tile_rows = Layout::BM / order.cells() * order.cells();
    const cuda::GemmSize s{p.N * pool.OH * pool.OW * order.cells(),
                           depth,
                           narrow(filters, "F"),
                           tile_rows,
                           int(p.groups),
                           1,
                           depth};
    constexpr int elements = std::max(int(Layout::elements), Layout::BM * pool_pitch<Math>);
    const dim3 grid(unsigned(narrow(cuda::ceil_div(s.M, tile_rows), "tiles of a convolution")),
                    unsigned(cuda::ceil_div(filters, Layout::BN)), unsigned(p.groups));
    cuda::launch(conv2d_pool_kernel<Math, A, B, W>, grid, cuda::block_threads, elements * sizeof(T),
                 cuda::current_stream(), A(x, p, order), B{weight, depth, filters * depth}, out, s);
}

template <typename T, int W>
void forward(const T* x, const T* weight, const PoolOutput<T>& out, const ConvParams& p,
             const PoolParams& pool) {
    // at most 64 columns, because the tile must fit in shared memory
    cuda::with_math<T, (W > 1), 64>(p.F / p.groups, [&](auto math) {
        launch_pool<typename decltype(math)::type, W>(x, weight, out, p, pool);
    });
}

}  // namespace

// The windows must not overlap, so that each pixel is computed once, and must have no padding.  A tile has
// 128 rows in float and 64 in double; with at most 16 cells a window, several windows fit.
bool conv2d_pool_fuses(const ConvParams&, const PoolParams& pool, bool /*need_saved*/) {
    return pool.KH * pool.KW <= 16 && pool.stride_h >= pool.KH && pool.stride_w >= pool.KW &&
           pool.pad_h == 0 && pool.pad_w == 0 && pool.dil_h == 1 && pool.dil_w == 1;
}

template <typename T>
void conv2d_pool_forward(const T* x, const T* weight, const T* bias, T* y, std::uint8_t* winner,
                         const ConvParams& p, const PoolParams& pool, bool relu) {
    constexpr int V = cuda::full_width<T>;
    cuda::check_sizes(p);
    const PoolOutput<T> out{
        y, winner, bias, p.F, narrow(p.OH, "OH"), narrow(p.OW, "OW"), int(p.F / p.groups), relu};
    if (cuda::is_first_layer(p) && cuda::first_layer_takes(pool)) {
        cuda::first_layer_pool_forward(x, weight, out, p, pool);
    } else if (cuda::aligned(x) && cuda::aligned(weight) && p.C / p.groups % V == 0) {
        forward<T, V>(x, weight, out, p, pool);
    } else {
        forward<T, 1>(x, weight, out, p, pool);
    }
}

template <typename T>
void conv2d_pool_backward(const T* dy, const std::uint8_t* winner, const T* x, const T* weight, T* dx,
                          T* dw, T* db, const ConvParams& p, const PoolParams& pool) {
    const cuda::Fused f{nullptr, winner, pool};
    cuda::check_sizes(p);
    if (dx) cuda::conv2d_input_gradient<T, true>(dy, f, weight, dx, p);
    if (dw) cuda::conv2d_weight_gradient<T, true>(dy, f, x, dw, p);
    if (db) cuda::conv2d_bias_gradient(dy, f, db, p);
}

#define INSTANTIATE(T)                                                                                    \
    template void conv2d_pool_forward(const T*, const T*, const T*, T*, std::uint8_t*, const ConvParams&, \
                                      const PoolParams&, bool);                                           \
    template void conv2d_pool_backward(const T*, const std::uint8_t*, const T*, const T*, T*, T*, T*,     \
                                       const ConvParams&, const PoolParams&)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn
