// What becomes of the sums of a block of filters: ReLU, 2x2 max-pool with its winners, one rounding, and the
// store.
#pragma once

#include "../core/tile.h"
#include "tile_packing.h"

namespace minicnn {

// Where the results of a correlation go.
struct CorrelationOutput {
    bfloat16* y;
    std::int64_t image_stride, row_stride, col_stride;  // in values
    bool relu;
    std::uint8_t* winner = nullptr;  // of a pooled correlation, laid out as y
};

// Whether all sums that were stored are finite: their products with 0 are summed.
class FiniteCheck {
  public:
    template <int L>
    MINICNN_INLINE void add(const Vec<float, L>& sums) {
        static_assert(L == lanes<float>);
        zero_ += sums * 0.0f;
    }
    bool holds() const {
        bool finite = true;
        for (int l = 0; l < lanes<float>; ++l) finite = finite && zero_[l] == 0;
        return finite;
    }

  private:
    Vec<float, lanes<float>> zero_{};
};

// The first `count` lanes; all of them where that is known when compiling.
template <bool whole, int L>
MINICNN_INLINE void store_bits(bfloat16* y, const Bits<L>& bits, std::int64_t count) {
    if constexpr (whole) {
        store(y, bits);
    } else {
        store_part<L>(&y->bits, bits, static_cast<int>(std::min<std::int64_t>(L, count)));
    }
}

// Stores `pixels` pixels of one row: the first `filters` sums of each.  `whole`: all of a block.
template <bool whole>
void store_pixels(const float* sums, std::int64_t pixels, std::int64_t filters, bool relu_wanted, bfloat16* y,
                  std::int64_t col_stride, FiniteCheck& check) {
    constexpr int L = lanes<float>;
    for (std::int64_t i = 0; i < pixels; ++i, sums += block_filters, y += col_stride) {
        unroll<block_filters / L>([&](auto v) __attribute__((always_inline)) {
            if (!whole && v * L >= filters) return;
            Vec<float, L> value = load<L>(sums + v * L);
            check.add<L>(value);
            if (relu_wanted) value = relu(value);
            store_bits<whole, L>(y + v * L, rounded<L>(value), filters - v * L);
        });
    }
}

// Stores one row of `pixels` maxima of 2x2 sums; `sums` are the upper row, and the lower one lies `pitch`
// pixels further.
template <bool whole>
void store_pooled_pixels(const float* sums, std::int64_t pitch, std::int64_t pixels, std::int64_t filters,
                         bool relu_wanted, bfloat16* y, std::uint8_t* winner, std::int64_t col_stride,
                         FiniteCheck& check) {
    constexpr int L = lanes<float>;
    using Place = decltype(Vec<float, L>{} < Vec<float, L>{});
    for (std::int64_t i = 0; i < pixels; ++i, sums += 2 * block_filters, y += col_stride) {
        unroll<block_filters / L>([&](auto v) __attribute__((always_inline)) {
            if (!whole && v * L >= filters) return;
            const float *upper = sums + v * L, *lower = upper + pitch * block_filters;
            Vec<float, L> best = load<L>(upper);
            Place place{};
            check.add<L>(best);
            const auto meet = [&](const float* sum, int number) __attribute__((always_inline)) {
                const Vec<float, L> value = load<L>(sum);
                check.add<L>(value);
                take_larger(best, place, value, number);
            };
            meet(upper + block_filters, 1);
            meet(lower, 2);
            meet(lower + block_filters, 3);
            const std::int64_t left = filters - v * L;
            if (winner) {
                if (relu_wanted) place = best <= 0 ? Place{} + no_winner : place;
                const int count = static_cast<int>(whole ? L : std::min<std::int64_t>(L, left));
                store_winner<L, float>(winner + v * L, place, count);
            }
            store_bits<whole, L>(y + v * L, rounded<L>(relu_wanted ? relu(best) : best), left);
        });
        if (winner) winner += col_stride;
    }
}

}  // namespace minicnn
