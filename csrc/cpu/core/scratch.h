// Scratch memory: arrays that live as long as the Scratch object that they were taken from.
//
//     Scratch scratch;
//     float* sums = scratch.take<float>(n);  // until `scratch` leaves its scope
//
// Each thread has a stack of memory of its own, and a Scratch is a mark on it: what is taken lies above the
// mark, and the end of the object gives all of it back at once.  The memory itself stays with the thread,
// so that once every kernel has run, taking allocates nothing.
//
// Objects of one thread nest, and only the innermost one may be taken from.  The calling thread of a
// parallel_for works in its region, too: what it took before stays valid in there for all threads, and what
// each thread takes in there must come from a Scratch made in there.
#pragma once

#include <cstddef>

#include "memory.h"

namespace minicnn {

class Scratch final : public Memory {
  public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

  private:
    void* take_bytes(std::size_t bytes) override;

    Scratch* outer_;            // the object of this thread that this one lies in, or nullptr
    std::size_t block_, used_;  // the mark: so many bytes of this block were taken before
};

}  // namespace minicnn
