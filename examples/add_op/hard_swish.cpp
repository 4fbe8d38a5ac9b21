// The C++ kernels: functions of raw pointers, without a torch header, so that they build fast and run alone
// under a sanitizer.  A kernel of the library would share the loop between threads with parallel_for.

#include "hard_swish.h"

#include <algorithm>

namespace minicnn {

template <typename T>
void hard_swish_forward(const T* x, T* y, std::int64_t size) {
    for (std::int64_t i = 0; i < size; ++i) {
        y[i] = x[i] * std::min(std::max(x[i] + 3, T(0)), T(6)) / 6;
    }
}

template <typename T>
void hard_swish_backward(const T* dy, const T* x, T* dx, std::int64_t size) {
    for (std::int64_t i = 0; i < size; ++i) {
        const T slope = x[i] <= -3 ? T(0) : x[i] >= 3 ? T(1) : (2 * x[i] + 3) / 6;
        dx[i] = dy[i] * slope;
    }
}

template void hard_swish_forward(const float*, float*, std::int64_t);
template void hard_swish_forward(const double*, double*, std::int64_t);
template void hard_swish_backward(const float*, const float*, float*, std::int64_t);
template void hard_swish_backward(const double*, const double*, double*, std::int64_t);

}  // namespace minicnn
