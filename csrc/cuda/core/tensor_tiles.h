// Slices of operands in shared memory, for tensor cores: how they are copied there, and how a warp reads
// them as fragments.
//
// A slice has 64 bytes of k: 16 floats or 32 bfloat16.  It lies there in chunks of 16 bytes, in lines:
// a line is a row of the operand where neighbouring k are neighbours in memory, and one k where
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
#include "ptx.h"
#include "reduce.h"

namespace minicnn::cuda {

constexpr int slice_bytes = 64, chunk_bytes = 16;

template <typename T>
constexpr int slice_depth = slice_bytes / int(sizeof(T));

// The slices of L rows of an operand.
template <typename Operand, int L>
struct TensorTile {
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
        // Floats that lie by k are read from four lines at once, two chunks from each.
        return by_row || sizeof(T) == 2 ? turn % in_banks : turn * 2 % in_banks;
    }
};

// Copies an operand's slices to shared memory.
template <typename Operand, int L, int threads>
class TensorLoader {
    using T = typename Operand::Element;
    using Tile = TensorTile<Operand, L>;
    static constexpr bool by_row = Tile::by_row;
    static constexpr int at_once = threads / Tile::chunks, passes = Tile::lines / at_once;
    static_assert(Tile::lines % at_once == 0);

  public:
    __device__ TensorLoader(const Operand& operand, std::int64_t first_row, std::int64_t last_row,
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

// ---- fragments ---------------------------------------------------------------------------------------

// One step of a multiplication takes 32 bytes of k: two chunks.
constexpr int steps = slice_bytes / (2 * chunk_bytes);

// Reads, from a slice, the fragments of `count` x 16 rows that begin at `first`, for the k of one step.
// `rows_first` says in which order four matrices of 8 rows and a chunk of k make the registers of a
// fragment: along the rows first, which is A's order, or along k first, which is B's.
template <typename Operand, int L, bool rows_first, int count>
__device__ __forceinline__ void load_fragments(unsigned (&fragments)[count][4],
                                               const typename Operand::Element* tile, int first, int step) {
    using T = typename Operand::Element;
    using Tile = TensorTile<Operand, L>;
    const int lane = int(threadIdx.x) % warp_lanes, matrix = lane / 8;
    const int down = rows_first ? matrix % 2 : matrix / 2, deep = rows_first ? matrix / 2 : matrix % 2;
#pragma unroll
    for (int i = 0; i < count; ++i) {
        const int row = first + 16 * i;
        if constexpr (Tile::by_row) {
            load_matrices(fragments[i], tile + Tile::place(row + 8 * down, lane % 8, 2 * step + deep));
        } else if constexpr (sizeof(T) == 2) {
            load_matrices_transposed(fragments[i],
                                     tile + Tile::place(16 * step + 8 * deep, lane % 8, row / 8 + down));
        } else {
#pragma unroll
            for (int q = 0; q < 4; ++q) {
                const int chunk = row / 4 + 2 * (rows_first ? q % 2 : q / 2) + lane / 16;
                const int k = 8 * step + 4 * (rows_first ? q / 2 : q % 2);
                fragments[i][q] = load_word(tile + Tile::place(k, lane % 4, chunk) + lane / 4 % 4);
            }
        }
        if constexpr (sizeof(T) == 4) {
#pragma unroll
            for (unsigned& bits : fragments[i]) bits = round_to_tf32(bits);
        }
    }
}

// The sums of a warp: HM x HN of them, in fragments of 16 x 8.
template <typename T, int HM, int HN>
struct WarpSums {
    static constexpr int down = HM / 16, across = HN / 8;
    float sum[down][across][4] = {};

    // Adds the products of a slice of A and a slice of B, of which the warp reads the rows from row_a and
    // row_b on.
    template <typename A, typename B, int LA, int LB>
    __device__ __forceinline__ void add_slice(const T* tile_a, const T* tile_b, int row_a, int row_b) {
#pragma unroll
        for (int step = 0; step < steps; ++step) {
            unsigned a[down][4], b[across / 2][4];
            load_fragments<A, LA, true>(a, tile_a, row_a, step);
            load_fragments<B, LB, false>(b, tile_b, row_b, step);
#pragma unroll
            for (int i = 0; i < down; ++i) {
#pragma unroll
                for (int j = 0; j < across; ++j) {
                    const unsigned of_b[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
                    if constexpr (sizeof(T) == 2) {
                        multiply_bfloat16(sum[i][j], a[i], of_b);
                    } else {
                        multiply_tf32(sum[i][j], a[i], of_b);
                    }
                }
            }
        }
    }

    // Two neighbouring sums in the lane's row number i.
    __device__ Vector<float, 2> pair(int i, int j) const {
        return {sum[i / 2][j][i % 2 * 2], sum[i / 2][j][i % 2 * 2 + 1]};
    }

    // Where the lane's sums lie in the warp's: sum[i][j][2 * half + q] is the one at (row(i, half),
    // column(j) + q).
    __device__ static int row(int i, int half) {
        return 16 * i + 8 * half + int(threadIdx.x) % warp_lanes / 4;
    }
    __device__ static int column(int j) { return 8 * j + int(threadIdx.x) % 4 * 2; }
};

}  // namespace minicnn::cuda
