// Stands in for the toolkit's header of this name: cp.async, done no sooner than at the wait.
#pragma once

#include "cuda_runtime.h"

inline void __pipeline_memcpy_async(void* to, const void* from, std::size_t bytes, std::size_t zeros = 0) {
    emulation::Machine::instance().copy_later(to, from, bytes, zeros);
}
inline void __pipeline_commit() { emulation::Machine::instance().commit_copies(); }
inline void __pipeline_wait_prior(std::size_t batches_left) {
    emulation::Machine::instance().finish_copies(batches_left);
}
