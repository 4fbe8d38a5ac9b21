// The instructions of tensor cores that csrc/cuda/core/ptx.h names, in plain C++.
//
// The lanes of a warp hold the matrices of a product together.  Lane l has g = l / 4 and t = l % 4.  Then,
// by the tables of the PTX manual,
//   in TF32 (k of 8):       a[i] is A(g + 8 * (i % 2), t + 4 * (i / 2)), and b[i] is B(t + 4 * i, g);
//   in bfloat16 (k of 16):  the lower half of a[i] is A(g + 8 * (i % 2), 2 * t + 8 * (i / 2)), and that of
//                           b[i] is B(2 * t + 8 * i, g); the upper half is the next number along k;
//   sum[i] is the sum at (g + 8 * (i / 2), 2 * t + i % 2).
#pragma once

#include "../bfloat16.h"
#include "cuda_runtime.h"

namespace emulation {

// What the lanes of the calling lane's warp show one another.
template <typename T>
T* shown() {
    static T tables[max_threads / warp_size][warp_size];
    const Dim3 &at = threadIdx, &size = blockDim;
    return tables[(at.x + size.x * (at.y + size.y * at.z)) / warp_size];
}

// Shows `own` to the other lanes, and copies what all of them show.
template <typename T>
MINICNN_NOT_INSTRUMENTED void show(const T& own, T (&all)[warp_size]) {
    const NotCounted pause;  // a GPU's lanes need no table
    T* const table = shown<T>();
    table[lane()] = own;
    __syncwarp();
    std::copy_n(table, warp_size, all);
    __syncwarp();
}

struct Factors {
    unsigned a[4], b[2];
};

inline float float_of(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace emulation

namespace minicnn::cuda {

MINICNN_NOT_INSTRUMENTED inline void load_matrices(unsigned (&registers)[4], const void* row) {
    // Every lane asks for a row of 16 bytes, once.
    emulation::count_access(row, 16, emulation::Access::read, MINICNN_COUNTED_PLACE);
    const emulation::NotCounted pause;
    const void* rows[emulation::warp_size];
    emulation::show(row, rows);
    const int lane = emulation::lane();
    for (int i = 0; i < 4; ++i) {
        std::memcpy(&registers[i], static_cast<const char*>(rows[8 * i + lane / 4]) + lane % 4 * 4, 4);
    }
}

MINICNN_NOT_INSTRUMENTED inline void load_matrices_transposed(unsigned (&registers)[4], const void* row) {
    emulation::count_access(row, 16, emulation::Access::read, MINICNN_COUNTED_PLACE);
    const emulation::NotCounted pause;
    const void* rows[emulation::warp_size];
    emulation::show(row, rows);
    const int lane = emulation::lane();
    for (int i = 0; i < 4; ++i) {
        std::uint16_t halves[2];
        for (int k = 0; k < 2; ++k) {
            const void* from = rows[8 * i + lane % 4 * 2 + k];
            std::memcpy(&halves[k], static_cast<const char*>(from) + lane / 4 * 2, 2);
        }
        registers[i] = halves[0] | unsigned(halves[1]) << 16;
    }
}

inline unsigned load_word(const float* at) {
    unsigned bits;
    std::memcpy(&bits, at, sizeof bits);
    return bits;
}

// A float rounded to the 10 bits of mantissa that TF32 has: to the nearest, away from zero in the middle.
inline unsigned round_to_tf32(unsigned bits) {
    return (bits & 0x7F800000u) == 0x7F800000u ? bits : (bits + 0x1000u) & 0xFFFFE000u;
}

// Tensor cores do not read the last 13 bits of a factor.
inline void multiply_tf32(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulation::Factors lanes[emulation::warp_size];
    emulation::show({{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, lanes);
    const int g = emulation::lane() / 4, t = emulation::lane() % 4;
    for (int i = 0; i < 4; ++i) {
        for (int k = 0; k < 8; ++k) {
            const unsigned left = lanes[g * 4 + k % 4].a[i / 2 + k / 4 * 2];
            const unsigned right = lanes[(2 * t + i % 2) * 4 + k % 4].b[k / 4];
            sum[i] += emulation::float_of(left & 0xFFFFE000u) * emulation::float_of(right & 0xFFFFE000u);
        }
    }
}

inline void multiply_bfloat16(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulation::Factors lanes[emulation::warp_size];
    emulation::show({{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, lanes);
    const int g = emulation::lane() / 4, t = emulation::lane() % 4;
    for (int i = 0; i < 4; ++i) {
        for (int k = 0; k < 16; ++k) {
            const unsigned left = lanes[g * 4 + k / 2 % 4].a[i / 2 + k / 8 * 2];
            const unsigned right = lanes[(2 * t + i % 2) * 4 + k / 2 % 4].b[k / 8];
            const unsigned half = k % 2 ? 0 : 16;  // its shift to the upper half, which alone is a float's
            sum[i] += emulation::float_of(left << half & 0xFFFF0000u) *
                      emulation::float_of(right << half & 0xFFFF0000u);
        }
    }
}

}  // namespace minicnn::cuda
