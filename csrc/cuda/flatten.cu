// Flattening to logical order: each image's (H*W, C) matrix is transposed, tile by tile.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

constexpr int tile_side = 32, tile_rows = 8;

// One block transposes a tile of one image: x (rows, columns) -> y (columns, rows).
template <typename T>
__global__ void __launch_bounds__(tile_side* tile_rows)
    transpose_kernel(const T* x, T* y, std::int64_t rows, std::int64_t columns, std::int64_t tiles_down,
                     std::int64_t tiles_across) {
    constexpr int pitch = tile_side + 1;  // so that a column's elements lie in different banks
    MINICNN_SHARED(T, tile, tile_side * pitch);
    const std::int64_t block = blockIdx.x, image = cuda::divide(block, tiles_down * tiles_across);
    const std::int64_t t = block - image * tiles_down * tiles_across, down = cuda::divide(t, tiles_across);
    const std::int64_t row = down * tile_side, column = (t - down * tiles_across) * tile_side;
    x += image * rows * columns;
    y += image * rows * columns;
    const int tx = threadIdx.x;
    for (int i = threadIdx.y; i < tile_side; i += tile_rows) {
        if (row + i < rows && column + tx < columns)
            tile[i * pitch + tx] = x[(row + i) * columns + column + tx];
    }
    __syncthreads();
    for (int i = threadIdx.y; i < tile_side; i += tile_rows) {
        if (column + i < columns && row + tx < rows)
            y[(column + i) * rows + row + tx] = tile[tx * pitch + i];
    }
}

template <typename T>
void transpose(const T* x, T* y, std::int64_t images, std::int64_t rows, std::int64_t columns) {
    const std::int64_t down = cuda::ceil_div(rows, tile_side), across = cuda::ceil_div(columns, tile_side);
    cuda::launch(transpose_kernel<T>, unsigned(cuda::narrow(images * down * across, "tiles of flatten")),
                 dim3(tile_side, tile_rows), 0, cuda::current_stream(), x, y, rows, columns, down, across);
}

}  // namespace

template <typename T>
void flatten_forward(const T* x, T* y, const ImageShape& s) {
    transpose(x, y, s.N, s.H * s.W, s.C);
}

template <typename T>
void flatten_backward(const T* dy, T* dx, const ImageShape& s) {
    transpose(dy, dx, s.N, s.C, s.H * s.W);
}

template void flatten_forward(const float*, float*, const ImageShape&);
template void flatten_forward(const double*, double*, const ImageShape&);
template void flatten_backward(const float*, float*, const ImageShape&);
template void flatten_backward(const double*, double*, const ImageShape&);
template void flatten_forward(const bfloat16*, bfloat16*, const ImageShape&);
template void flatten_backward(const bfloat16*, bfloat16*, const ImageShape&);

}  // namespace minicnn
