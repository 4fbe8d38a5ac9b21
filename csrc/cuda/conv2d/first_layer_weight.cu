// The gradient of a first layer to its weight: a product of dy, filters x pixels, and the patches of x,
// pixels x taps.  There are few filters and taps and very many pixels.  So each warp computes all sums over
// pixels of its own: a lane has 8 filters times 8 taps in registers, and reads dy and x through the L1
// cache. The sums of a block's warps are added in order, and then those of the blocks.

#include "first_layer.h"

namespace minicnn::cuda {
namespace {

constexpr int lane_taps = 8, lane_vectors = 2;
constexpr int block_warps = block_threads / warp_lanes;
template <typename T>
constexpr int lane_filters = lane_vectors * full_width<T>;
template <typename T>
constexpr int most_filters = 8 * lane_filters<T>;  // of a warp

// How the lanes of a warp share filters, taps and pixels: how many stand along each; powers of two.
struct Lanes {
    int filters, taps, pixels;
};

struct WeightSize {
    std::int64_t pixels, block_pixels;
    int K, F;
};

template <typename T>
struct TapSum {
    T value;
    __device__ void merge(const TapSum& other) { value += other.value; }
};

// The inputs that a lane's taps meet at one pixel after another.
template <typename T>
struct LaneTaps {
    int h[lane_taps], w[lane_taps], offset[lane_taps];

    __device__ LaneTaps(const Patches<T, true>& patches, int first, int K) {
#pragma unroll
        for (int t = 0; t < lane_taps; ++t) {
            const auto cell = patches.depth(first + t, first + t < K);
            h[t] = cell.h;
            w[t] = cell.w;
            offset[t] = first + t < K ? (cell.h * patches.W + cell.w) * int(patches.C) + cell.c : 0;
        }
    }
    __device__ void load(T (&inputs)[lane_taps], const Patches<T, true>& patches, std::int64_t pixel,
                         bool in) const {
        const auto window = patches.row(pixel, in);
        const int corner = in ? (window.h * patches.W + window.w) * int(patches.C) : 0;
#pragma unroll
        for (int t = 0; t < lane_taps; ++t) {
            const bool inside = unsigned(window.h + h[t]) < unsigned(patches.H) &&
                                unsigned(window.w + w[t]) < unsigned(patches.W);
            inputs[t] = inside ? window.image[corner + offset[t]] : T(0);
        }
    }
};

// The gradients of a lane's filters at one pixel after another, W at a time.
template <typename T, int W, bool fused>
struct LaneGradients {
    static constexpr int V = full_width<T>;
    const GradientColumns<T, fused>& columns;
    int first[lane_vectors], F;

