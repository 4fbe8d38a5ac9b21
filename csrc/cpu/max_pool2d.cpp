// Max-pooling.  The forward pass notes the place of each winner; in the backward pass each pixel collects
// the gradients of the windows that it won, so that no two threads write one element.

#include "max_pool2d.h"

namespace minicnn {
namespace {

// The bits of L bfloat16 values as whole numbers.
template <int L>
using Whole = Vec<std::int16_t, L>;

// Whole numbers in the order of the values, which their bits are but for those of negative ones; and back.
template <int L>
MINICNN_INLINE Whole<L> in_order(const Whole<L>& bits) {
    return bits ^ ((bits >> 15) & std::int16_t{0x7fff});
}
constexpr std::int16_t infinity = 0x7f80, minus_infinity = -32641;  // in this order

// A row of windows of bfloat16, of which only the maxima are wanted: whole numbers are compared, twice as
// many at once as floats.  False if a NaN is among them; then y is not right.
template <int L>
bool row_of_maxima(const bfloat16* x, bfloat16* y, const ImageShape& s, const PoolParams& p,
                   std::int64_t image, const Cells& rows) {
    if constexpr (L > 1) {
        if (s.C < L) return row_of_maxima<L / 2>(x, y, s, p, image, rows);
    }
    Whole<L> beyond{};
    for (std::int64_t ow = 0; ow < p.OW; ++ow, y += s.C) {
        const Cells columns = cells_inside(ow, p.stride_w, p.pad_w, p.dil_w, p.KW, s.W);
        for (std::int64_t next = 0; next < s.C; next += L) {
            const std::int64_t c = std::min(next, s.C - L);
            Whole<L> largest = Whole<L>{} + minus_infinity, smallest{};
            for (std::int64_t u = rows.first; u < rows.last; ++u) {
                const std::int64_t row = image + (rows.start + u * p.dil_h) * s.W + columns.start;
                for (std::int64_t v = columns.first; v < columns.last; ++v) {
                    const bfloat16* cell = x + (row + v * p.dil_w) * s.C + c;
                    const Whole<L> value = in_order<L>(Whole<L>(load<L>(&cell->bits)));
                    largest = value > largest ? value : largest;
                    smallest = value < smallest ? value : smallest;
                }
            }
            beyond |= (largest > infinity) | (smallest < minus_infinity);
            store(y + c, in_order<L>(largest));
        }
    }
    std::int16_t any = 0;
    for (int l = 0; l < L; ++l) any |= beyond[l];
    return any == 0;
}

}  // namespace

template <typename T, typename Index>
void max_pool2d_forward(const T* x, T* y, Index* argmax, const ImageShape& s, const PoolParams& p) {
    const auto read = [x](auto L, std::int64_t offset, std::int64_t c) {
        return load_wide<L>(x + offset + c);
    };
    const auto finish = [](const auto& maxima) { return maxima; };
    if constexpr (std::is_same_v<T, bfloat16>) {
        if (!argmax) {
            return for_each_row_of_windows<Denormals::kept>(
                s, p, [&](std::int64_t item, const Cells& rows) {
                    const std::int64_t image = item / p.OH * s.H * s.W;
                    T* to = y + item * p.OW * s.C;
                    if (row_of_maxima<lanes<std::int16_t>>(x, to, s, p, image, rows)) return;
                    max_pool_row<false>(read, finish, to, argmax, s, p, image, rows);
                });
        }
    }
    max_pool<Denormals::kept>(read, finish, y, argmax, s, p);
}

template <typename T, typename Index>
void max_pool2d_backward(const T* dy, const Index* argmax, T* dx, const ImageShape& s,
                         const PoolParams& p) {
    const std::int64_t grain = items_per_piece(s.W * s.C);
    parallel_for<Denormals::kept>(0, s.N * s.H, grain, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t row = first; row < last; ++row) {
            max_pool_dx_row([dy](std::int64_t i) { return dy[i]; }, argmax, dx + row * s.W * s.C, row / s.H,
                            row % s.H, s, p);
        }
    });
}

#define INSTANTIATE(T, Index)                                                                     \
    template void max_pool2d_forward(const T*, T*, Index*, const ImageShape&, const PoolParams&); \
    template void max_pool2d_backward(const T*, const Index*, T*, const ImageShape&, const PoolParams&)
INSTANTIATE(float, std::uint8_t);
INSTANTIATE(float, std::int64_t);
INSTANTIATE(double, std::uint8_t);
INSTANTIATE(double, std::int64_t);
INSTANTIATE(bfloat16, std::uint8_t);
INSTANTIATE(bfloat16, std::int64_t);

}  // namespace minicnn
