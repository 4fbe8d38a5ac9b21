// What the harness runs a kernel with: threads, arrays of exactly the size that is asked for,
// and the comparison of runs with different numbers of threads.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "../../csrc/cpu/core/helpers.h"
#include "../../csrc/cpu/core/parallel.h"

namespace minicnn {

static int threads = 1;

int num_threads() { return threads; }

void run_on_threads(int count, void (*body)(void*, int), void* context) {
    run_with_helpers(count, body, context);
}

void rouse_threads(int count) { rouse_helpers(count); }

namespace {

using std::int64_t;

// Arrays of one run.  Inputs are reproducible numbers, some equal, some zero; outputs are kept for
// comparison.
template <typename T>
class Arrays {
  public:
    const T* in(int64_t size) {
        T* data = make(size);
        for (int64_t i = 0; i < size; ++i) data[i] = T(int64_t(next() % 17) - 8) / 4;
        return data;
    }

    T* out(int64_t size) {
        T* data = make(size);
        kept_.push_back({data, std::size_t(size) * sizeof(T)});
        return data;
    }

    // Random bytes: what a caller may pass off as saved by the forward pass.
    template <typename U = T>
    const U* junk(int64_t size) {
        auto* data = static_cast<unsigned char*>(allocate(std::size_t(size) * sizeof(U)));
        for (int64_t i = 0; i < size * int64_t(sizeof(U)); ++i) {
            const unsigned random = next();
            data[i] = static_cast<unsigned char>(random % 4 ? random >> 4 : random >> 4 & 7);  // many small
        }
        return reinterpret_cast<const U*>(data);
    }

    template <typename U>
    U* out_of(int64_t size) {
        void* data = allocate(std::size_t(size) * sizeof(U));
        kept_.push_back({data, std::size_t(size) * sizeof(U)});
        return static_cast<U*>(data);
    }

    // An array that is changed in place.
    T* inout(int64_t size) {
        T* data = const_cast<T*>(in(size));
        kept_.push_back({data, std::size_t(size) * sizeof(T)});
        return data;
    }

    T* positive(int64_t size) {
        T* data = inout(size);
        for (int64_t i = 0; i < size; ++i) data[i] = std::abs(data[i]) + T(0.5);
        return data;
    }

    std::vector<unsigned char> bytes() const {
        std::vector<unsigned char> all;
        for (const auto& [data, size] : kept_) {
            const auto* first = static_cast<const unsigned char*>(data);
            all.insert(all.end(), first, first + size);
        }
        return all;
    }

    ~Arrays() {
        for (void* data : owned_) std::free(data);
    }

  private:
    struct Kept {
        const void* data;
        std::size_t size;
    };

    // malloc, of the exact size: an address sanitizer guards both ends
    void* allocate(std::size_t bytes) {
        owned_.push_back(std::malloc(bytes ? bytes : 1));
        return owned_.back();
    }
    T* make(int64_t size) { return static_cast<T*>(allocate(std::size_t(size) * sizeof(T))); }
    unsigned next() { return state_ = state_ * 1664525u + 1013904223u, state_ >> 8; }

    std::vector<void*> owned_;
    std::vector<Kept> kept_;
    unsigned state_ = 1;
};

int failures = 0, runs = 0;

// Runs the kernels of `drive` with 1, 2 and 5 threads; the outputs must be the same bytes.
template <typename T>
void check(const std::string& name, const std::function<void(Arrays<T>&)>& drive) {
    std::vector<unsigned char> expected;
    for (const int count : {1, 2, 5}) {
        threads = count;
        Arrays<T> arrays;
        drive(arrays);
        ++runs;
        const std::vector<unsigned char> actual = arrays.bytes();
        if (count == 1) expected = actual;
        if (actual != expected) {
            std::fprintf(stderr, "%s: %d threads give other bits than 1\n", name.c_str(), count);
            ++failures;
        }
    }
}

int64_t out_size(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
    return (size + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
}

}  // namespace
}  // namespace minicnn
