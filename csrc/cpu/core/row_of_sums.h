// Where a kernel sums before it rounds.
#pragma once

#include <cstdint>

#include "../../bfloat16.h"
#include "scratch.h"

namespace minicnn {

// `count` sums that become `count` values of T: in the values' own place, or for bfloat16 in scratch
// memory.
template <typename T>
Sum<T>* sums_of(T* values, std::int64_t count, Scratch& scratch) {
    if constexpr (std::is_same_v<T, Sum<T>>) {
        return values;
    } else {
        return scratch.take<Sum<T>>(count);
    }
}

// Rounds the sums into the values' place, if they are not there already.
template <typename T>
void keep(const Sum<T>* sums, T* values, std::int64_t count) {
    if constexpr (!std::is_same_v<T, Sum<T>>) {
#pragma GCC ivdep
        for (std::int64_t i = 0; i < count; ++i) values[i] = narrow<T>(sums[i]);
    }
}

}  // namespace minicnn
