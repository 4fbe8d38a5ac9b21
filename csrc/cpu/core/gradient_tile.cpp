// The table of gradient tiles: one instantiation for each block width and number of (tap, channel) pairs.
#include "gradient_tile.h"

namespace minicnn {
namespace {

// dst[k][lane] += the sum over pixels of x[pixel + offset[k]] * dy[pixel][lane], for k < KB.  With
// CONSECUTIVE, offset[k] is offset[0] + k, so that no offset need be read.
template <int L, int NV, int KB, bool CONSECUTIVE, typename T>
void gradient_tile(const GradientInput<T>& in, T* dst) {
    Vec<T, L> acc[KB][NV];
    unroll<KB * NV>([&](auto i) __attribute__((always_inline)) {
        acc[i / NV][i % NV] = in.first ? Vec<T, L>{} : load<L>(dst + i * L);
    });
    const int64_t* offset = in.offset;
    const int64_t x_col = in.x_col, dy_col = in.dy_col;
    for (int64_t r = 0; r < in.rows; ++r) {
        const T *x = in.x + r * in.x_row + (CONSECUTIVE ? offset[0] : 0), *dy = in.dy + r * in.dy_row;
        for (int64_t c = 0; c < in.cols; ++c, x += x_col, dy += dy_col) {
            Vec<T, L> d[NV];
            unroll<NV>([&](auto v) __attribute__((always_inline)) { d[v] = load<L>(dy + v * L); });
            unroll<KB>([&](auto k) __attribute__((always_inline)) {
                const T value = CONSECUTIVE ? x[k] : x[offset[k]];
                unroll<NV>([&](auto v) __attribute__((always_inline)) { acc[k][v] += d[v] * value; });
            });
        }
    }
    unroll<KB * NV>([&](auto i)
                        __attribute__((always_inline)) { store(dst + i * L, acc[i / NV][i % NV]); });
}

template <typename T>
using GradientKernel = void (*)(const GradientInput<T>&, T*);

// The kernels by [whether offsets are consecutive][number of pairs - 1].
template <typename T>
using GradientKernels = std::array<std::array<GradientKernel<T>, 14>, 2>;

template <typename T, int L, int NV, int... I>
constexpr GradientKernels<T> make_kernels(std::integer_sequence<int, I...>) {
    return {{{(I < plain_cols(NV) ? gradient_tile<L, NV, std::min(I + 1, plain_cols(NV)), false, T>
                                  : nullptr)...},
             {(I < plain_cols(NV) ? gradient_tile<L, NV, std::min(I + 1, plain_cols(NV)), true, T>
                                  : nullptr)...}}};
}

template <typename T, int L, int NV>
constexpr GradientKernels<T> kernels_of = make_kernels<T, L, NV>(std::make_integer_sequence<int, 14>{});

template <typename T>
const GradientKernels<T>& gradient_kernels(BlockWidth width) {
    if constexpr (vector_bytes >= 32) {
        if (width == half_vector) return kernels_of<T, lanes<T> / 2, 1>;
    }
    return width == two_vectors ? kernels_of<T, lanes<T>, 2> : kernels_of<T, lanes<T>, 1>;
}

}  // namespace

template <typename T>
void add_gradient(GradientInput<T> in, int64_t depth, BlockWidth width, T* dst) {
    const int64_t most = plain_cols(width == two_vectors ? 2 : 1), tiles = (depth + most - 1) / most;
    const auto& kernels = gradient_kernels<T>(width);
    const int64_t* offset = in.offset;
    for (int64_t t = 0; t < tiles; ++t) {
        const int64_t from = depth * t / tiles, to = depth * (t + 1) / tiles;
        in.offset = offset + from;
        const bool consecutive = in.offset[to - from - 1] - in.offset[0] == to - from - 1;
        kernels[consecutive][to - from - 1](in, dst + from * block_lanes<T>(width));
    }
}

template void add_gradient(GradientInput<float>, int64_t, BlockWidth, float*);
template void add_gradient(GradientInput<double>, int64_t, BlockWidth, double*);

}  // namespace minicnn
