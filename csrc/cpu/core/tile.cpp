// The table of register tiles: one instantiation for each block width and number of columns.
#include "tile.h"

namespace minicnn {
namespace {

template <typename T, int L, int NV, int... I>
constexpr TileKernels<T> make_kernels(std::integer_sequence<int, I...>) {
    TileKernels<T> kernels;
    auto add = [&](auto i) {
        constexpr int cols = decltype(i)::value + 1;
        if constexpr (cols <= plain_cols(NV)) kernels.plain[cols - 1] = plain_tile<L, NV, 1, cols, T>;
        if constexpr (cols % 2 == 0 && cols <= pooled_cols(NV)) {
            kernels.pooled[cols - 1] = pooled_tile<L, NV, cols, T>;
        }
    };
    (add(std::integral_constant<int, I>{}), ...);
    return kernels;
}

template <typename T, int L, int NV>
constexpr TileKernels<T> kernels_of = make_kernels<T, L, NV>(std::make_integer_sequence<int, 14>{});

}  // namespace

template <typename T>
const TileKernels<T>& tile_kernels(BlockWidth width) {
    if constexpr (vector_bytes >= 32) {
        if (width == half_vector) return kernels_of<T, lanes<T> / 2, 1>;
    }
    return width == two_vectors ? kernels_of<T, lanes<T>, 2> : kernels_of<T, lanes<T>, 1>;
}

template const TileKernels<float>& tile_kernels<float>(BlockWidth);
template const TileKernels<double>& tile_kernels<double>(BlockWidth);

}  // namespace minicnn
