// A product of matrices in tiles:
//
//     out(m, n) = sum over k of A(m, k) * B(k, n)
//
// A block of threads computes a tile of out.  A and B pass through shared memory in slices of 16 k, in two
// buffers: while the threads multiply one slice, the next one is copied (by cp.async, 128 bits at a time
// where the memory order allows).  The sums stay in registers: each thread has a small tile of its own.
// Products by tensor cores are in tensor_cores.h.
//
// A and B need not be matrices in memory.  Each is an operand: an object that finds an element from two
// things,
//   Row    what one row of the operand is; a thread works it out once
//   Depth  what one k is; a thread works it out once a slice
//
// The shapes alone decide how a sum is cut into parts, so that the same bits come out of every run.
#pragma once

#include <cuda_pipeline.h>

#include "parts.h"
#include "reduce.h"

namespace minicnn::cuda {

// ---- tiles in shared memory ------------------------------------------------------------------------

// A slice of L rows of an operand lies in shared memory as [row][k] if neighbouring k are neighbours in the
// operand's memory, and as [k][row] if not.
template <typename Operand, int L>
constexpr int tile_pitch = (Operand::k_contiguous ? slice : L) + full_width<typename Operand::Element>;
template <typename Operand, int L>
constexpr int tile_elements = (Operand::k_contiguous ? L : slice) * tile_pitch<Operand, L>;

// Copies an operand's slices to shared memory, W neighbouring elements at once.
template <typename Operand, int L, int W>
class Loader {
    using T = typename Operand::Element;
    static constexpr bool by_row = Operand::k_contiguous;
    static constexpr int vectors = (by_row ? slice : L) / W, lines = by_row ? L : slice;
    static constexpr int lines_at_once = block_threads / vectors;
    static constexpr int passes = (lines + lines_at_once - 1) / lines_at_once;
    static constexpr int pitch = tile_pitch<Operand, L>;

  public:
    __device__ Loader(const Operand& operand, std::int64_t first_row, std::int64_t last_row)
        : operand_(operand) {
#pragma unroll
        for (int i = 0; i < (by_row ? passes : 1); ++i) {
            const std::int64_t row = first_row + (by_row ? line(i) : place());
            rows_[i] = operand_.row(row, row < last_row);
        }
    }

    // Starts to copy the slice that begins at k.  A plain operand is copied to the tile directly.  Any
    // other one computes its values, which wait in registers until end().
    __device__ void begin(T* tile, std::int64_t k, std::int64_t last_k) {
        typename Operand::Depth depth;
        if constexpr (by_row) depth = operand_.depth(k + place(), k + place() < last_k);
#pragma unroll
        for (int i = 0; i < passes; ++i) {
            if (lines % lines_at_once != 0 && line(i) >= lines) continue;
            if constexpr (!by_row) depth = operand_.depth(k + line(i), k + line(i) < last_k);
            const typename Operand::Row& row = rows_[by_row ? i : 0];
            if constexpr (Operand::plain) {
                const T* from = operand_.at(row, depth);  // nullptr stands for zeros
                __pipeline_memcpy_async(tile + line(i) * pitch + place(), from ? from : operand_.data,
                                        W * sizeof(T), from ? 0 : W * sizeof(T));
            } else {
                held_[i] = operand_.template values<W>(row, depth);
            }
        }
    }

    // Writes to the tile what begin() left in registers.
    __device__ void end(T* tile) const {
        if constexpr (!Operand::plain) {
#pragma unroll
            for (int i = 0; i < passes; ++i) {
                if (lines % lines_at_once != 0 && line(i) >= lines) continue;
                store(tile + line(i) * pitch + place(), held_[i]);
            }
        }
    }

  private:
    __device__ static int line(int pass) { return int(threadIdx.x) / vectors + pass * lines_at_once; }
    __device__ static int place() { return int(threadIdx.x) % vectors * W; }

    const Operand& operand_;
    typename Operand::Row rows_[by_row ? passes : 1];
    Vector<T, W> held_[Operand::plain ? 1 : passes];
};

// ---- multiplication ----------------------------------------------------------------------------------

// Which rows of a tile belong to a thread.  16 threads share the rows; row(t, i) is number i of thread t.
template <typename Operand, int TL>
struct Share {
    using T = typename Operand::Element;
    static constexpr int V = full_width<T>, U = TL < V ? TL : V;

    __device__ static int row(int t, int i) {
        return Operand::k_contiguous ? t + 16 * i : (i / U * 16 + t) * U + i % U;
    }

