// Multiplication by tensor cores: float operands are rounded to TF32, which has 10 bits of mantissa, and
// the sums are float.
#pragma once

#include <mma.h>

#include "gemm.h"

namespace minicnn::cuda {

// The sums of a tile of 128 x 64.  Each of the 8 warps has 32 x 32 of them, in four fragments.
struct TensorCores {
    using T = float;
    static constexpr int TM = 8, TN = 4;
    static constexpr int pitch = 16 * TN + 4, staging = 16 * TM * pitch;
    static constexpr int side = 16, depth = 8;  // a fragment multiplies 16 x 8 by 8 x 16

    template <typename Use, typename Layout>
    using Fragment = nvcuda::wmma::fragment<Use, side, side, depth, nvcuda::wmma::precision::tf32, Layout>;
    using Sum = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, side, side, depth, float>;

    Sum parts[2][2];
    float sum[TM][TN];

    __device__ TensorCores() {
        for (auto& row : parts) {
            for (auto& part : row) nvcuda::wmma::fill_fragment(part, 0.0f);
        }
    }

    // Loads a fragment from the slice of an operand with L rows.  The fragment's layout is that of the
    // slice.
    template <typename Operand, int L, typename F>
    __device__ static void load_fragment(F& fragment, const float* tile, int row, int k) {
        constexpr int pitch = tile_pitch<Operand, L>;
        nvcuda::wmma::load_matrix_sync(
            fragment, tile + (Operand::k_contiguous ? row * pitch + k : k * pitch + row), pitch);
        for (float& x : fragment.x) x = nvcuda::wmma::__float_to_tf32(x);
    }

    __device__ static int first_row() { return int(threadIdx.x) / 64 * 32; }
    __device__ static int first_column() { return int(threadIdx.x) / 32 % 2 * 32; }

    template <typename A, typename B>
    __device__ void add_slice(const float* tile_a, const float* tile_b) {
        using namespace nvcuda::wmma;
        using LayoutA = std::conditional_t<A::k_contiguous, row_major, col_major>;
        using LayoutB = std::conditional_t<B::k_contiguous, col_major, row_major>;
#pragma unroll
        for (int k = 0; k < slice; k += depth) {
            Fragment<matrix_a, LayoutA> a[2];
            Fragment<matrix_b, LayoutB> b[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                load_fragment<A, 16 * TM>(a[i], tile_a, first_row() + side * i, k);
                load_fragment<B, 16 * TN>(b[i], tile_b, first_column() + side * i, k);
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) {
#pragma unroll
                for (int j = 0; j < 2; ++j) mma_sync(parts[i][j], a[i], b[j], parts[i][j]);
            }
        }
    }

    // Moves the sums, through shared memory, to the threads that store them.
    template <typename A, typename B>
    __device__ void finish(float* shared) {
        for (int i = 0; i < 2; ++i) {
            for (int j = 0; j < 2; ++j) {
                nvcuda::wmma::store_matrix_sync(
                    shared + (first_row() + side * i) * pitch + first_column() + side * j, parts[i][j],
                    pitch, nvcuda::wmma::mem_row_major);
            }
        }
        __syncthreads();
        const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
        for (int i = 0; i < TM; ++i) {
#pragma unroll
            for (int j = 0; j < TN; ++j)
                sum[i][j] = shared[Share<A, TM>::row(ty, i) * pitch + Share<B, TN>::row(tx, j)];
        }
        __syncthreads();  // shared may be used again
    }
};

}  // namespace minicnn::cuda
