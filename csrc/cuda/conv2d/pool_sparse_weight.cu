// The gradient to the weight of a convolution that a max-pool follows, computed from the winners alone.  A
// window of 2 x 2 sends its gradient to one pixel of the map.  So a quarter of the dense product's
// multiplications are left; the others would be by zero.
//
// A warp computes the sums of a few filters and some hundred taps; each of its lanes has a few of the taps.
// For every window it loads the taps' inputs at all cells of the window into registers.  Then each filter
// adds the inputs of the cell that won for this filter.  That cell is the same for the whole warp, so all
// lanes take the same branch. Inputs are read through the L1 cache: the warps of a block work on the same
// windows, and often on the same taps. No thread waits for another.

#include "conv2d.h"
#include "inputs.h"
#include "window_order.h"

namespace minicnn::cuda {
namespace {

constexpr int window_cells = 4;
constexpr int block_warps = block_threads / warp_lanes;

// How many taps and filters a warp computes.  WX taps are loaded at once.
template <typename T, int WX>
struct WarpShare {
    static constexpr int vectors = WX == 1 ? 5 : 3;  // of taps, for each lane
    static constexpr int taps = warp_lanes * vectors * WX;
    static constexpr int filters = 32 / sizeof(T);
};

// The inputs of one window after another.
template <typename T>
struct WindowInputs : Inputs<T> {
    int windows_down, windows_across;
    Pixels windows;
    Step cells[window_cells];