    // Loads the elements of the thread's rows at V consecutive k.
    __device__ static void load_fragment(T (&fragment)[TL][V], const T* tile, int t, int k) {
        constexpr int pitch = tile_pitch<Operand, 16 * TL>;
        if constexpr (Operand::k_contiguous) {
#pragma unroll
            for (int i = 0; i < TL; ++i) {
                const auto values = load<V>(tile + row(t, i) * pitch + k);
#pragma unroll
                for (int j = 0; j < V; ++j) fragment[i][j] = values.v[j];
            }
        } else {
#pragma unroll
            for (int j = 0; j < V; ++j) {
#pragma unroll
                for (int i = 0; i < TL; i += U) {
                    const auto values = load<U>(tile + (k + j) * pitch + row(t, i));
#pragma unroll
                    for (int q = 0; q < U; ++q) fragment[i + q][j] = values.v[q];
                }
            }
        }
    }
};

// The sums of a tile in registers: 16 x 16 threads with TM x TN elements each.
template <typename T_, int TM_, int TN_>
struct Registers {
    using T = T_;
    static constexpr int TM = TM_, TN = TN_, V = full_width<T>;
    static constexpr int staging = 0;  // how many elements of shared memory finish() needs
    T sum[TM][TN] = {};

    template <typename A, typename B>
    __device__ void add_slice(const T* tile_a, const T* tile_b) {
        const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
        for (int k = 0; k < slice; k += V) {
            T a[TM][V], b[TN][V];
            Share<A, TM>::load_fragment(a, tile_a, ty, k);
            Share<B, TN>::load_fragment(b, tile_b, tx, k);
#pragma unroll
            for (int q = 0; q < V; ++q) {
#pragma unroll
                for (int i = 0; i < TM; ++i) {
#pragma unroll
                    for (int j = 0; j < TN; ++j) sum[i][j] += a[i][q] * b[j][q];
                }
            }
        }
    }

    template <typename A, typename B>
    __device__ void finish(T*) {}
};

// ---- the kernel --------------------------------------------------------------------------------------

template <typename Math, typename A, typename B>
struct GemmLayout {
    static constexpr int BM = 16 * Math::TM, BN = 16 * Math::TN;
    static constexpr int elements_a = tile_elements<A, BM>, elements_b = tile_elements<B, BN>;
    static constexpr int buffers = 2 * (elements_a + elements_b);
    static constexpr int elements = buffers > Math::staging ? buffers : Math::staging;
};

// Leaves the block's tile of the product in math.sum.
template <typename Math, typename A, typename B, int WA, int WB>
__device__ __forceinline__ void multiply(Math& math, const A& a, const B& b, const GemmSize& s,
                                         typename Math::T* shared, std::int64_t first_row,
                                         std::int64_t first_column, int split) {
    using T = typename Math::T;
    using Layout = GemmLayout<Math, A, B>;
    T* const tiles_b = shared + 2 * Layout::elements_a;
    const std::int64_t first_k = split * s.split_depth, last_k = smaller(first_k + s.split_depth, s.K);
    Loader<A, Layout::BM, WA> load_a(a, first_row, smaller(first_row + s.tile_rows, s.M));
    Loader<B, Layout::BN, WB> load_b(b, first_column, s.N);
    if (first_k < last_k) {
        load_a.begin(shared, first_k, last_k);
        load_b.begin(tiles_b, first_k, last_k);
        load_a.end(shared);
        load_b.end(tiles_b);
    }
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    int buffer = 0;
    for (std::int64_t k = first_k; k < last_k; k += slice) {
        const bool more = k + slice < last_k;
        T *const tile_a = shared + buffer * Layout::elements_a, *const tile_b =
                                                                    tiles_b + buffer * Layout::elements_b;
        buffer ^= 1;
        T *const next_a = shared + buffer * Layout::elements_a, *const next_b =
                                                                    tiles_b + buffer * Layout::elements_b;
        if (more) {
            load_a.begin(next_a, k + slice, last_k);
            load_b.begin(next_b, k + slice, last_k);
        }
        __pipeline_commit();
        math.template add_slice<A, B>(tile_a, tile_b);
        if (more) {
            load_a.end(next_a);
            load_b.end(next_b);
        }
        __pipeline_wait_prior(0);
        __syncthreads();  // this slice is read, the next has come
    }
    math.template finish<A, B>(shared);
}

// To store 128 bits at once, a thread needs U columns of out that are neighbours in memory.  Where its
// columns lie 16 apart, U neighbouring threads exchange theirs.  Where they are neighbours already, nothing
// is exchanged.
template <typename B, int TN>
struct OutputColumns {
    using T = typename B::Element;
    static constexpr int U = Share<B, TN>::U;

    // The first of the U columns that thread t of 16 has at sum[.][j] after the exchange; j is a multiple
    // of U.
    __device__ static int first(int t, int j) {
        return B::k_contiguous ? j * 16 + t % U * 16 + t / U * U : Share<B, TN>::row(t, j);
    }

