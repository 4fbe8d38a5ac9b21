// Slices of a product's operands in shared memory, and how they are copied there.
//
// A slice has 64 bytes of k: 16 floats, 8 doubles or 32 bfloat16.  It lies there in chunks of 16 bytes, in
// lines: a line is a row of the operand where neighbouring k are neighbours in memory, and one k where
// neighbouring rows are.  The chunks of a line are stored in another order from line to line, so that the 8
// chunks that are read at once, or the 32 floats, always come from different banks.
//
// An operand finds an element from its row, and from a cursor that moves along k without a division:
//   row(i, in)            what row i is; `in` is false for a row outside the product
//   cursor(k)             the cursor at k
//   step(by)              by how much a cursor moves; worked out once
//   advance(cursor, step) moves it
//   at(row, cursor)       the address of 16 bytes, or nullptr for zeros
#pragma once

#include <cuda_pipeline.h>

#include "elementwise.h"
#include "reduce.h"

namespace minicnn::cuda {

constexpr int slice_bytes = 64, chunk_bytes = 16;

template <typename T>
constexpr int slice_depth = slice_bytes / int(sizeof(T));

// The slices of L rows of an operand.
template <typename Operand_, int L, bool for_tensor_cores>
struct Tile {
    using Operand = Operand_;
    using T = typename Operand::Element;
    static constexpr bool by_row = Operand::k_contiguous;
    static constexpr int V = full_width<T>, depth = slice_depth<T>;
    static constexpr int lines = by_row ? L : depth, chunks = (by_row ? depth : L) / V;
    static constexpr int elements = L * depth;
    static constexpr int in_banks = chunks < 8 ? chunks : 8;  // how many chunks of a line fill the banks

    // Where a chunk of line number `first + line` is stored; `first` is a multiple of 8, or of 4 for
    // floats.
    __device__ static int place(int first, int line, int chunk) {
        return (first + line) * chunks * V + (chunk ^ twist(line)) * V;
    }
    // It repeats itself after 8 lines at most, and after 4 where floats lie by k.
    __device__ static int twist(int line) {
        const int turn = line / (8 / in_banks);
        if (by_row || sizeof(T) == 2) return turn % in_banks;
        // Tensor cores take floats that lie by k from four lines at once, two chunks from each.  Threads
        // take neighbouring chunks of one line.
        return for_tensor_cores ? turn * 2 % in_banks : 0;
    }
};

// Copies an operand's slices to shared memory.
template <typename Tile, int threads>
class Loader {
    using Operand = typename Tile::Operand;
    using T = typename Tile::T;
    static constexpr bool by_row = Tile::by_row;
    // A pass copies `at_once` lines.  If there are fewer, some threads copy nothing.
    static constexpr int at_once = std::min(threads / Tile::chunks, Tile::lines);
    static constexpr int passes = Tile::lines / at_once;
    static_assert(Tile::lines % at_once == 0);

  public:
    __device__ Loader(const Operand& operand, std::int64_t first_row, std::int64_t last_row,
                      std::int64_t first_k, std::int64_t last_k)
        : operand_(operand),
          cursor_(operand.cursor(first_k + (by_row ? place() : line(0)))),
          step_(operand.step(by_row ? Tile::depth : at_once)),
          left_(int(last_k - first_k) - (by_row ? place() : line(0))) {
#pragma unroll
        for (int i = 0; i < (by_row ? passes : 1); ++i) {
            const std::int64_t row = first_row + (by_row ? line(i) : place());
            rows_[i] = operand_.row(row, row < last_row);
        }
    }

    // Starts to copy the next slice.
    __device__ void copy(T* tile) {
        if (at_once * Tile::chunks < threads && line(0) >= at_once) return;
#pragma unroll
        for (int i = 0; i < passes; ++i) {
            const T* from = left_ > 0 ? operand_.at(rows_[by_row ? i : 0], cursor_) : nullptr;
            __pipeline_memcpy_async(tile + Tile::place(0, line(i), chunk()), from ? from : operand_.data,
                                    chunk_bytes, from ? 0 : chunk_bytes);
            if (!by_row) next(at_once);
        }
        if (by_row) next(Tile::depth);
    }

  private:
    __device__ static int line(int pass) { return int(threadIdx.x) / Tile::chunks + pass * at_once; }
    __device__ static int chunk() { return int(threadIdx.x) % Tile::chunks; }
    __device__ static int place() { return chunk() * Tile::V; }
    __device__ void next(int by) {
        operand_.advance(cursor_, step_);
        left_ -= by;
    }

    const Operand& operand_;
    typename Operand::Cursor cursor_;
    typename Operand::Step step_;
    int left_;  // from the thread's place to the end of k
    typename Operand::Row rows_[by_row ? passes : 1];
};

}  // namespace minicnn::cuda
