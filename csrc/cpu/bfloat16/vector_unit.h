// The tile unit's functions by AVX512-BF16, which multiplies pairs of bfloat16 in vectors: for processors
// that have it, but no tiles.  The sums of a tile are 16 registers while two tiles are multiplied, and lie
// in memory between.  Its sums are rounded in another order than the tile unit's.
#pragma once

#include <cstdint>
#include <cstring>

#include "../core/simd.h"
#include "tile_unit.h"

#if defined(__AVX512BF16__) && defined(__AVX512F__)
#define MINICNN_HAS_VECTOR_UNIT 1
#include <immintrin.h>

namespace minicnn {

class VectorUnit {
  public:
    static bool enable() { return true; }
    static void configure() {}
    static void release() {}

    template <int tile>
    static MINICNN_INLINE void zero() {
        registers()[tile].rows = nullptr;
        std::memset(registers()[tile].sums, 0, sizeof registers()[tile].sums);
    }
    // Operands are read where they lie when they are multiplied.  They do not change until then.
    template <int tile>
    static MINICNN_INLINE void load(const void* first_row, std::int64_t bytes_between_rows) {
        registers()[tile].rows = static_cast<const char*>(first_row);
        registers()[tile].bytes_between_rows = bytes_between_rows;
    }
    template <int tile>
    static MINICNN_INLINE void store(void* first_row, std::int64_t bytes_between_rows) {
        Tile& from = registers()[tile];
        bring(from);
        char* to = static_cast<char*>(first_row);
        for (int row = 0; row < tile_rows; ++row) {
            std::memcpy(to + row * bytes_between_rows, from.sums[row], tile_bytes);
        }
    }
    template <int sum, int a, int b>
    static MINICNN_INLINE void multiply() {
        Tile* tiles = registers();
        bring(tiles[sum]);
        add_product(tiles[sum], tiles[a], tiles[b]);
    }

  private:
    struct Tile {
        alignas(tile_bytes) float sums[tile_rows][tile_cols];
        const char* rows;  // where an operand lies, or nullptr for sums
        std::int64_t bytes_between_rows;
    };
    static MINICNN_INLINE Tile* registers() {
        static thread_local Tile tiles[tile_registers];
        return tiles;
    }

    // Loads what is still to be loaded.
    static MINICNN_INLINE void bring(Tile& tile) {
        if (!tile.rows) return;
        for (int row = 0; row < tile_rows; ++row) {
            std::memcpy(tile.sums[row], tile.rows + row * tile.bytes_between_rows, tile_bytes);
        }
        tile.rows = nullptr;
    }

    static void add_product(Tile& sum, const Tile& a, const Tile& b) {
        __m512 row_sum[tile_rows];
        unroll<tile_rows>(
            [&](auto row) __attribute__((always_inline)) { row_sum[row] = _mm512_load_ps(sum.sums[row]); });
        for (int pair = 0; pair < tile_cols; ++pair) {
            const auto values = __m512bh(_mm512_loadu_si512(b.rows + pair * b.bytes_between_rows));
            const char* left = a.rows + pair * static_cast<int>(sizeof(std::int32_t));
            unroll<tile_rows>([&](auto row) __attribute__((always_inline)) {
                std::int32_t two;
                std::memcpy(&two, left + row * a.bytes_between_rows, sizeof two);
                row_sum[row] = _mm512_dpbf16_ps(row_sum[row], __m512bh(_mm512_set1_epi32(two)), values);
            });
        }
        unroll<tile_rows>(
            [&](auto row) __attribute__((always_inline)) { _mm512_store_ps(sum.sums[row], row_sum[row]); });
    }
};

}  // namespace minicnn

#else
#define MINICNN_HAS_VECTOR_UNIT 0
#endif
