// hard_swish: y = x * min(max(x + 3, 0), 6) / 6, elementwise.  One declaration for every implementation.
#pragma once

#include <cstdint>

namespace example {

// dy/dx: 0 up to -3, 1 from 3 on, (2x + 3) / 6 between.
template <typename T>
struct CpuKernels {
    static void forward(const T* x, T* y, std::int64_t size);
    static void backward(const T* dy, const T* x, T* dx, std::int64_t size);
};

template <typename T>
struct CudaKernels {
    static void forward(const T* x, T* y, std::int64_t size);
    static void backward(const T* dy, const T* x, T* dx, std::int64_t size);
};

}  // namespace example
