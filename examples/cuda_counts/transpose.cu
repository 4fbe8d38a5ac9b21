// A transposition of a matrix, in two ways.
#include "run.h"

constexpr int side = 32, columns = 256;  // of a tile, and of the matrix

// A block reads a tile by rows into shared memory and writes its columns, so both sides of the copy are
// whole sectors.  `pitch` is the distance of two rows of the tile.
template <int pitch>
__device__ void transpose_tile(const float* from, float* to, float* tile) {
    const int row = int(blockIdx.y) * side, column = int(blockIdx.x) * side;
    for (int i = int(threadIdx.y); i < side; i += int(blockDim.y)) {
        tile[i * pitch + threadIdx.x] = from[(row + i) * columns + column + threadIdx.x];
    }
    __syncthreads();
    for (int i = int(threadIdx.y); i < side; i += int(blockDim.y)) {
        to[(column + i) * columns + row + threadIdx.x] = tile[threadIdx.x * pitch + i];
    }
}

// A column of the tile lies in one bank.
__global__ void transpose_without_padding(const float* from, float* to) {
    MINICNN_SHARED(float, tile, side* side);
    transpose_tile<side>(from, to, tile);
}

// One unused element after each row puts a column's elements into 32 banks.
__global__ void transpose_with_padding(const float* from, float* to) {
    MINICNN_SHARED(float, tile, side*(side + 1));
    transpose_tile<side + 1>(from, to, tile);
}

int main() {
    Array from("from", columns * columns), to("to", columns * columns);
    const dim3 grid(columns / side, columns / side), block(side, 8);
    launch(transpose_without_padding, grid, block, 0, nullptr, from, to);
    launch(transpose_with_padding, grid, block, 0, nullptr, from, to);
    for (int i = 0; i < columns * columns; ++i) {
        if (to[i] != from[i % columns * columns + i / columns]) return 1;
    }
    return 0;
}
