// The shared memory of the block that runs.  Each array is an allocation of its own, so that
// AddressSanitizer knows where it ends.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emulation {

class SharedMemory {
  public:
    // Forgets all arrays, and makes the dynamic one anew, whose size the launch gives.
    void renew(std::size_t dynamic_bytes) {
        arrays_.clear();
        add(nullptr, dynamic_bytes);
    }

    // The array that `key` stands for; nullptr stands for the dynamic one.  The first call makes it.
    void* array(const void* key, std::size_t bytes) {
        for (const Array& array : arrays_) {
            if (array.key == key) return array.memory.get();
        }
        return add(key, bytes);
    }

    bool holds(const void* at) const {
        for (const Array& array : arrays_) {
            const auto offset = std::uintptr_t(at) - std::uintptr_t(array.memory.get());
            if (offset < array.bytes) return true;
        }
        return false;
    }

  private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };

    struct Array {
        const void* key;
        std::size_t bytes;
        std::unique_ptr<void, Free> memory;
    };

    void* add(const void* key, std::size_t bytes) {
        arrays_.push_back({key, bytes, poisoned(bytes)});
        return arrays_.back().memory.get();
    }

    static std::unique_ptr<void, Free> poisoned(std::size_t bytes) {
        void* p = std::aligned_alloc(128, (bytes + 127) / 128 * 128 + 128);
        if (!p) throw std::bad_alloc();
        std::memset(p, 0xFF, bytes);  // NaN as float and as double
#if defined(__SANITIZE_ADDRESS__)
        __asan_poison_memory_region(static_cast<char*>(p) + bytes, (bytes + 127) / 128 * 128 + 128 - bytes);
#endif
        return std::unique_ptr<void, Free>(p);
    }

    std::vector<Array> arrays_;
};

}  // namespace emulation
