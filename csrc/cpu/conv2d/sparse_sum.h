// The kernel of pool_sparse.h: a weighted sum of blocks of memory, held in registers.  The gradient to
// the filters is such a sum over pieces of x, and the gradient to the input one over filters.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "../core/simd.h"

namespace minicnn {

// A block of the source, by its offset, and what it is multiplied with.
template <typename T>
struct Entry {
    T value;
    std::int32_t offset;
};

// Blocks of `runs` rows of `vectors` vectors.  Only the first `tail` lanes of the last vector of a row
// count.
template <typename T>
struct SparseBlock {
    const T* source;
    std::int64_t source_stride;
    T* sum;
    std::int64_t sum_stride;
    int tail;
};

// sum[r][i] += the sum over entries of value * source[offset + r*source_stride + i]
template <typename T>
using SparseKernel = void (*)(const Entry<T>* entries, std::int64_t count, const SparseBlock<T>& block);

constexpr int sparse_vectors = vector_registers >= 32 ? 28 : 12, sparse_runs = 5;

// A block of runs x length values, cut into pieces whose sums fit the registers.
template <typename T>
struct SparsePieces {
    std::int64_t length, padded;  // values of a run; the same rounded up to whole vectors
    int lane_count, vectors_per_piece, runs_per_piece;

    SparsePieces(std::int64_t runs, std::int64_t length);
    SparseKernel<T> kernel(std::int64_t runs, std::int64_t vectors) const;

    // Calls f(first run, first value in it, tail, kernel) for each piece.
    template <typename F>
    void for_each(std::int64_t runs, const F& f) const {
        const std::int64_t vectors = padded / lane_count;
        const std::int64_t run_parts = (runs + runs_per_piece - 1) / runs_per_piece;
        const std::int64_t vector_parts = (vectors + vectors_per_piece - 1) / vectors_per_piece;
        for (std::int64_t a = 0; a < run_parts; ++a) {
            const std::int64_t r0 = runs * a / run_parts, r1 = runs * (a + 1) / run_parts;
            for (std::int64_t b = 0; b < vector_parts; ++b) {
                const std::int64_t v0 = vectors * b / vector_parts, v1 = vectors * (b + 1) / vector_parts;
                const std::int64_t tail =
                    std::min<std::int64_t>(lane_count, length - (v1 - 1) * lane_count);
                f(r0, v0 * lane_count, static_cast<int>(tail), kernel(r1 - r0, v1 - v0));
            }
        }
    }
};

}  // namespace minicnn
