// What becomes of the sums of a block of filters: ReLU, 2x2 max-pool with its winners, one rounding, and
// the store.
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

// The vectors of a block's sums, in pairs: each pair is rounded to one vector.
constexpr int sum_lanes = lanes<float>, pairs_of_sums = block_filters / (2 * sum_lanes);

// Stores a pair of vectors of sums: all of it, or the first `count`.
template <bool whole>
MINICNN_INLINE void store_pair(const Vec<float, sum_lanes>& first, const Vec<float, sum_lanes>& second,
                               std::int64_t count, bool relu_wanted, bfloat16* y) {
    constexpr int L = sum_lanes;
    Bits<2 * L> bits = rounded_pair<L>(first, second);
    if (relu_wanted) bits = relu_bits<2 * L>(bits);
    if constexpr (whole) {
        store(y, bits);
    } else if (count > 0) {
        std::memcpy(static_cast<void*>(y), &bits,
                    static_cast<std::size_t>(std::min<std::int64_t>(2 * L, count)) * sizeof *y);
    }
}

// Stores `pixels` pixels of one row: the first `filters` sums of each.  `whole`: all of a block.
template <bool whole>
void store_pixels(const float* sums, std::int64_t pixels, std::int64_t filters, bool relu_wanted,
                  bfloat16* y, std::int64_t col_stride, FiniteCheck& check) {
    constexpr int L = sum_lanes;
    for (std::int64_t i = 0; i < pixels; ++i, sums += block_filters, y += col_stride) {
        unroll<pairs_of_sums>([&](auto pair) __attribute__((always_inline)) {
            const std::int64_t at = pair * 2 * L;
            const bool has_second = whole || filters - at > L;  // a narrow block has no sums there
            const Vec<float, L> first = load<L>(sums + at);
            const Vec<float, L> second = has_second ? load<L>(sums + at + L) : Vec<float, L>{};
            check.add<L>(first);
            check.add<L>(second);
            store_pair<whole>(first, second, filters - at, relu_wanted, y + at);
        });
    }
}

// The maximum of a 2x2 window of sums, and if `with_winner` the cell that it came from.
template <bool with_winner>
struct Maximum {
    using Value = Vec<float, sum_lanes>;
    using Place = decltype(Value{} < Value{});
    Value best;
    Place place{};

    MINICNN_INLINE Maximum(const float* upper, const float* lower, FiniteCheck& check)
        : best(load<sum_lanes>(upper)) {
        check.add<sum_lanes>(best);
        meet(upper + block_filters, 1, check);
        meet(lower, 2, check);
        meet(lower + block_filters, 3, check);
    }
    MINICNN_INLINE void meet(const float* sum, int number, FiniteCheck& check) {
        const Value value = load<sum_lanes>(sum);
        check.add<sum_lanes>(value);
        if constexpr (with_winner) {
            take_larger(best, place, value, number);
        } else {
            best = value > best ? value : best;
        }
    }
    MINICNN_INLINE void store_place(std::uint8_t* winner, std::int64_t count, bool relu_wanted) const {
        const Place off = Place{} + no_winner, stored = relu_wanted ? (best <= 0 ? off : place) : place;
        if (count > 0) {
            store_winner<sum_lanes, float>(winner, stored,
                                           static_cast<int>(std::min<std::int64_t>(sum_lanes, count)));
        }
    }
};

// Stores one row of `pixels` maxima of 2x2 sums; `sums` are the upper row, and the lower one lies `pitch`
// pixels further.
template <bool whole, bool with_winner>
void store_pooled_pixels(const float* sums, std::int64_t pitch, std::int64_t pixels, std::int64_t filters,
                         bool relu_wanted, bfloat16* y, std::uint8_t* winner, std::int64_t col_stride,
                         FiniteCheck& check) {
    constexpr int L = sum_lanes;
    for (std::int64_t i = 0; i < pixels; ++i, sums += 2 * block_filters, y += col_stride) {
        unroll<pairs_of_sums>([&](auto pair) __attribute__((always_inline)) {
            const std::int64_t at = pair * 2 * L;
            const float *upper = sums + at, *lower = upper + pitch * block_filters;
            const std::int64_t other = whole || filters - at > L ? L : 0;  // a narrow block has no more
            const Maximum<with_winner> first(upper, lower, check),
                second(upper + other, lower + other, check);
            if constexpr (with_winner) {
                first.store_place(winner + at, filters - at, relu_wanted);
                second.store_place(winner + at + L, filters - at - L, relu_wanted);
            }
            store_pair<whole>(first.best, second.best, filters - at, relu_wanted, y + at);
        });
        if constexpr (with_winner) winner += col_stride;
    }
}

}  // namespace minicnn
