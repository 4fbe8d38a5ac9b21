// Where a kernel's preparation puts its arrays: into the scratch memory of one call (scratch.h), or into
// memory that is kept for all calls to come.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

namespace minicnn {

constexpr std::size_t cache_line = 64;

struct FreeAligned {
    void operator()(char* data) const { ::operator delete(data, std::align_val_t{cache_line}); }
};
using AlignedBytes = std::unique_ptr<char, FreeAligned>;

inline AlignedBytes aligned_bytes(std::size_t size) {
    return AlignedBytes(static_cast<char*>(::operator new(size, std::align_val_t{cache_line})));
}

class Memory {
  public:
    // n elements that hold anything, aligned to 64 bytes; the 64 bytes before and after them may be read.
    template <typename T>
    T* take(std::ptrdiff_t n) {
        return static_cast<T*>(take_bytes(static_cast<std::size_t>(n) * sizeof(T)));
    }

  protected:
    ~Memory() = default;

  private:
    virtual void* take_bytes(std::size_t bytes) = 0;
};

// Arrays that live as long as this object.
class Kept final : public Memory {
  public:
    std::size_t bytes() const { return bytes_; }

  private:
    void* take_bytes(std::size_t bytes) override {
        const std::size_t size = (bytes + cache_line - 1) / cache_line * cache_line + 2 * cache_line;
        blocks_.push_back(aligned_bytes(size));
        bytes_ += size;
        return blocks_.back().get() + cache_line;
    }

    std::vector<AlignedBytes> blocks_;
    std::size_t bytes_ = 0;
};

}  // namespace minicnn
