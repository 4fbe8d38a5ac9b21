// Scratch memory of the calling thread: a few aligned buffers that grow to the largest need and are
// reused by every kernel.  A slot's content lasts until the same thread asks for the slot again.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace minicnn {

// The shared slots are used by the thread that calls a kernel, the others inside parallel regions:
// the calling thread works too, and must not overwrite what it shares.
enum class Slot {
    shared_weights,
    shared_offsets,
    shared_partials,
    shared_map,
    image,
    map,
    lists,
    sums,
    count
};

void* scratch_bytes(Slot slot, std::size_t bytes);

// At least n elements, aligned to 64 bytes, with 64 bytes before and after that may be read.
template <typename T>
T* scratch(Slot slot, std::ptrdiff_t n) {
    return static_cast<T*>(scratch_bytes(slot, static_cast<std::size_t>(n) * sizeof(T)));
}

}  // namespace minicnn
