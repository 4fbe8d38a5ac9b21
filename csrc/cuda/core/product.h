// A product of matrices:
//
//     out(m, n) = sum over k of A(m, k) * B(k, n)
//
// A block computes a tile of out.  Slices of A and B pass through shared memory in a ring of `stages`
// places: while one is multiplied, the copies of the next ones are under way.  The sums are in registers:
// of tensor cores (tensor_sums.h), which round float to TF32, multiply bfloat16 exactly and sum in float,
// or of ordinary multiply-adds (thread_sums.h).
//
// A and B need not be matrices in memory.  Each is an operand, as tiles.h explains.  An Output says where
// the sums go:
//   row(m)                     where row m begins
//   column<V>(group, n, count) what the first `count` of the V sums from n on need beside that
//   put(group, row, n, column, sums, count)   stores the first `count` of the sums from n on
//   Stored                     the type of what is stored; for bfloat16 also value(column, sums), and
//                              at(group, row, n), the address
//   doubts                     whether a result that is not finite may be wrong.  If so,
//   put_again(group, row, m, n)   looks at it, and computes it in another way
#pragma once

#include "shapes.h"

namespace minicnn::cuda {

// ---- the kernels -------------------------------------------------------------------------------------

// Multiplies the block's tile.
template <typename Shape, typename A, typename B>
class Block {
    using T = typename Shape::T;
    using TileA = typename Shape::template Tile<A, Shape::BM>;
    using TileB = typename Shape::template Tile<B, Shape::BN>;
    static constexpr int stages = Shape::stages, stage = TileA::elements + TileB::elements;

  public:
    static constexpr int shared_bytes = stages * stage * int(sizeof(T));
    using Sums = typename Shape::template Sums<A, B>;
    Sums sums;

