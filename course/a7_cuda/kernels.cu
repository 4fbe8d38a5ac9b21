// CUDA kernels.  With minicnn's emulation in front of the include path a C++ compiler builds them for the
// CPU.
#include "cuda_task.h"

namespace {

constexpr int block = 64, tile = 16;

// y = max(x + bias[channel], 0) for x (pixels,channels).
__global__ void bias_relu_kernel(const float* x, const float* bias, float* y, int size, int channels) {
    // BEGIN SOLUTION
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= size) return;
    const float value = x[i] + bias[i % channels];
    y[i] = value > 0 ? value : 0;
    // END SOLUTION
}

// A block for each row: y = exp(x - max) / sum of exp(x - max).
__global__ void softmax_kernel(const float* x, float* y, int columns) {
    MINICNN_SHARED(float, shared, block);
    // BEGIN SOLUTION
    x += blockIdx.x * columns;
    y += blockIdx.x * columns;
    const int t = int(threadIdx.x);
    float most = -INFINITY;
    for (int j = t; j < columns; j += block) most = x[j] > most ? x[j] : most;
    shared[t] = most;
    for (int half = block / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half && shared[t + half] > shared[t]) shared[t] = shared[t + half];
    }
    __syncthreads();
    most = shared[0];
    __syncthreads();
    float sum = 0;
    for (int j = t; j < columns; j += block) sum += std::exp(x[j] - most);
    shared[t] = sum;
    for (int half = block / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) shared[t] += shared[t + half];
    }
    __syncthreads();
    for (int j = t; j < columns; j += block) y[j] = std::exp(x[j] - most) / shared[0];
    // END SOLUTION
}

// A block of tile * tile threads for each tile of y.
__global__ void matmul_kernel(const float* a, const float* b, float* y, int n, int k, int m) {
    MINICNN_SHARED(float, left, tile* tile);
    MINICNN_SHARED(float, right, tile* tile);
    // BEGIN SOLUTION
    const int i = int(threadIdx.y), j = int(threadIdx.x);
    const int row = int(blockIdx.y) * tile + i, column = int(blockIdx.x) * tile + j;
    float sum = 0;
    for (int start = 0; start < k; start += tile) {
        left[i * tile + j] = row < n && start + j < k ? a[row * k + start + j] : 0;
        right[i * tile + j] = start + i < k && column < m ? b[(start + i) * m + column] : 0;
        __syncthreads();
        for (int t = 0; t < tile; ++t) sum += left[i * tile + t] * right[t * tile + j];
        __syncthreads();
    }
    if (row < n && column < m) y[row * m + column] = sum;
    // END SOLUTION
}

unsigned blocks(int size, int each) { return unsigned((size + each - 1) / each); }

}  // namespace

TASK bias_relu(const float* x, const float* bias, float* y, int size, int channels) {
    return task::run([&] {
        launch(bias_relu_kernel, blocks(size, block), block, 0, nullptr, x, bias, y, size, channels);
    });
}

TASK softmax(const float* x, float* y, int rows, int columns) {
    return task::run([&] { launch(softmax_kernel, unsigned(rows), block, 0, nullptr, x, y, columns); });
}

TASK matmul(const float* a, const float* b, float* y, int n, int k, int m) {
    return task::run([&] {
        const dim3 grid(blocks(m, tile), blocks(n, tile)), threads(tile, tile);
        launch(matmul_kernel, grid, threads, 0, nullptr, a, b, y, n, k, m);
    });
}