    WindowInputs(const T* x, const ConvParams& p, const PoolParams& pool)
        : Inputs<T>(x, p, p.stride_h * pool.stride_h, p.stride_w * pool.stride_w),
          windows_down(int(pool.OH)),
          windows_across(int(pool.OW)),
          windows(pool.OH, pool.OW) {
        for (int i = 0; i < window_cells; ++i)
            cells[i] = this->step(int(i / pool.KW * p.stride_h), int(i % pool.KW * p.stride_w), 0);
    }
    __device__ void to_next(Pixel& window) const {
        if (++window.w < windows_across) return;
        window.w = 0;
        if (++window.h < windows_down) return;
        window.h = 0;
        ++window.n;
    }
};

// How many warps share the filters and the taps.  There are as many again for each part of the sums.
struct Warps {
    int along_filters, along_taps;
};

// sum += dy * input
template <typename T, int vectors, int WX>
__device__ __forceinline__ void add(T (&sum)[vectors][WX], T dy, const Vector<T, WX> (&input)[vectors]) {
#pragma unroll
    for (int j = 0; j < vectors; ++j) {
#pragma unroll
        for (int q = 0; q < WX; ++q) sum[j][q] += dy * input[j].v[q];
    }
}

// The gradients of WD filters are loaded at once.
template <typename T, int WX, int WD, typename Output>
__global__ void __launch_bounds__(block_threads, 1)
    pooled_weight_kernel(WindowInputs<T> inputs, const T* dy, const std::uint8_t* winner, std::int64_t F,
                         Output out, GemmSize s, Warps warps) {
    using Of = WarpShare<T, WX>;
    const int lane = int(threadIdx.x) % warp_lanes, group = int(blockIdx.y);
    const int warp = int(blockIdx.x) * block_warps + int(threadIdx.x) / warp_lanes;
    const int first_filter = warp % warps.along_filters * Of::filters, rest = warp / warps.along_filters;
    const int first_tap = rest % warps.along_taps * Of::taps, split = rest / warps.along_taps;
    if (split >= s.splits) return;

    const int K = int(s.M);
    int k[Of::vectors];
    const T* from[Of::vectors];
    int tap_h[Of::vectors], tap_w[Of::vectors];
#pragma unroll
    for (int j = 0; j < Of::vectors; ++j) {
        k[j] = first_tap + (j * warp_lanes + lane) * WX;
        const Step tap = inputs.tap(smaller(k[j], K - WX), group * (inputs.C / s.groups));
        from[j] = inputs.x + tap.elements;
        tap_h[j] = tap.h;
        tap_w[j] = tap.w;
    }

    T sum[Of::filters][Of::vectors][WX] = {};
    const std::int64_t first = split * s.split_depth, last = smaller(first + s.split_depth, s.K);
    Pixel at = inputs.windows.at(first);
    for (std::int64_t window = first; window < last; ++window, inputs.to_next(at)) {
        Vector<T, WX> input[window_cells][Of::vectors];
        const Step corner = inputs.corner(at);
#pragma unroll
        for (int i = 0; i < window_cells; ++i) {
            const int h = corner.h + inputs.cells[i].h, w = corner.w + inputs.cells[i].w;
            const std::int64_t offset = corner.elements + inputs.cells[i].elements;
#pragma unroll
            for (int j = 0; j < Of::vectors; ++j) {
                input[i][j] = {};
                if (inputs.in_image(h + tap_h[j], w + tap_w[j])) input[i][j] = load<WX>(from[j] + offset);
            }
        }
        const std::int64_t row = window * F + std::int64_t(group) * s.N + first_filter;
#pragma unroll
        for (int f = 0; f < Of::filters; f += WD) {
            if (first_filter + f >= s.N) break;
            const Vector<T, WD> gradient = load<WD>(dy + row + f);
            const auto won = load<WD>(winner + row + f);
#pragma unroll
            for (int i = 0; i < WD; ++i) {
                switch (won.v[i]) {  // a loop of comparisons would be compiled to four times the
                                     // multiplications
                    case 0:
                        add(sum[f + i], gradient.v[i], input[0]);
                        break;
                    case 1:
                        add(sum[f + i], gradient.v[i], input[1]);
                        break;
                    case 2:
                        add(sum[f + i], gradient.v[i], input[2]);
                        break;
                    case 3:
                        add(sum[f + i], gradient.v[i], input[3]);
                        break;
                }
            }
        }
    }

#pragma unroll
    for (int j = 0; j < Of::vectors; ++j) {
#pragma unroll
        for (int q = 0; q < WX; ++q) {
            Vector<T, Of::filters> values;
#pragma unroll
            for (int f = 0; f < Of::filters; ++f) values.v[f] = sum[f][j][q];
            const int count = k[j] + q < K ? s.N - first_filter : 0;
            put(out, group, split, out.row(k[j] + q), first_filter, values, count);
        }
    }
}

template <typename T, int WX, int WD>
void from_winners(const T* dy, const std::uint8_t* winner, const T* x, T* dw, const ConvParams& p,
                  const PoolParams& pool) {
    using Of = WarpShare<T, WX>;
    const std::int64_t depth = p.KH * p.KW * (p.C / p.groups);
    GemmSize s{depth, p.N * pool.OH * pool.OW, narrow(p.F / p.groups, "F"), 0, int(p.groups), 1, 0};
    const Warps warps{int(ceil_div(s.N, Of::filters)), int(ceil_div(narrow(depth, "taps"), Of::taps))};
    const std::int64_t tiles = std::int64_t(warps.along_filters) * warps.along_taps;
    constexpr std::int64_t enough = 2048, least_windows = 64;
    s.splits =
        int(std::clamp<std::int64_t>(smaller(enough / (tiles * s.groups), s.K / least_windows), 1, 128));
    s.split_depth = ceil_div(s.K, s.splits);
    const WindowInputs<T> inputs(x, p, pool);
    const int jobs = narrow(tiles * s.splits, "tiles of a gradient");
    const dim3 grid(unsigned(ceil_div(jobs, block_warps)), unsigned(s.groups));
    sum_parts<T>(s, WeightOutput<T>{dw, depth, s.N}, [&](const auto& out) {
        using Output = std::decay_t<decltype(out)>;
        launch(pooled_weight_kernel<T, WX, WD, Output>, grid, block_threads, 0, current_stream(), inputs,
               dy, winner, p.F, out, s, warps);
    });
}

}  // namespace

// Every window must have four cells in the map: a winner is then one of them or none, whatever byte it is.
// With TF32, tensor cores compute the dense product much faster than this.
bool pooled_weight_supported(const ConvParams& p, const PoolParams& pool) {
    return pool.KH * pool.KW == window_cells && windows_lie_in_map(p, pool) && !is_depthwise(p) &&
           !allow_tf32;
}

template <typename T>
void pooled_weight_gradient(const T* dy, const std::uint8_t* winner, const T* x, T* dw, const ConvParams& p,
                            const PoolParams& pool) {
    constexpr int V = full_width<T>;
    const bool wide_x = aligned(x) && p.C / p.groups % V == 0;
    const bool wide_dy = aligned(dy) && aligned(winner) && p.F / p.groups % V == 0;
    if (wide_x && wide_dy) {
        from_winners<T, V, V>(dy, winner, x, dw, p, pool);
    } else if (wide_dy) {
        from_winners<T, 1, V>(dy, winner, x, dw, p, pool);
    } else {
        from_winners<T, 1, 1>(dy, winner, x, dw, p, pool);
    }
}

#define INSTANTIATE(T)                                                                                   \
    template void pooled_weight_gradient(const T*, const std::uint8_t*, const T*, T*, const ConvParams&, \
                                         const PoolParams&)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn::cuda
