// A choice between two sums, made by each thread or by each warp.
#include "run.h"

__device__ float sum_up(const float* from, int count) {
    float sum = 0;
    for (int i = 0; i < count; ++i) sum += from[i];
    return sum;
}

// Every other thread has more to add, so the lanes of a warp part.
__global__ void branch_by_thread(const float* from, float* to) {
    const int i = int(threadIdx.x);
    to[i] = i % 2 == 0 ? sum_up(from, 8) : -sum_up(from, 4);
}

// Every other warp has.
__global__ void branch_by_warp(const float* from, float* to) {
    const int i = int(threadIdx.x);
    to[i] = i / 32 % 2 == 0 ? sum_up(from, 8) : -sum_up(from, 4);
}

int main() {
    Array from("from", 8), to("to", 256);
    launch(branch_by_thread, 1, 256, 0, nullptr, from, to);
    launch(branch_by_warp, 1, 256, 0, nullptr, from, to);
    return 0;
}