    // Transposes the U x U numbers that U neighbouring threads have.  The whole warp must call it.
    __device__ static Vector<T, U> exchange(const T* sum) {
        Vector<T, U> values;
#pragma unroll
        for (int i = 0; i < U; ++i) values.v[i] = sum[i];
        if constexpr (B::k_contiguous) {
#pragma unroll
            for (int step = 1; step < U; step *= 2) {
                const bool upper = threadIdx.x & step;
#pragma unroll
                for (int i = 0; i < U; ++i) {
                    if (i & step) continue;
                    T &low = values.v[i], &high = values.v[i + step];
                    const T other = __shfl_xor_sync(whole_warp, upper ? low : high, step);
                    (upper ? low : high) = other;
                }
            }
        }
        return values;
    }
};

// An Output says where the sums go:
//   row(m)                        where row m begins
//   at(group, split, row, n)      where element n of that row is stored
//   contiguous                    whether element n + 1 is its neighbour there
//   value(group, n, sum)          what is stored, for instance the sum plus a bias
//   doubts                        whether a result that is not finite may be wrong; put_again(group, row,
//   m, n)
//                                 then computes and stores it in another way

// Stores the first `count` of the values, which belong to consecutive n.
template <typename T, int U, typename Output>
__device__ __forceinline__ void put(const Output& out, int group, int split, std::int64_t row, int n,
                                    const Vector<T, U>& values, int count) {
    if constexpr (Output::contiguous) {
        store_some(out.at(group, split, row, n), values, count);
    } else {
#pragma unroll
        for (int q = 0; q < U; ++q) {
            if (q < count) *out.at(group, split, row, n + q) = values.v[q];
        }
    }
}

template <typename Math, typename A, typename B, int WA, int WB, typename Output>
__global__ void __launch_bounds__(block_threads, 1) gemm_kernel(A a, B b, Output out, GemmSize s) {
    using T = typename Math::T;
    using Layout = GemmLayout<Math, A, B>;
    using Of = OutputColumns<B, Math::TN>;
    constexpr int U = Of::U;
    MINICNN_DYNAMIC_SHARED(T, shared);
    const int group = int(blockIdx.z) / s.splits, split = int(blockIdx.z) % s.splits;
    const std::int64_t first_row = std::int64_t(blockIdx.x) * s.tile_rows;
    const int first_column = int(blockIdx.y) * Layout::BN;
    a.select(group);
    b.select(group);
    Math math;
    multiply<Math, A, B, WA, WB>(math, a, b, s, shared, first_row, first_column, split);
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    std::uint64_t doubtful = 0;  // a bit for each of the thread's elements that put_again() must compute
#pragma unroll
    for (int i = 0; i < Math::TM; ++i) {
        const std::int64_t m = first_row + Share<A, Math::TM>::row(ty, i);
        const std::int64_t row = m < s.M ? out.row(m) : 0;
#pragma unroll
        for (int j = 0; j < Math::TN; j += U) {
            Vector<T, U> values = Of::exchange(math.sum[i] + j);
            const int n = first_column + Of::first(tx, j), count = m < s.M ? s.N - n : 0;
#pragma unroll
            for (int q = 0; q < U; ++q) {
                if (q >= count) continue;
                values.v[q] = out.value(group, n + q, values.v[q]);
                if (Output::doubts && !is_finite(values.v[q]))
                    doubtful |= std::uint64_t{1} << (i * Math::TN + j + q);
            }
            put(out, group, split, row, n, values, count);
        }
    }
    if constexpr (Output::doubts) {
        for (int element = 0; doubtful; ++element, doubtful >>= 1) {
            if (!(doubtful & 1)) continue;
            const std::int64_t m = first_row + Share<A, Math::TM>::row(ty, element / Math::TN);
            const int j = element % Math::TN;
            out.put_again(group, out.row(m), m, first_column + Of::first(tx, j / U * U) + j % U);
        }
    }
}

template <typename Math, int WA, int WB, typename A, typename B, typename Output>
void launch_gemm(const A& a, const B& b, const Output& out, const GemmSize& s) {
    using Layout = GemmLayout<Math, A, B>;
    const dim3 grid(unsigned(narrow(ceil_div(s.M, s.tile_rows), "tiles of a product")),
                    unsigned(ceil_div(s.N, Layout::BN)), unsigned(s.groups * s.splits));
    launch(gemm_kernel<Math, A, B, WA, WB, Output>, grid, block_threads,
           Layout::elements * sizeof(typename Math::T), current_stream(), a, b, out, s);
}

// ---- the whole product -------------------------------------------------------------------------------

template <typename Math, int WA, int WB, typename A, typename B, typename Output>
void gemm(const A& a, const B& b, const Output& out, GemmSize s) {
    using Layout = GemmLayout<Math, A, B>;
    if (s.M == 0 || s.N == 0) return;
    s.tile_rows = Layout::BM;
    s.splits = splits_for(s, Layout::BM, Layout::BN);
    s.split_depth = ceil_div(ceil_div(s.K, s.splits), slice) * slice;
    sum_parts<typename Math::T>(s, out, [&](const auto& to) { launch_gemm<Math, WA, WB>(a, b, to, s); });
}

}  // namespace minicnn::cuda
