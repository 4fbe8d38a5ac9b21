// A first layer, forward: a thread computes 4 pixels times 8 filters.

#include "first_layer.h"
#include "inputs.h"

namespace minicnn::cuda {
namespace {

constexpr int pixels_of_thread = first_layer_cells;
constexpr int block_filters = 64;

// The sums that a thread computes, for V neighbouring filters.
template <typename T, int V>
using Sums = T[pixels_of_thread][V];

// A thread's four pixels are neighbours in memory.
template <typename T>
struct EveryPixel {
    ForwardOutput<T> to;
    Pixels order;
    std::int64_t pixels;

    __device__ Pixel pixel(std::int64_t i, int number) const {
        return order.at(smaller(i * pixels_of_thread + number, pixels - 1));
    }
    __device__ bool in_map(const Pixel&) const { return true; }
    template <int V>
    __device__ void put(std::int64_t i, int f, const Sums<T, V>& sums, const bool*) const {
        const int count = int(to.F) - f;
        const auto offset = to.template column<V>(0, f, count);
#pragma unroll
        for (int number = 0; number < pixels_of_thread; ++number) {
            const std::int64_t m = i * pixels_of_thread + number;
            if (m >= pixels) break;
            Vector<T, V> values;
#pragma unroll
            for (int q = 0; q < V; ++q) values.v[q] = sums[number][q];
            to.put(0, to.row(m), f, offset, values, count);
        }
    }
};

// A thread's four pixels are the cells of one window of a max-pool; the thread stores their maximum.
template <typename T>
struct EveryWindow {
    PoolOutput<T> to;
    WindowOrder order;

    __device__ Pixel pixel(std::int64_t i, int number) const { return order.cell(order.window(i), number); }
    __device__ bool in_map(const Pixel& pixel) const { return to.in_map(pixel); }
    template <int V>
    __device__ void put(std::int64_t i, int f, const Sums<T, V>& sums, const bool* in_map) const {
        Vector<T, V> y{};
        Vector<std::uint8_t, V> winner{};
#pragma unroll
        for (int q = 0; q < V; ++q) {
            if (f + q >= to.F) break;
            const T offset = to.offset(f + q);
            Maximum<T> maximum;
#pragma unroll
            for (int cell = 0; cell < pixels_of_thread; ++cell) {
                if (in_map[cell]) maximum.take(cell, sums[cell][q] + offset);
            }
            maximum = to.after_relu(maximum);
            y.v[q] = maximum.best;
            winner.v[q] = std::uint8_t(maximum.won);
        }
        store_some(to.y + i * to.F + f, y, int(to.F) - f);
        if (to.winner) store_some(to.winner + i * to.F + f, winner, int(to.F) - f);
    }
};

// The filters, and the steps to their taps, are kept in shared memory.  Inputs are read through the L1
// cache. `count` is the number of groups of four pixels.
template <typename T, typename Places>
__global__ void __launch_bounds__(block_threads)
    first_layer_kernel(Inputs<T> inputs, const T* weight, Places places, std::int64_t count, int K, int F) {
    constexpr int V = full_width<T>, vectors = 2;
    MINICNN_SHARED(T, filters, first_layer_taps * block_filters);  // [tap][filter], zeros beyond the last
    MINICNN_SHARED(Step, taps, first_layer_taps);
    const int first_filter = int(blockIdx.y) * block_filters;
    for (int i = int(threadIdx.x); i < K * block_filters; i += block_threads) {
        const int k = i / block_filters, f = first_filter + i % block_filters;
        filters[i] = f < F ? weight[std::int64_t(f) * K + k] : T(0);
    }
    for (int k = int(threadIdx.x); k < K; k += block_threads) taps[k] = inputs.tap(k, 0);
    __syncthreads();

    // `lanes` neighbouring threads compute the same pixels; each of them has every lanes-th vector of
    // filters
    const int lanes = int(ceil_div(smaller(F - first_filter, block_filters), V * vectors));
    const std::int64_t step = std::int64_t(gridDim.x) * block_threads;
    for (std::int64_t item = std::int64_t(blockIdx.x) * block_threads + threadIdx.x; item < count * lanes;
         item += step) {
        const std::int64_t i = divide(item, lanes);
        const int lane = int(item - i * lanes);
        Step corners[pixels_of_thread];
        bool in_map[pixels_of_thread];
#pragma unroll
        for (int number = 0; number < pixels_of_thread; ++number) {
            const Pixel pixel = places.pixel(i, number);
            corners[number] = inputs.corner(pixel);
            in_map[number] = places.in_map(pixel);
        }
        T sums[vectors][pixels_of_thread][V] = {};
        for (int k = 0; k < K; ++k) {
            const Step tap = taps[k];
            T input[pixels_of_thread];
#pragma unroll
            for (int number = 0; number < pixels_of_thread; ++number) {
                const Step& corner = corners[number];
                const bool in = inputs.in_image(corner.h + tap.h, corner.w + tap.w);
                input[number] = in ? inputs.x[corner.elements + tap.elements] : T(0);
            }
#pragma unroll
            for (int j = 0; j < vectors; ++j) {
                const auto filter = load<V>(filters + k * block_filters + (j * lanes + lane) * V);
#pragma unroll
                for (int number = 0; number < pixels_of_thread; ++number) {
#pragma unroll
                    for (int q = 0; q < V; ++q) sums[j][number][q] += input[number] * filter.v[q];
                }
            }
        }
#pragma unroll
        for (int j = 0; j < vectors; ++j) {
            const int f = first_filter + (j * lanes + lane) * V;
            if (f < F) places.template put<V>(i, f, sums[j], in_map);
        }
    }
}

template <typename T, typename Places>
void forward(const T* x, const T* weight, const Places& places, std::int64_t count, const ConvParams& p) {
    const std::int64_t most_blocks = 2048, F = narrow(p.F, "F");
    const std::int64_t lanes = ceil_div(std::min<std::int64_t>(F, block_filters), 2 * full_width<T>);
    const dim3 grid(unsigned(std::min(ceil_div(count * lanes, block_threads), most_blocks)),
                    unsigned(ceil_div(F, block_filters)));
    launch(first_layer_kernel<T, Places>, grid, block_threads, 0, current_stream(),
           Inputs<T>(x, p, p.stride_h, p.stride_w), weight, places, count, int(p.KH * p.KW * p.C), int(F));
}

}  // namespace

template <typename T>
void first_layer_forward(const T* x, const T* weight, const ForwardOutput<T>& out, const ConvParams& p) {
    const std::int64_t pixels = p.N * p.OH * p.OW;
    const EveryPixel<T> places{out, Pixels(p.OH, p.OW), pixels};
    forward(x, weight, places, ceil_div(pixels, pixels_of_thread), p);
}

template <typename T>
void first_layer_pool_forward(const T* x, const T* weight, const PoolOutput<T>& out, const ConvParams& p,
                              const PoolParams& pool) {
    forward(x, weight, EveryWindow<T>{out, WindowOrder(pool)}, p.N * pool.OH * pool.OW, p);
}

#define INSTANTIATE(T)                                                                                  \
    template void first_layer_forward(const T*, const T*, const ForwardOutput<T>&, const ConvParams&);  \
    template void first_layer_pool_forward(const T*, const T*, const PoolOutput<T>&, const ConvParams&, \
                                           const PoolParams&)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn::cuda
