// bfloat16: the upper half of a float, with its sign, its 8 bits of exponent and 7 bits of fraction.  It is
// a type of storage: kernels widen it to float, which is exact, compute in float, and round once.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define MINICNN_HOST_DEVICE __host__ __device__
#else
#define MINICNN_HOST_DEVICE
#endif

namespace minicnn {

struct bfloat16 {
    std::uint16_t bits;
};

MINICNN_HOST_DEVICE inline float to_float(bfloat16 value) {
    const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

// Rounds to the nearest bfloat16, and to the one with an even last bit where two are equally near.  A value
// beyond the largest one becomes infinite, and a NaN stays a NaN of its sign.
MINICNN_HOST_DEVICE inline bfloat16 to_bfloat16(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const std::uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    return {static_cast<std::uint16_t>((is_nan ? bits | 0x00400000u : rounded) >> 16)};
}

}  // namespace minicnn
