// Replaces the toolkit's header of this name: asynchronous copies (cp.async).  A copy is done at the wait
// for it and never before, so that a kernel which forgets to wait reads old data.
#pragma once

#include "cuda_runtime.h"

inline void __pipeline_memcpy_async(void* to, const void* from, std::size_t bytes, std::size_t zeros = 0) {
    emulation::Machine::instance().copy_later(to, from, bytes, zeros);
}
inline void __pipeline_commit() { emulation::Machine::instance().commit_copies(); }
inline void __pipeline_wait_prior(std::size_t batches_left) {
    emulation::Machine::instance().finish_copies(batches_left);
}
