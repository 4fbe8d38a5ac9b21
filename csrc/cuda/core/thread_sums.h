// The sums of a tile by multiply-adds, in float and double: each thread has TM x TN of them in registers,
// and adds up each in the order of k.
#pragma once

#include "tiles.h"

namespace minicnn::cuda {

// Which rows of an operand's slice belong to a thread, where `many` threads share TL * many rows: number i
// of thread t.  What a quarter of a warp reads at once lies in different banks.
template <typename Operand, int TL, int many>
struct Share {
    using T = typename Operand::Element;
    using Tile = cuda::Tile<Operand, TL * many, false>;
    static constexpr int V = full_width<T>;
    static_assert(TL % V == 0);

    __device__ static int row(int t, int i) {
        return Operand::k_contiguous ? t + many * i : (i / V * many + t) * V + i % V;
    }
    // Loads row number i at the W consecutive k from `k` on, which lie in one chunk.
    template <int W>
    __device__ static Vector<T, W> load_row(const T* tile, int t, int i, int k) {
        constexpr bool alike = many % 8 == 0;  // the rows of a thread are stored in the same order
        const int twist = Tile::twist(alike ? t : t + many * i);
        return load<W>(tile + (t + many * i) * Tile::depth +
                       (k ^ twist * V));  // place(), with k in its chunk
    }
    // Loads all rows at one k.
    __device__ static void load_line(T (&rows)[TL], const T* tile, int t, int k) {
#pragma unroll
        for (int i = 0; i < TL; i += V) {
            const auto values = load<V>(tile + Tile::place(0, k, i / V * many + t));
#pragma unroll
            for (int q = 0; q < V; ++q) rows[i + q] = values.v[q];
        }
    }
};

// The sums of a tile that X threads share along its columns, and Y along its rows.
template <typename A, typename B, int X, int Y, int TM, int TN>
class ThreadSums {
    using T = typename A::Element;
    using OfA = Share<A, TM, Y>;
    using OfB = Share<B, TN, X>;
    static constexpr int V = full_width<T>;
    // How many k are loaded at once.  With 64 sums, more would not fit in 128 registers.
    static constexpr int W = TM * TN < 64 ? V : V / 2;

  public:
    static constexpr int rows = TM, across = TN / V;

    // Adds the products of a slice of A and a slice of B.
    __device__ __forceinline__ void add_slice(const T* tile_a, const T* tile_b) {
#pragma unroll 1
        for (int k = 0; k < slice_depth<T>; k += W) {
            T b[W][TN];
            if constexpr (B::k_contiguous) {
#pragma unroll
                for (int j = 0; j < TN; ++j) {
                    const auto values = OfB::template load_row<W>(tile_b, x(), j, k);
#pragma unroll
                    for (int q = 0; q < W; ++q) b[q][j] = values.v[q];
                }
            } else {
#pragma unroll
                for (int q = 0; q < W; ++q) OfB::load_line(b[q], tile_b, x(), k + q);
            }
            if constexpr (A::k_contiguous) {
#pragma unroll
                for (int i = 0; i < TM; ++i) {
                    const auto a = OfA::template load_row<W>(tile_a, y(), i, k);
#pragma unroll
                    for (int q = 0; q < W; ++q) add(i, a.v[q], b[q]);
                }
            } else {
#pragma unroll
                for (int q = 0; q < W; ++q) {
                    T a[TM];
                    OfA::load_line(a, tile_a, y(), k + q);
#pragma unroll
                    for (int i = 0; i < TM; ++i) add(i, a[i], b[q]);
                }
            }
        }
    }

    // Where the thread's sums lie in the tile: values(i, j) are those at (row(i), column(j)) and beside it.
    __device__ static int row(int i) { return OfA::row(y(), i); }
    __device__ static int column(int j) {
        return B::k_contiguous ? (j * V + x() % V) * X + x() / V * V : OfB::row(x(), j * V);
    }
    // Where the thread's columns lie X apart, V neighbouring threads exchange theirs.  The whole warp must
    // call it.
    __device__ __forceinline__ Vector<T, V> values(int i, int j) const {
        Vector<T, V> values;
#pragma unroll
        for (int q = 0; q < V; ++q) values.v[q] = sum_[i][j * V + q];
        if constexpr (B::k_contiguous) transpose_lanes(values.v);
        return values;
    }

  private:
    // A warp has 8 threads along the columns, or X if that is less.
    static constexpr int lanes_x = X < 8 ? X : 8, warps_x = X / lanes_x, lanes_y = warp_lanes / lanes_x;
    __device__ static int x() {
        return int(threadIdx.x) / warp_lanes % warps_x * lanes_x + int(threadIdx.x) % lanes_x;
    }
    __device__ static int y() {
        return int(threadIdx.x) / warp_lanes / warps_x * lanes_y + int(threadIdx.x) % warp_lanes / lanes_x;
    }

    __device__ __forceinline__ void add(int i, T a, const T (&b)[TN]) {
#pragma unroll
        for (int j = 0; j < TN; ++j) sum_[i][j] += a * b[j];
    }

    T sum_[TM][TN] = {};
};

}  // namespace minicnn::cuda
