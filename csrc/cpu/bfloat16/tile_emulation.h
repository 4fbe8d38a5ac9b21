// The tile unit in plain C++: the same functions as TileUnit's, with the same bits as the instructions.
//
// The instruction sums the even and the odd places of the depth separately, by fused multiply-adds in
// order, then adds the two sums, then adds the result to the tile.  Denormal numbers count as zero
// throughout. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS.
#pragma once

#include <cmath>
#include <cstring>

#include "../../bfloat16.h"
#include "tile_unit.h"

namespace minicnn {

class EmulatedTileUnit {
  public:
    static bool enable() { return true; }
    static void configure() { std::memset(registers(), 0, tile_registers * sizeof(Tile)); }
    static void release() {}

    template <int tile>
    static void zero() {
        std::memset(&registers()[tile], 0, sizeof(Tile));
    }
    template <int tile>
    static void load(const void* first_row, std::int64_t bytes_between_rows) {
        const char* from = static_cast<const char*>(first_row);
        for (int row = 0; row < tile_rows; ++row) {
            std::memcpy(registers()[tile].bytes[row], from + row * bytes_between_rows, tile_bytes);
        }
    }
    template <int tile>
    static void store(void* first_row, std::int64_t bytes_between_rows) {
        char* to = static_cast<char*>(first_row);
        for (int row = 0; row < tile_rows; ++row) {
            std::memcpy(to + row * bytes_between_rows, registers()[tile].bytes[row], tile_bytes);
        }
    }
    template <int sum, int a, int b>
    static void multiply() {
        for (int row = 0; row < tile_rows; ++row) {
            for (int col = 0; col < tile_cols; ++col) {
                float even = 0, odd = 0;
                for (int k = 0; k < tile_cols; ++k) {
                    even = flushed(std::fma(value(a, row, 2 * k), value(b, k, 2 * col), even));
                    odd = flushed(std::fma(value(a, row, 2 * k + 1), value(b, k, 2 * col + 1), odd));
                }
                float total;
                char* place = registers()[sum].bytes[row] + col * sizeof total;
                std::memcpy(&total, place, sizeof total);
                total = flushed(flushed(total) + flushed(even + odd));
                std::memcpy(place, &total, sizeof total);
            }
        }
    }

  private:
    struct Tile {
        char bytes[tile_rows][tile_bytes];
    };
    static Tile* registers() {
        static thread_local Tile tiles[tile_registers];
        return tiles;
    }
    static float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
    static float value(int tile, int row, int col) {
        bfloat16 stored;
        std::memcpy(&stored, registers()[tile].bytes[row] + col * sizeof stored, sizeof stored);
        return flushed(to_float(stored));
    }
};

}  // namespace minicnn
