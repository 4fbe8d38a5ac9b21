// What becomes of the sums of a block of filters: rounding, the sum with a residual, ReLU, 2x2 max-pool
// with its winners, and the store.
#pragma once

#if defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#endif

#include "../core/tile.h"
#include "tile_packing.h"

namespace minicnn {

// Where the results of a correlation go.
struct CorrelationOutput {
    bfloat16* y;
    std::int64_t image_stride, row_stride, col_stride;  // in values
    bool relu;
    std::uint8_t* winner = nullptr;      // of a pooled correlation, laid out as y
    const bfloat16* residual = nullptr;  // of one that is not pooled, laid out as y: is added before ReLU
};

// Whether all sums that were stored are finite: their products with 0 are summed, in chains that do not
// wait for each other.
class FiniteCheck {
  public:
    template <int chain, int L>
    MINICNN_INLINE void add(const Vec<float, L>& sums) {
        static_assert(L == lanes<float>);
        zero_[chain % chains] += sums * 0.0f;
    }
    bool holds() const {
        bool finite = true;
        for (const auto& zero : zero_) {
            for (int l = 0; l < lanes<float>; ++l) finite = finite && zero[l] == 0;
        }
        return finite;
    }

  private:
    static constexpr int chains = 4;
    Vec<float, lanes<float>> zero_[chains]{};
};

constexpr int sum_lanes = lanes<float>;

// Stores the first `count` values.
template <int L>
MINICNN_INLINE void store_first(const Bits<L>& bits, std::int64_t count, bfloat16* y) {
    if (count <= 0) return;
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    const auto stored = static_cast<std::uint32_t>(count >= 32 ? ~0u : (1u << count) - 1);
    if constexpr (L == 32) return _mm512_mask_storeu_epi16(y, stored, __m512i(bits));
    if constexpr (L == 16)
        return _mm256_mask_storeu_epi16(y, static_cast<std::uint16_t>(stored), __m256i(bits));
#endif
    std::memcpy(static_cast<void*>(y), &bits,
                static_cast<std::size_t>(std::min<std::int64_t>(L, count)) * sizeof *y);
}

// Loads the first `count` values; the others are zero.
template <int L>
MINICNN_INLINE Bits<L> load_first(const bfloat16* x, std::int64_t count) {
    Bits<L> bits{};
    if (count <= 0) return bits;
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    const auto loaded = static_cast<std::uint16_t>(count >= 16 ? 0xffffu : (1u << count) - 1);
    if constexpr (L == 16) return Bits<16>(_mm256_maskz_loadu_epi16(loaded, x));
#endif
    std::memcpy(&bits, x, static_cast<std::size_t>(std::min<std::int64_t>(L, count)) * sizeof *x);
    return bits;
}

// The sums of one pixel for a block of 16 or 32 filters, as vectors.
template <int columns>
using Sums = Vec<float, sum_lanes>[columns / sum_lanes];

// Rounds the sums, adds the residual to them, and applies ReLU to what comes of it, which may be a NaN.
template <int L>
MINICNN_INLINE Vec<float, L> with_residual(const Vec<float, L>& sums, const Bits<L>& residual,
                                           bool relu_wanted) {
    const Vec<float, L> total = wide_values<L>(rounded<L>(sums)) + wide_values<L>(residual);
    if (!relu_wanted) return total;
    return total < 0 ? Vec<float, L>{} : total;
}

// Rounds the sums of one pixel and stores them: all of them if `whole`, else the first `filters`.
template <int columns, bool whole>
MINICNN_INLINE void store_sums(const Sums<columns>& sums, std::int64_t filters, bool relu_wanted,
                               bfloat16* y) {
    constexpr int together = std::min(columns, 2 * sum_lanes);  // are rounded to one vector
    unroll<columns / together>([&](auto i) __attribute__((always_inline)) {
        Bits<together> bits;
        if constexpr (together == sum_lanes) {
            bits = rounded<sum_lanes>(sums[i]);
        } else {
            bits = rounded_pair<sum_lanes>(sums[2 * i], sums[2 * i + 1]);
        }
        if (relu_wanted) bits = relu_bits<together>(bits);
        if constexpr (whole) {
            store(y + i * together, bits);
        } else {
            store_first<together>(bits, filters - i * together, y + i * together);
        }
    });
}

// Stores `pixels` pixels of one row.  A row of sums is block_filters long, of which the first `columns` are
// there.  `residual` is laid out as y, or nullptr.
template <int columns, bool whole, bool adds>
void store_pixels(const float* sums, std::int64_t pixels, std::int64_t filters, bool relu_wanted,
                  const bfloat16* residual, bfloat16* y, std::int64_t col_stride, FiniteCheck& check) {
    constexpr int vectors = columns / sum_lanes;
    const auto store_pixel = [&](auto chain, std::int64_t i) __attribute__((always_inline)) {
        Sums<columns> row;
        unroll<vectors>([&](auto v) __attribute__((always_inline)) {
            row[v] = load<sum_lanes>(sums + i * block_filters + v * sum_lanes);
            check.add<chain + v, sum_lanes>(row[v]);
            if constexpr (adds) {
                const bfloat16* from = residual + i * col_stride + v * sum_lanes;
                const Bits<sum_lanes> others = whole ? load<sum_lanes>(&from->bits)
                                                     : load_first<sum_lanes>(from, filters - v * sum_lanes);
                row[v] = with_residual<sum_lanes>(row[v], others, relu_wanted);
            }
        });
        store_sums<columns, whole>(row, filters, relu_wanted && !adds, y + i * col_stride);
    };
    std::int64_t i = 0;
    for (; i + 2 <= pixels; i += 2) {
        store_pixel(std::integral_constant<int, 0>{}, i);
        store_pixel(std::integral_constant<int, vectors>{}, i + 1);
    }
    if (i < pixels) store_pixel(std::integral_constant<int, 0>{}, i);
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
        check.add<0, sum_lanes>(best);
        meet<1>(upper + block_filters, check);
        meet<2>(lower, check);
        meet<3>(lower + block_filters, check);
    }
    template <int number>
    MINICNN_INLINE void meet(const float* sum, FiniteCheck& check) {
        const Value value = load<sum_lanes>(sum);
        check.add<number, sum_lanes>(value);
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
template <int columns, bool whole, bool with_winner>
void store_pooled_pixels(const float* sums, std::int64_t pitch, std::int64_t pixels, std::int64_t filters,
                         bool relu_wanted, bfloat16* y, std::uint8_t* winner, std::int64_t col_stride,
                         FiniteCheck& check) {
    for (std::int64_t i = 0; i < pixels; ++i, sums += 2 * block_filters, y += col_stride) {
        Sums<columns> best;
        unroll<columns / sum_lanes>([&](auto v) __attribute__((always_inline)) {
            const std::int64_t at = v * sum_lanes;
            const Maximum<with_winner> maximum(sums + at, sums + pitch * block_filters + at, check);
            if constexpr (with_winner) maximum.store_place(winner + at, filters - at, relu_wanted);
            best[v] = maximum.best;
        });
        store_sums<columns, whole>(best, filters, relu_wanted, y);
        if constexpr (with_winner) winner += col_stride;
    }
}

}  // namespace minicnn
