// bfloat16: the upper half of a float, with its sign, its 8 bits of exponent and 7 bits of fraction.  It is
// a type of storage: kernels widen it to float, which is exact, compute in float, and round once.
//
// A kernel for float, double and bfloat16 alike reads by widen(), computes in Sum<T>, and writes by
// narrow<T>().
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

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

// The type in which values of T are computed.  Weights, statistics and the gradients of weights have it
// too, whatever the activations beside them are.
template <typename T>
using Sum = std::conditional_t<std::is_same_v<T, bfloat16>, float, T>;

MINICNN_HOST_DEVICE inline float widen(float value) { return value; }
MINICNN_HOST_DEVICE inline double widen(double value) { return value; }
MINICNN_HOST_DEVICE inline float widen(bfloat16 value) { return to_float(value); }

template <typename T>
MINICNN_HOST_DEVICE inline T narrow(Sum<T> value) {
    if constexpr (std::is_same_v<T, bfloat16>) {
        return to_bfloat16(value);
    } else {
        return value;
    }
}

}  // namespace minicnn
