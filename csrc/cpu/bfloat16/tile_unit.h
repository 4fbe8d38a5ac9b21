// The tile unit of an x86 processor with AMX: eight registers that hold a matrix each, and one instruction
// that multiplies two of them.  A tile is 16 rows of 64 bytes: 16 x 32 bfloat16, or 16 x 16 float.
//
// Three classes have the same functions.  `TileUnit` executes the instructions, `EmulatedTileUnit`
// (tile_emulation.h) computes the same bits in plain C++, and `VectorUnit` (vector_unit.h) uses
// AVX512-BF16. Kernels are templates over the class, so that the whole suite and the sanitizers run them on
// any machine.
//
//     if (!TileUnit::enable()) ...                    // once, before anything else
//     TileConfiguration<Unit> tiles;                  // one a thread, for as long as it computes
//     Unit::template zero<0>();                       // tile 0 = 0
//     Unit::template load<1>(a, bytes_between_rows);  // 16 rows: a[i][k], 32 values
//     Unit::template load<2>(b, bytes_between_rows);  // 16 pairs: b[2k][j], b[2k + 1][j]
//     Unit::template multiply<0, 1, 2>();             // tile 0 += tile 1 @ tile 2
//     Unit::template store<0>(c, bytes_between_rows); // 16 rows of 16 float
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__linux__)
#define MINICNN_HAS_TILE_UNIT 1
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#define MINICNN_HAS_TILE_UNIT 0
#endif

#include "../core/simd.h"

namespace minicnn {

constexpr int tile_rows = 16, tile_bytes = 64;
constexpr int tile_depth = tile_bytes / 2;  // bfloat16 values in a row
constexpr int tile_cols = tile_bytes / 4;   // float values in a row
constexpr int tile_registers = 8;

#if MINICNN_HAS_TILE_UNIT

class TileUnit {
  public:
    // Asks the operating system for the use of the tile registers, once a process.  It is false where the
    // processor has none or the system refuses.
    static bool enable() {
        static const bool enabled = has_instructions() && is_permitted();
        return enabled;
    }

    // Every register takes a whole tile.
    static void configure() {
        struct alignas(64) {
            std::uint8_t palette, start_row, reserved[14];
            std::uint16_t bytes[16];
            std::uint8_t rows[16];
        } shape{};
        shape.palette = 1;
        for (int i = 0; i < tile_registers; ++i) shape.bytes[i] = tile_bytes, shape.rows[i] = tile_rows;
        asm volatile("ldtilecfg %0" : : "m"(shape));
    }
    static void release() { asm volatile("tilerelease"); }

    template <int tile>
    static MINICNN_INLINE void zero() {
        asm volatile("tilezero %%tmm%c0" : : "i"(tile));
    }
    template <int tile>
    static MINICNN_INLINE void load(const void* first_row, std::int64_t bytes_between_rows) {
        asm volatile("tileloadd (%1,%2,1), %%tmm%c0"
                     :
                     : "i"(tile), "r"(first_row), "r"(bytes_between_rows)
                     : "memory");
    }
    template <int tile>
    static MINICNN_INLINE void store(void* first_row, std::int64_t bytes_between_rows) {
        asm volatile("tilestored %%tmm%c0, (%1,%2,1)"
                     :
                     : "i"(tile), "r"(first_row), "r"(bytes_between_rows)
                     : "memory");
    }
    // sum += a @ b
    template <int sum, int a, int b>
    static MINICNN_INLINE void multiply() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(b));
    }

  private:
    static bool has_instructions() {
        unsigned a, b, c, d;
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
        constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
        return (d & amx_bf16) && (d & amx_tile);
    }
    static bool is_permitted() {
        constexpr long request_permission = 0x1023,
                       tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
        return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    }
};

#endif

// The tile registers of the calling thread are configured while the object lives.
template <typename Unit>
struct TileConfiguration {
    TileConfiguration() { Unit::configure(); }
    ~TileConfiguration() { Unit::release(); }
    TileConfiguration(const TileConfiguration&) = delete;
    TileConfiguration& operator=(const TileConfiguration&) = delete;
};

}  // namespace minicnn