    __device__ void load(T (&values)[lane_filters<T>], std::int64_t pixel, bool in) const {
        const auto at = columns.depth(pixel, in);
#pragma unroll
        for (int j = 0; j < lane_vectors; ++j) {
#pragma unroll
            for (int q = 0; q < V; q += W) {
                const int f = first[j] + q;
                const Vector<T, W> loaded = columns.template values<W>({f, f < F}, at);
#pragma unroll
                for (int i = 0; i < W; ++i) values[j * V + q + i] = loaded.v[i];
            }
        }
    }
};

template <typename T, int W, bool fused>
__global__ void __launch_bounds__(block_threads, 1)
    first_layer_weight_kernel(Patches<T, true> patches, GradientColumns<T, fused> columns, TapSum<T>* parts,
                              Lanes lanes, WeightSize s) {
    constexpr int V = full_width<T>, pitch = most_filters<T>;
    MINICNN_SHARED(T, shared, first_layer_taps * pitch);  // [tap][filter]
    const int warp = int(threadIdx.x) / warp_lanes, lane = int(threadIdx.x) % warp_lanes;
    const int along_filters = lane % lanes.filters, rest = lane / lanes.filters;
    const int first_tap = rest % lanes.taps * lane_taps, turn = rest / lanes.taps;
    const int first_filter = int(blockIdx.y) * pitch;
    int own[lane_vectors];
#pragma unroll
    for (int j = 0; j < lane_vectors; ++j) own[j] = (j * lanes.filters + along_filters) * V;

    const LaneTaps<T> taps(patches, first_tap, s.K);
    const LaneGradients<T, W, fused> gradients{
        columns, {first_filter + own[0], first_filter + own[1]}, s.F};
    const std::int64_t first = blockIdx.x * s.block_pixels,
                       last = smaller(first + s.block_pixels, s.pixels);
    const std::int64_t step = block_warps * lanes.pixels;
    T sum[lane_taps][lane_filters<T>] = {};
    T next[lane_filters<T>];
    std::int64_t pixel = first + warp * lanes.pixels + turn;
    gradients.load(next, pixel, pixel < last);
    for (; pixel < last; pixel += step) {
        T dy[lane_filters<T>], x[lane_taps];
#pragma unroll
        for (int f = 0; f < lane_filters<T>; ++f) dy[f] = next[f];
        gradients.load(next, pixel + step, pixel + step < last);  // is under way meanwhile
        taps.load(x, patches, pixel, true);
#pragma unroll
        for (int t = 0; t < lane_taps; ++t) {
#pragma unroll
            for (int f = 0; f < lane_filters<T>; ++f) sum[t][f] += x[t] * dy[f];
        }
    }

#pragma unroll
    for (int t = 0; t < lane_taps; ++t) {
#pragma unroll
        for (int f = 0; f < lane_filters<T>; ++f) {
            for (int distance = warp_lanes / 2; distance >= lanes.filters * lanes.taps; distance /= 2)
                sum[t][f] += __shfl_xor_sync(whole_warp, sum[t][f], distance);
        }
    }
    for (int adding = 0; adding < block_warps; ++adding) {
        if (warp == adding && turn == 0) {
#pragma unroll
            for (int t = 0; t < lane_taps; ++t) {
                T* const row = shared + (first_tap + t) * pitch;
#pragma unroll
                for (int f = 0; f < lane_filters<T>; ++f) {
                    T& total = row[own[f / V] + f % V];
                    total = adding ? total + sum[t][f] : sum[t][f];
                }
            }
        }
        __syncthreads();
    }
    TapSum<T>* const part = parts + std::int64_t(blockIdx.x) * s.K * s.F;
    const int filters = smaller(s.F - first_filter, pitch);
    for (int i = int(threadIdx.x); i < s.K * filters; i += block_threads) {
        const int k = i / filters, f = i - k * filters;
        part[k * s.F + first_filter + f] = {shared[k * pitch + f]};
    }
}

template <typename T>
struct KeepTaps {
    T* dw;
    int K, F;
    __device__ void operator()(int column, const TapSum<T>& sum) const {
        const int k = column / F, f = column - k * F;
        dw[std::int64_t(f) * K + k] = sum.value;
    }
};

// The smallest power of two that is not below `count`, which is at most `most`.
int lanes_for(std::int64_t count, int most) {
    int lanes = 1;
    while (lanes < most && lanes < count) lanes *= 2;
    return lanes;
}

template <typename T, int W, bool fused>
void sum_pixels(const T* dy, const Fused& f, const T* x, T* dw, const ConvParams& p) {
    constexpr std::int64_t enough_blocks = 264, least_steps = 4;
    const int K = int(p.KH * p.KW * p.C), F = narrow(p.F, "F");
    const std::int64_t pixels = p.N * p.OH * p.OW, slices = ceil_div(F, most_filters<T>);
    Lanes lanes{lanes_for(ceil_div(F, lane_filters<T>), 8), lanes_for(ceil_div(K, lane_taps), 4), 1};
    lanes.pixels = warp_lanes / (lanes.filters * lanes.taps);
    const std::int64_t most = larger<std::int64_t>(enough_blocks / slices, 1);
    const std::int64_t blocks =
        std::clamp<std::int64_t>(ceil_div(pixels, block_warps * lanes.pixels * least_steps), 1, most);
    const Scratch<TapSum<T>> parts(blocks * K * F);
    launch(first_layer_weight_kernel<T, W, fused>, dim3(unsigned(blocks), unsigned(slices)), block_threads,
           0, current_stream(), Patches<T, true>(x, p, Pixels(p.OH, p.OW)),
           GradientColumns<T, fused>(dy, p, f), parts.get(), lanes,
           WeightSize{pixels, ceil_div(pixels, blocks), K, F});
    add_chunks(Chunks<TapSum<T>>{parts.get(), std::int64_t(K) * F}, KeepTaps<T>{dw, K, F}, int(blocks));
}

template <typename T, bool fused>
void sum_pixels(const T* dy, const Fused& f, const T* x, T* dw, const ConvParams& p) {
    constexpr int V = full_width<T>;
    if (aligned(dy) && aligned(f.relu_y) && aligned(f.winner) && p.F % V == 0) {
        sum_pixels<T, V, fused>(dy, f, x, dw, p);
    } else {
        sum_pixels<T, 1, fused>(dy, f, x, dw, p);
    }
}

}  // namespace

template <typename T>
void first_layer_weight_gradient(const T* dy, const Fused& f, const T* x, T* dw, const ConvParams& p) {
    if (f.relu_y || f.winner) {
        sum_pixels<T, true>(dy, f, x, dw, p);
    } else {
        sum_pixels<T, false>(dy, f, x, dw, p);
    }
}

#define INSTANTIATE(T) \
    template void first_layer_weight_gradient(const T*, const Fused&, const T*, T*, const ConvParams&)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn::cuda
