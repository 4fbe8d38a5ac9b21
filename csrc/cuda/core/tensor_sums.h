// The sums of a tile by tensor cores: a warp computes a part of it, and reads from shared memory what it
// multiplies as fragments.
#pragma once

#include "ptx.h"
#include "tiles.h"

namespace minicnn::cuda {

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
    using Tile = cuda::Tile<Operand, L, true>;
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

// The sums of a tile of BM x BN.  Each warp has HM x HN of them, in fragments of 16 x 8.
template <typename A, typename B, int BM, int BN, int HM, int HN>
class WarpSums {
    using T = typename A::Element;
    static constexpr int down = HM / 16;

  public:
    static constexpr int rows = 2 * down, across = HN / 8;

    // Adds the products of a slice of A and a slice of B.
    __device__ __forceinline__ void add_slice(const T* tile_a, const T* tile_b) {
#pragma unroll
        for (int step = 0; step < steps; ++step) {
            unsigned a[down][4], b[across / 2][4];
            load_fragments<A, BM, true>(a, tile_a, warp_row(), step);
            load_fragments<B, BN, false>(b, tile_b, warp_column(), step);
#pragma unroll
            for (int i = 0; i < down; ++i) {
#pragma unroll
                for (int j = 0; j < across; ++j) {
                    const unsigned of_b[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
                    if constexpr (sizeof(T) == 2) {
                        multiply_bfloat16(sum_[i][j], a[i], of_b);
                    } else {
                        multiply_tf32(sum_[i][j], a[i], of_b);
                    }
                }
            }
        }
    }

    // Where the lane's sums lie in the tile: values(i, j) are those at (row(i), column(j)) and beside it.
    __device__ static int row(int i) {
        return warp_row() + 16 * (i / 2) + 8 * (i % 2) + int(threadIdx.x) % warp_lanes / 4;
    }
    __device__ static int column(int j) { return warp_column() + 8 * j + int(threadIdx.x) % 4 * 2; }
    __device__ __forceinline__ Vector<float, 2> values(int i, int j) const {
        return {sum_[i / 2][j][i % 2 * 2], sum_[i / 2][j][i % 2 * 2 + 1]};
    }

  private:
    __device__ static int warp_row() { return int(threadIdx.x) / warp_lanes % (BM / HM) * HM; }
    __device__ static int warp_column() { return int(threadIdx.x) / warp_lanes / (BM / HM) * HN; }

    float sum_[down][across][4] = {};
};

}  // namespace minicnn::cuda
