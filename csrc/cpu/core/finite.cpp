// The product of a value with 0 is 0 if the value is finite, else NaN: so a sum of such products is 0
// only if all values are finite.
#include "finite.h"

#include <atomic>

#include "parallel.h"
#include "simd.h"

namespace minicnn {

template <typename T>
bool all_finite(const T* values, int64_t size) {
    constexpr int L = lanes<T>;
    constexpr int64_t piece = 1024;  // so many vectors
    std::atomic<bool> finite{true};
    parallel_for(0, (size / L + piece - 1) / piece, 4, [&](int64_t first, int64_t last) {
        Vec<T, L> sum{};
        for (int64_t i = first * piece * L; i + L <= std::min(last * piece * L, size); i += L)
            sum += load<L>(values + i) * T(0);
        for (int l = 0; l < L; ++l) {
            if (!(sum[l] == 0)) finite.store(false, std::memory_order_relaxed);
        }
    });
    for (int64_t i = size / L * L; i < size; ++i) {
        if (!(values[i] * 0 == 0)) finite = false;
    }
    return finite;
}

template bool all_finite(const float*, int64_t);
template bool all_finite(const double*, int64_t);

}  // namespace minicnn
