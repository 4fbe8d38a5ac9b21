// Sums over the pixels of a batch, channel by channel, and then a step for each pixel that needs the sums.
//
// The pixels are the rows of a matrix (rows, channels).  A block has a slice of the channels: neighbouring
// threads have neighbouring vectors of channels, and the other threads share the rows.  The first kernel
// stores two sums for each chunk of rows.  In the second one every block adds up the chunks of its slice,
// all in the same order, and goes on with its rows.  So there is no third kernel in between, no block waits
// for another, and the shape alone decides the order of every sum.
#pragma once

#include "reduce.h"

namespace minicnn::cuda {

struct alignas(16) TwoSums {
    double first, second;
    __device__ void merge(const TwoSums& other) {
        first += other.first;
        second += other.second;
    }
};

struct ChannelSplit {
    std::int64_t rows;
    int channels, lanes;  // lanes: how many threads stand side by side along the channels; a power of two
    std::int64_t block_rows;  // of a block
    unsigned slices, blocks;  // blocks: along the rows
};

// A thread takes V channels and `at_once` rows at a time.  About `most_blocks` blocks fill a large GPU.
template <int V>
ChannelSplit split_channels(std::int64_t rows, std::int64_t channels, int at_once, int most_blocks) {
    ChannelSplit s{rows, narrow(channels, "channels"), 1, 0, 0, 0};
    constexpr int most_lanes = V == 1 ? 32 : 8;  // 128 bytes
    while (s.lanes < most_lanes && s.lanes * V < channels) s.lanes *= 2;
    s.slices = unsigned(ceil_div(channels, s.lanes * V));
    const std::int64_t most = larger<std::int64_t>(most_blocks / larger(s.slices, 1u), 1);
    const std::int64_t together = block_threads / s.lanes * at_once;
    s.blocks = unsigned(std::clamp<std::int64_t>(ceil_div(rows, together), 1, most));
    s.block_rows = ceil_div(rows, s.blocks);
    return s;
}

// The rows that a thread takes at once: `first`, and those that follow in steps, below `last`.
struct Rows {
    std::int64_t first, step, last;
    __device__ std::int64_t at(int i) const { return first + i * step; }
    __device__ bool has(int i) const { return at(i) < last; }
};

// `terms` says what is summed:
//   Terms::at_once          how many rows add() takes
//   Terms::own<V>(c)        what a thread must know about its channels; it is worked out once
//   add(sums, rows, c, own) adds V channels of some rows
template <int V, typename Terms>
__global__ void __launch_bounds__(block_threads, 1)
    sum_channels_kernel(Terms terms, TwoSums* chunks, ChannelSplit s) {
    constexpr int warps = block_threads / warp_lanes, most_width = V == 1 ? 32 : 8 * V;
    MINICNN_SHARED(TwoSums, shared, warps * most_width);
    const int width = s.lanes * V, lane = int(threadIdx.x) % s.lanes;
    const int c = int(blockIdx.x) * width + lane * V;
    const std::int64_t first = blockIdx.y * s.block_rows, last = smaller(first + s.block_rows, s.rows);
    const std::int64_t step = block_threads / s.lanes;
    TwoSums sums[V] = {};
    if (c < s.channels) {
        const auto own = terms.template own<V>(c);
        for (std::int64_t row = first + threadIdx.x / s.lanes; row < last; row += step * Terms::at_once)
            terms.template add<V>(sums, Rows{row, step, last}, c, own);
    }
#pragma unroll
    for (int k = 0; k < V; ++k) {
        for (int distance = s.lanes; distance < warp_lanes; distance *= 2) {
            sums[k].merge({__shfl_xor_sync(whole_warp, sums[k].first, distance),
                           __shfl_xor_sync(whole_warp, sums[k].second, distance)});
        }
    }
    if (int(threadIdx.x) % warp_lanes < s.lanes) {
        for (int k = 0; k < V; ++k) shared[int(threadIdx.x) / warp_lanes * width + lane * V + k] = sums[k];
    }
    __syncthreads();  // every warp has stored its sums
    const int channel = int(blockIdx.x) * width + int(threadIdx.x);
    if (int(threadIdx.x) < width && channel < s.channels) {
        TwoSums sum = shared[threadIdx.x];
        for (int warp = 1; warp < warps; ++warp) sum.merge(shared[warp * width + int(threadIdx.x)]);
        chunks[std::int64_t(blockIdx.y) * s.channels + channel] = sum;
    }
}

// `step` says what is done:
//   finish(c, sums, is_first)       turns a channel's sums into Step::Numbers.  In one block of each
//   channel
//                                   it is the first, and stores what is an output
//   read<V>(row, c, numbers)        what is known of V channels of a pixel before anything is stored
//   write<V>(row, c, numbers, read) stores the pixel
//   Step::at_once                   how many rows are read before they are written
template <int V, typename Step>
__global__ void __launch_bounds__(block_threads, 1)
    step_channels_kernel(Step step, const TwoSums* chunks, int count, ChannelSplit s) {
    constexpr int most_width = V == 1 ? 32 : 8 * V;
    using Numbers = typename Step::Numbers;
    MINICNN_SHARED(TwoSums, shared, block_threads);
    MINICNN_SHARED(Numbers, numbers, most_width);
    const int width = s.lanes * V, place = int(threadIdx.x) % width, turn = int(threadIdx.x) / width;
    const int channel = int(blockIdx.x) * width + place, turns = block_threads / width;
    TwoSums sum{};
    if (channel < s.channels) {
        for (int chunk = turn; chunk < count; chunk += turns)
            sum.merge(chunks[std::int64_t(chunk) * s.channels + channel]);
    }
    shared[threadIdx.x] = sum;
    for (int half = turns / 2; half > 0; half /= 2) {
        __syncthreads();
        if (turn < half) {
            sum.merge(shared[int(threadIdx.x) + half * width]);
            shared[threadIdx.x] = sum;
        }
    }
    if (turn == 0 && channel < s.channels) numbers[place] = step.finish(channel, sum, blockIdx.y == 0);
    __syncthreads();  // every channel's numbers are known
    const int lane = int(threadIdx.x) % s.lanes, c = int(blockIdx.x) * width + lane * V;
    if (c >= s.channels) return;
    Numbers own[V];
#pragma unroll
    for (int k = 0; k < V; ++k) own[k] = numbers[lane * V + k];
    const std::int64_t first = blockIdx.y * s.block_rows, last = smaller(first + s.block_rows, s.rows);
    const std::int64_t rows = block_threads / s.lanes;
    for (std::int64_t row = first + threadIdx.x / s.lanes; row < last; row += rows * Step::at_once) {
        const Rows at{row, rows, last};
        decltype(step.template read<V>(row, c, own)) pixels[Step::at_once];
#pragma unroll
        for (int i = 0; i < Step::at_once; ++i) {
            if (at.has(i)) pixels[i] = step.template read<V>(at.at(i), c, own);
        }
#pragma unroll
        for (int i = 0; i < Step::at_once; ++i) {
            if (at.has(i)) step.template write<V>(at.at(i), c, own, pixels[i]);
        }
    }
}

template <int V, typename Terms, typename Step>
void sum_and_step(const Terms* terms, std::int64_t term_rows, const Step& step, std::int64_t step_rows,
                  std::int64_t channels) {
    const ChannelSplit to = split_channels<V>(step_rows, channels, Step::at_once, Step::most_blocks);
    if (!terms) {
        return launch(step_channels_kernel<V, Step>, dim3(to.slices, to.blocks), block_threads, 0,
                      current_stream(), step, nullptr, 0, to);
    }
    // Every block of the second kernel reads all chunks of its slice.  So there are few of them.
    const int slices = int(split_channels<V>(0, channels, 1, 1).slices);
    const ChannelSplit from =
        split_channels<V>(term_rows, channels, Terms::at_once, smaller(264, 132 * larger(slices, 1)));
    const Scratch<TwoSums> chunks(std::int64_t(from.blocks) * channels);
    launch(sum_channels_kernel<V, Terms>, dim3(from.slices, from.blocks), block_threads, 0,
           current_stream(), *terms, chunks.get(), from);
    launch(step_channels_kernel<V, Step>, dim3(to.slices, to.blocks), block_threads, 0, current_stream(),
           step, chunks.get(), int(from.blocks), to);
}

// Sums terms over `term_rows` rows, and does a step for each of `step_rows` rows.  Without terms, the sums
// are 0. V is the full width if `wide`: then all arrays are aligned and V divides the channels.
template <typename T, bool may_be_wide = true, typename Terms, typename Step>
void for_each_pixel(const Terms* terms, std::int64_t term_rows, const Step& step, std::int64_t step_rows,
                    std::int64_t channels, bool wide) {
    constexpr int V = may_be_wide ? full_width<T> : 1;
    if (wide && channels % V == 0) {
        sum_and_step<V>(terms, term_rows, step, step_rows, channels);
    } else {
        sum_and_step<1>(terms, term_rows, step, step_rows, channels);
    }
}

}  // namespace minicnn::cuda
