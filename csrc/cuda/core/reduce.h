// Sums within warps and blocks, and over the rows of a matrix.  The order of a sum is always the same.
#pragma once

#include "elementwise.h"

namespace minicnn::cuda {

constexpr unsigned whole_warp = 0xFFFFFFFFu;
constexpr int warp_lanes = 32;

// The sum over a warp, in every lane.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
    for (int lanes = warp_lanes / 2; lanes > 0; lanes /= 2)
        value += __shfl_xor_sync(whole_warp, value, lanes);
    return value;
}

// The maximum over a warp, in every lane.  A NaN may be ignored.
template <typename T>
__device__ __forceinline__ T warp_max(T value) {
    for (int lanes = warp_lanes / 2; lanes > 0; lanes /= 2) {
        const T other = __shfl_xor_sync(whole_warp, value, lanes);
        value = other > value ? other : value;
    }
    return value;
}

// Transposes the V x V values that V neighbouring lanes have.  The whole warp must call it.
template <int V, typename T>
__device__ __forceinline__ void transpose_lanes(T (&values)[V]) {
#pragma unroll
    for (int step = 1; step < V; step *= 2) {
        const bool upper = threadIdx.x & step;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            if (i & step) continue;
            T &low = values[i], &high = values[i + step];
            const T other = __shfl_xor_sync(whole_warp, upper ? low : high, step);
            (upper ? low : high) = other;
        }
    }
}

// The sum over a block of block_threads, in every thread.  All threads must call it.
template <typename T>
__device__ __forceinline__ T block_sum(T value) {
    constexpr int warps = block_threads / warp_lanes;
    MINICNN_SHARED(T, sums, warps);
    value = warp_sum(value);
    __syncthreads();  // the previous call's readers are done
    if (threadIdx.x % warp_lanes == 0) sums[threadIdx.x / warp_lanes] = value;
    __syncthreads();
    value = sums[0];
    for (int i = 1; i < warps; ++i) value += sums[i];
    return value;
}

// ---- over the rows of a matrix (rows, channels) ----------------------------------------------------

// How the rows are cut into chunks, one for each block.  The shape alone decides, so that the order of a
// sum is always the same.
struct RowSplit {
    std::int64_t rows;
    int channels, chunks;
    std::int64_t chunk_rows;
    unsigned lanes;  // how many threads of a block stand side by side along the channels; a power of two
};

inline RowSplit split_rows(std::int64_t rows, std::int64_t channels) {
    unsigned lanes = 1;
    while (lanes < 32 && lanes < channels) lanes *= 2;
    const std::int64_t together = block_threads / lanes;
    const std::int64_t chunks = std::clamp<std::int64_t>(ceil_div(rows, together * 16), 1, 256);
    return {rows, narrow(channels, "channels"), int(chunks), ceil_div(rows, chunks), lanes};
}

// Reduces the rows of each chunk, channel by channel, and calls finish(c, chunk, accumulator) with the
// result. `sums` says what is summed:
//   Sums::Accumulator             what is kept; merge(other) adds another one
//   column(c)                     what a thread must know about its channel; it is worked out once
//   add(accumulator, row, column) adds one element
template <typename Sums, typename Finish>
__global__ void __launch_bounds__(block_threads) reduce_rows_kernel(Sums sums, Finish finish, RowSplit s) {
    using Accumulator = typename Sums::Accumulator;
    MINICNN_SHARED(Accumulator, shared, block_threads);
    const int c = int(blockIdx.x * blockDim.x + threadIdx.x);
    const int place = int(threadIdx.y * blockDim.x + threadIdx.x);
    const std::int64_t first = blockIdx.y * s.chunk_rows, last = smaller(first + s.chunk_rows, s.rows);
    Accumulator sum{};
    if (c < s.channels) {
        const auto column = sums.column(c);
        for (std::int64_t row = first + threadIdx.y; row < last; row += blockDim.y)
            sums.add(sum, row, column);
    }
    shared[place] = sum;
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) {
            sum.merge(shared[place + int(half * blockDim.x)]);
            shared[place] = sum;
        }
    }
    if (threadIdx.y == 0 && c < s.channels) finish(c, int(blockIdx.y), sum);
}

// The accumulators of the chunks, (chunks, channels).  The first pass writes them and the second one
// reduces them.
template <typename Accumulator_>
struct Chunks {
    using Accumulator = Accumulator_;
    Accumulator* data;
    std::int64_t channels;
    __device__ void operator()(int c, int chunk, const Accumulator& sum) const {
        data[chunk * channels + c] = sum;
    }
    __device__ int column(int c) const { return c; }
    __device__ void add(Accumulator& sum, std::int64_t chunk, int c) const {
        sum.merge(data[chunk * channels + c]);
    }
};

template <typename Accumulator, typename Finish>
struct FinishAll {
    Finish finish;
    __device__ void operator()(int c, int, const Accumulator& sum) const { finish(c, sum); }
};

template <typename Sums, typename Finish>
void launch_rows(const Sums& sums, const Finish& finish, const RowSplit& s) {
    launch(reduce_rows_kernel<Sums, Finish>,
           dim3(unsigned(ceil_div(s.channels, s.lanes)), unsigned(s.chunks)),
           dim3(s.lanes, block_threads / s.lanes), 0, current_stream(), sums, finish, s);
}

// Adds up the accumulators of the chunks, and calls finish(c, accumulator) for each channel.
template <typename Accumulator, typename Finish>
void add_chunks(const Chunks<Accumulator>& chunks, const Finish& finish, int count) {
    constexpr unsigned few_lanes = 4;  // along the channels; the other threads share the chunks
    launch_rows(chunks, FinishAll<Accumulator, Finish>{finish},
                RowSplit{count, narrow(chunks.channels, "channels"), 1, count, few_lanes});
}

// Reduces all rows, channel by channel, and calls finish(c, accumulator) for each channel.
template <typename Sums, typename Finish>
void reduce_rows(const Sums& sums, const Finish& finish, std::int64_t rows, std::int64_t channels) {
    using Accumulator = typename Sums::Accumulator;
    if (channels == 0) return;
    const RowSplit s = split_rows(rows, channels);
    if (s.chunks == 1) return launch_rows(sums, FinishAll<Accumulator, Finish>{finish}, s);
    const Scratch<Accumulator> partial(std::int64_t(s.chunks) * channels);
    const Chunks<Accumulator> chunks{partial.get(), channels};
    launch_rows(sums, chunks, s);
    add_chunks(chunks, finish, s.chunks);
}

}  // namespace minicnn::cuda
