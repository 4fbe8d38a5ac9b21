// Scratch memory of the calling thread: one buffer for each slot, freed when the thread ends.
#include "scratch.h"

namespace minicnn {
namespace {

constexpr std::size_t alignment = 64;

struct Buffer {
    void* data = nullptr;
    std::size_t size = 0;
    ~Buffer() { ::operator delete(data, std::align_val_t{alignment}); }
};

}  // namespace

void* scratch_bytes(Slot slot, std::size_t bytes) {
    thread_local Buffer buffers[static_cast<int>(Slot::count)];
    Buffer& buffer = buffers[static_cast<int>(slot)];
    const std::size_t needed = bytes + 2 * alignment;
    if (buffer.size < needed) {
        ::operator delete(buffer.data, std::align_val_t{alignment});
        buffer.data = nullptr;
        buffer.size = 0;
        buffer.data = ::operator new(needed, std::align_val_t{alignment});
        buffer.size = needed;
    }
    return static_cast<char*>(buffer.data) + alignment;
}

}  // namespace minicnn