    __device__ __forceinline__ void multiply(const A& a, const B& b, const ProductSize& s, T* shared,
                                             std::int64_t first_row, int first_column, int split) {
        const std::int64_t first_k = split * s.split_depth, last_k = smaller(first_k + s.split_depth, s.K);
        Loader<TileA, Shape::threads> load_a(a, first_row, smaller(first_row + s.tile_rows, s.M), first_k,
                                             last_k);
        Loader<TileB, Shape::threads> load_b(b, first_column, s.N, first_k, last_k);
        const int slices = int((last_k - first_k + TileA::depth - 1) / TileA::depth);
#pragma unroll
        for (int i = 0; i < stages - 1; ++i) {
            if (i < slices) {
                load_a.copy(shared + i * stage);
                load_b.copy(shared + i * stage + TileA::elements);
            }
            __pipeline_commit();
        }
        T* read = shared;
        for (int left = slices; left > 0; --left) {
            __pipeline_wait_prior(stages - 2);
            __syncthreads();  // the slice to read has come, and all have read the one that is overwritten
            if (left >= stages) {
                T* const write = (read == shared ? shared + stages * stage : read) - stage;
                load_a.copy(write);
                load_b.copy(write + TileA::elements);
            }
            __pipeline_commit();
            sums.add_slice(read, read + TileA::elements);
            read += stage;
            if (read == shared + stages * stage) read = shared;
        }
        __pipeline_wait_prior(0);
    }
};

// Stores a row of the lane's sums as bfloat16, those at n >= N not.  Four lanes have 8 neighbouring sums,
// two each.  They exchange those of four fragments, so that each lane stores 8 neighbours, 16 bytes, at
// once.
template <typename Output, typename Row, typename Column, typename Sums, int across>
__device__ __forceinline__ void store_row(const Output& out, int group, const Row& row,
                                          const Column (&columns)[across], const Sums& sums, int i,
                                          int first_column, int N) {
    const int lane = int(threadIdx.x) % 4;
#pragma unroll
    for (int j = 0; j < across; j += 4) {
        unsigned words[4];
#pragma unroll
        for (int q = 0; q < 4; ++q)
            words[q] = two_bfloat16(out.value(columns[j + q], sums.values(i, j + q)));
        transpose_lanes(words);
        Vector<bfloat16, 8> values;
#pragma unroll
        for (int q = 0; q < 8; ++q) values.v[q] = {std::uint16_t(words[q / 2] >> (q % 2 * 16))};
        const int n = first_column + Sums::column(j + lane) - 2 * lane;  // where that fragment begins
        if (n < N) store_some(out.at(group, row, n), values, N - n);
    }
}

// Stores the sums in `out`, or, if `parts` is not nullptr, as parts: (splits, groups, M, N).
template <typename Shape, typename A, typename B, typename Output>
__global__ void __launch_bounds__(Shape::threads, Shape::resident)
    product_kernel(A a, B b, Output out, Sum<typename Shape::T>* parts, ProductSize s) {
    using Sums = typename Block<Shape, A, B>::Sums;
    using Values = decltype(Sums().values(0, 0));
    constexpr int V = int(sizeof(Values) / sizeof(Sum<typename Shape::T>));
    MINICNN_DYNAMIC_SHARED(typename Shape::T, shared);
    const int group = int(blockIdx.z) / s.splits, split = int(blockIdx.z) % s.splits;
    const std::int64_t first_row = std::int64_t(blockIdx.x) * Shape::BM;
    const int first_column = int(blockIdx.y) * Shape::BN;
    a.select(group);
    b.select(group);
    Block<Shape, A, B> block;
    block.multiply(a, b, s, shared, first_row, first_column, split);
    const Sums& sums = block.sums;
    decltype(out.template column<V>(0, 0, 0)) columns[Sums::across];
#pragma unroll
    for (int j = 0; j < Sums::across; ++j) {
        const int n = first_column + Sums::column(j);
        columns[j] = out.template column<V>(group, n, s.N - n);
    }
    std::uint64_t doubtful = 0;  // a bit for each group of sums that put_again() must look at
#pragma unroll
    for (int i = 0; i < Sums::rows; ++i) {
        const std::int64_t m = first_row + Sums::row(i);
        const bool in = m < s.M;
        if (parts) {
            auto* const to = parts + ((std::int64_t(split) * s.groups + group) * s.M + m) * s.N;
#pragma unroll
            for (int j = 0; j < Sums::across; ++j) {
                const int n = first_column + Sums::column(j);
                store_some(to + n, sums.values(i, j), in ? s.N - n : 0);
            }
            continue;
        }
        const auto at = in ? out.row(m) : 0;
        if constexpr (std::is_same_v<typename Output::Stored, bfloat16>) {
            store_row(out, group, at, columns, sums, i, first_column, in ? s.N : 0);
        } else {
#pragma unroll
            for (int j = 0; j < Sums::across; ++j) {
                const int n = first_column + Sums::column(j);
                const auto values = sums.values(i, j);
                if (in && n < s.N) out.put(group, at, n, columns[j], values, s.N - n);
            }
        }
        if constexpr (Output::doubts) {
#pragma unroll
            for (int j = 0; j < Sums::across; ++j) {
                const auto values = sums.values(i, j);
                bool finite = true;
#pragma unroll
                for (int q = 0; q < V; ++q) finite = finite && is_finite(values.v[q]);
                if (in && !finite) doubtful |= std::uint64_t{1} << (i * Sums::across + j);
            }
        }
    }
    if constexpr (Output::doubts) {
        __syncwarp();  // a lane may look at what another one has stored
        for (int place = 0; doubtful; ++place, doubtful >>= 1) {
            if (!(doubtful & 1)) continue;
            const int n = first_column + Sums::column(place % Sums::across);
            const std::int64_t m = first_row + Sums::row(place / Sums::across);
            for (int q = 0; q < V && n + q < s.N; ++q) out.put_again(group, out.row(m), m, n + q);
        }
    }
}

// Adds up the parts of each sum in order, and stores the sums in `out`.
template <typename T, typename Output>
struct AddParts {
    const T* parts;
    Output out;
    std::int64_t M, every;
    int N, splits;
    template <int V>
    __device__ void at(std::int64_t i) const {
        Vector<T, V> sum = load<V>(parts + i);
        for (int split = 1; split < splits; ++split) {
            const auto part = load<V>(parts + split * every + i);
#pragma unroll
            for (int q = 0; q < V; ++q) sum.v[q] += part.v[q];
        }
        const std::int64_t line = divide(i, N), group = divide(line, M), m = line - group * M;
        const int n = int(i - line * N);
        const auto row = out.row(m);
        out.put(int(group), row, n, out.template column<V>(int(group), n, V), sum, V);
        if constexpr (Output::doubts) {
#pragma unroll
            for (int q = 0; q < V; ++q) {
                if (!is_finite(sum.v[q])) out.put_again(int(group), row, m, n + q);
            }
        }
    }
};

// The same where there are many parts, which several threads share.
template <typename T>
struct Part {
    T value;
    __device__ void merge(const Part& other) { value += other.value; }
};
template <typename T, typename Output>
struct StorePart {
    Output out;
    std::int64_t M;
    int N;
    __device__ void operator()(int i, const Part<T>& sum) const {
        const std::int64_t line = i / N, group = divide(line, M), m = line - group * M;
        const int n = i % N;
        const auto row = out.row(m);
        out.put(int(group), row, n, out.template column<1>(int(group), n, 1), Vector<T, 1>{sum.value}, 1);
        if constexpr (Output::doubts) {
            if (!is_finite(sum.value)) out.put_again(int(group), row, m, n);
        }
    }
};

template <typename T, typename Output>
void add_parts(T* parts, const Output& out, const ProductSize& s, std::int64_t size) {
    if (s.splits > 128) {
        const Chunks<Part<T>> chunks{reinterpret_cast<Part<T>*>(parts), size};
        add_chunks(chunks, StorePart<T, Output>{out, s.M, s.N}, s.splits);
    } else {
        const AddParts<T, Output> sums{parts, out, s.M, size, s.N, s.splits};
        for_each<T>(sums, size, s.N % full_width<T> == 0);
    }
}

template <typename Shape, typename A, typename B, typename Output>
void launch_product(const A& a, const B& b, const Output& out, ProductSize s, int splits) {
    using T = Sum<typename Shape::T>;
    constexpr int depth = slice_depth<typename Shape::T>;
    s.tile_rows = Shape::BM;
    s.split_depth = larger<std::int64_t>(ceil_div(ceil_div(s.K, splits), depth), 1) * depth;
    narrow(s.split_depth, "the depth of a product", 30);
    s.splits = int(larger<std::int64_t>(ceil_div(s.K, s.split_depth), 1));
    const std::int64_t size = s.groups * s.M * s.N;
    const Scratch<T> parts(s.splits > 1 ? s.splits * size : 0);
    const dim3 grid(unsigned(narrow(ceil_div(s.M, Shape::BM), "tiles of a product")),
                    unsigned(ceil_div(s.N, Shape::BN)), unsigned(s.groups * s.splits));
    launch(product_kernel<Shape, A, B, Output>, grid, Shape::threads, Block<Shape, A, B>::shared_bytes,
           current_stream(), a, b, out, s.splits > 1 ? parts.get() : nullptr, s);
    if (s.splits > 1) add_parts(parts.get(), out, s, size);
}

// The whole product.
template <typename Tiles, typename A, typename B, typename Output>
void product(const A& a, const B& b, const Output& out, const ProductSize& s) {
    if (s.M == 0 || s.N == 0) return;
    with_shape<Tiles, typename A::Element>(s, true, [&](auto choice, int splits) {
        launch_product<typename decltype(choice)::type>(a, b, out, s, splits);
    });
}

}  // namespace minicnn::cuda
