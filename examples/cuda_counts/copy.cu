// A copy of an array, in two ways.  MINICNN_CUDA_COUNT counts what each asks of memory.
#include <algorithm>

#include "run.h"

// Neighbouring threads copy neighbouring elements.
__global__ void copy_coalesced(const float* from, float* to, int count) {
    const int threads = int(gridDim.x * blockDim.x);
    for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < count; i += threads) to[i] = from[i];
}

// Each thread copies a piece of its own.
__global__ void copy_in_pieces(const float* from, float* to, int count) {
    const int threads = int(gridDim.x * blockDim.x), piece = count / threads;
    const int first = int(blockIdx.x * blockDim.x + threadIdx.x) * piece;
    for (int i = first; i < first + piece; ++i) to[i] = from[i];
}

int main() {
    Array from("from", 1 << 16), to("to", 1 << 16);
    launch(copy_coalesced, 16, 256, 0, nullptr, from, to, from.size());
    launch(copy_in_pieces, 16, 256, 0, nullptr, from, to, from.size());
    return std::equal(&from[0], &from[from.size()], &to[0]) ? 0 : 1;
}
