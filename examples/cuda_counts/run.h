// What the examples need beside their kernels.
#pragma once

#include <cstdlib>
#include <memory>

#include "without_torch.h"

using minicnn::cuda::launch;

// An array of numbers, placed as cudaMalloc does, whose requests are counted under its name.
class Array {
  public:
    Array(const char* name, int count)
        : count_(count),
          data_(static_cast<float*>(std::aligned_alloc(256, bytes() + 256 - bytes() % 256))) {
        for (int i = 0; i < count; ++i) data_.get()[i] = float(i % 13 - 6);
        emulation::Counter::instance().name(data_.get(), bytes(), name);
    }
    operator float*() const { return data_.get(); }
    int size() const { return count_; }

  private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::size_t bytes() const { return std::size_t(count_) * sizeof(float); }
    int count_;
    std::unique_ptr<float, Free> data_;
};
