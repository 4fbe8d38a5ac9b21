// A product of matrices by tensor cores: float operands are rounded to TF32, which has 10 bits of mantissa,
// bfloat16 ones are multiplied exactly, and the sums are float.
//
//     out(m, n) = sum over k of A(m, k) * B(k, n)
//
// A block computes a tile of out, each of its warps a part of it.  Slices of A and B pass through shared
// memory in a ring of `stages` places: while one is multiplied, the copies of the next ones are under way.
//
// An Output says where the sums go:
//   Row row(m)                      where row m begins
//   Column column(group, n, count)  what the first `count` of the sums at n and n + 1 need beside that
//   put(group, row, n, column, v, count)   stores the first `count` of the sums at n and n + 1
//   Stored                          the type of what is stored; for bfloat16 also value(column, v), two
//   numbers,
//                                   and at(group, row, n), the address
//   doubts                          whether a result that is not finite may be wrong; put_again(group, row,
//   m,
//                                   n) then looks at it, and computes it in another way
#pragma once

#include <cmath>
#include <iterator>
#include <tuple>

#include "parts.h"
#include "tensor_tiles.h"

namespace minicnn::cuda {

// ---- configurations ----------------------------------------------------------------------------------

// A tile of BM x BN, of which each warp computes HM x HN, and how many blocks share a multiprocessor.
template <typename T_, int BM_, int BN_, int HM_, int HN_, int blocks_>
struct TensorShape {
    using T = T_;
    static constexpr int BM = BM_, BN = BN_, HM = HM_, HN = HN_, blocks = blocks_, stages = 4;
    static constexpr int threads = BM / HM * (BN / HN) * warp_lanes;
};

template <typename T>
using Large = TensorShape<T, 128, 128, 64, sizeof(T) == 2 ? 32 : 64, 2>;
template <typename T>
using Small = TensorShape<T, 64, 64, 32, 32, 4>;

// Those for a product with many rows, and those for one with many columns.
template <typename T>
using ShapesOfRows =
    std::tuple<Large<T>, TensorShape<T, 128, 64, 64, 32, 3>, Small<T>, TensorShape<T, 128, 32, 32, 32, 4>>;
template <typename T>
using ShapesOfColumns = std::tuple<Large<T>, TensorShape<T, 64, 128, 64, 32, 3>, Small<T>>;

constexpr int multiprocessors = 132;  // of the GPU that the choice below is made for

// What a product costs in a configuration, in microseconds on paper.  `rate` is the share of the tensor
// cores' rate that one block on a multiprocessor reaches; `blocks` of them reach all that there is to
// reach.
struct Plan {
    int splits;
    double cost;
};

template <typename Shape>
Plan plan(const GemmSize& s, int most_splits) {
    using T = typename Shape::T;
    constexpr double peak =
        sizeof(T) == 2 ? 3.5e6 : 1.75e6;        // multiply-adds a microsecond and multiprocessor
    constexpr double copied = 45e3;             // bytes a microsecond and multiprocessor
    constexpr double begun = 2.0, added = 3.0;  // microseconds: of a block, of a second kernel
    constexpr double summed = 1.5e6;            // floats of parts a microsecond
    const double tiles = double(ceil_div(s.M, Shape::BM) * ceil_div(s.N, Shape::BN) * s.groups);
    const std::int64_t slices = larger<std::int64_t>(ceil_div(s.K, slice_depth<T>), 1);
    constexpr double products = double(Shape::BM) * Shape::BN * slice_depth<T> / peak;
    constexpr double bytes = double(Shape::BM + Shape::BN) * slice_bytes / copied;
    constexpr double of_slice = products + bytes / 2;
    Plan best{1, 0};
    for (int splits = 1; splits <= most_splits && (splits == 1 || slices / splits >= 4); ++splits) {
        const double turns = std::ceil(tiles * splits / multiprocessors);
        const double beside = std::min(turns, double(Shape::blocks));
        // One block alone waits for its copies and barriers; others beside it use the time.
        const double share = (beside + 1) / (Shape::blocks + 1);
        double cost = turns * (double(ceil_div(slices, splits)) * of_slice / share + begun / beside);
        if (splits > 1) cost += added + double(s.M) * s.N * s.groups * (splits + 1) / summed;
        if (splits == 1 || cost < best.cost) best = {splits, cost};
    }
    return best;
}

// ---- the kernels -------------------------------------------------------------------------------------

// Multiplies the block's tile.
template <typename Shape, typename A, typename B>
class TensorBlock {
    using T = typename Shape::T;
    using TileA = TensorTile<A, Shape::BM>;
    using TileB = TensorTile<B, Shape::BN>;
    static constexpr int stages = Shape::stages, stage = TileA::elements + TileB::elements;

  public:
    static constexpr int shared_bytes = stages * stage * int(sizeof(T));
    using Sums = WarpSums<T, Shape::HM, Shape::HN>;
    Sums sums;

    // The warp's first row and column in the tile.
    __device__ static int row() {
        return int(threadIdx.x) / warp_lanes % (Shape::BM / Shape::HM) * Shape::HM;
    }
    __device__ static int column() {
        return int(threadIdx.x) / warp_lanes / (Shape::BM / Shape::HM) * Shape::HN;
    }

    // Afterwards shared memory may be used again.
    __device__ __forceinline__ void multiply(const A& a, const B& b, const GemmSize& s, T* shared,
                                             std::int64_t first_row, int first_column, int split) {
        const std::int64_t first_k = split * s.split_depth, last_k = smaller(first_k + s.split_depth, s.K);
        TensorLoader<A, Shape::BM, Shape::threads> load_a(
            a, first_row, smaller(first_row + s.tile_rows, s.M), first_k, last_k);
        TensorLoader<B, Shape::BN, Shape::threads> load_b(b, first_column, s.N, first_k, last_k);
        const int slices = int((last_k - first_k + TileA::depth - 1) / TileA::depth);
#pragma unroll
        for (int i = 0; i < stages - 1; ++i) {
            if (i < slices) {
                load_a.copy(shared + i * stage);
                load_b.copy(shared + i * stage + TileA::elements);
            }
            __pipeline_commit();
        }
        T *read = shared, *write = shared + (stages - 1) * stage;
        for (int i = 0; i < slices; ++i) {
            __pipeline_wait_prior(stages - 2);
            __syncthreads();  // the slice to read has come, and all have read the one that is overwritten
            if (i + stages - 1 < slices) {
                load_a.copy(write);
                load_b.copy(write + TileA::elements);
            }
            __pipeline_commit();
            sums.template add_slice<A, B, Shape::BM, Shape::BN>(read, read + TileA::elements, row(),
                                                                column());
            write = read;
            read = read + stage == shared + stages * stage ? shared : read + stage;
        }
        __pipeline_wait_prior(0);
    }
};

// Stores a row of the lane's sums as bfloat16, those at n >= N not.  Four lanes have 8 neighbouring sums,
// two each.  They exchange those of four fragments, so that each lane stores 8 neighbours, 16 bytes, at
// once.
template <typename Output, typename Row, typename Sums, int across>
__device__ __forceinline__ void store_row(const Output& out, int group, const Row& row,
                                          const typename Output::Column (&columns)[across],
                                          const Sums& sums, int i, int first_column, int N) {
    const int lane = int(threadIdx.x) % 4;
#pragma unroll
    for (int j = 0; j < across; j += 4) {
        Vector<unsigned, 4> words;
#pragma unroll
        for (int q = 0; q < 4; ++q)
            words.v[q] = two_bfloat16(out.value(columns[j + q], sums.pair(i, j + q)));
#pragma unroll
        for (int step = 1; step < 4; step *= 2) {
            const bool upper = lane & step;
#pragma unroll
            for (int q = 0; q < 4; ++q) {
                if (q & step) continue;
                unsigned &low = words.v[q], &high = words.v[q + step];
                const unsigned other = __shfl_xor_sync(whole_warp, upper ? low : high, step);
                (upper ? low : high) = other;
            }
        }
        Vector<bfloat16, 8> values;
#pragma unroll
        for (int q = 0; q < 8; ++q) values.v[q] = {std::uint16_t(words.v[q / 2] >> (q % 2 * 16))};
        const int n = first_column + (j + lane) * 8;
        if (n < N) store_some(out.at(group, row, n), values, N - n);
    }
}

// Stores the sums in `out`, or, if `parts` is not nullptr, as parts: (splits, groups, M, N).
template <typename Shape, typename A, typename B, typename Output>
__global__ void __launch_bounds__(Shape::threads, Shape::blocks)
    tensor_kernel(A a, B b, Output out, float* parts, GemmSize s) {
    using Block = TensorBlock<Shape, A, B>;
    using Sums = typename Block::Sums;
    MINICNN_DYNAMIC_SHARED(typename Shape::T, shared);
    const int group = int(blockIdx.z) / s.splits, split = int(blockIdx.z) % s.splits;
    const std::int64_t first_row = std::int64_t(blockIdx.x) * Shape::BM;
    const int first_column = int(blockIdx.y) * Shape::BN;
    a.select(group);
    b.select(group);
    Block block;
    block.multiply(a, b, s, shared, first_row, first_column, split);
    const std::int64_t row = first_row + block.row();
    const int column = first_column + block.column();
    typename Output::Column columns[Sums::across];
#pragma unroll
    for (int j = 0; j < Sums::across; ++j) {
        const int n = column + Sums::column(j);
        columns[j] = out.column(group, n, s.N - n);
    }
    std::uint64_t doubtful = 0;  // a bit for each pair of the thread's sums that put_again() must look at
#pragma unroll
    for (int i = 0; i < 2 * Sums::down; ++i) {
        const std::int64_t m = row + Sums::row(i / 2, i % 2);
        const bool in = m < s.M;
        if (parts) {
            float* const to = parts + ((std::int64_t(split) * s.groups + group) * s.M + m) * s.N;
#pragma unroll
            for (int j = 0; j < Sums::across; ++j) {
                const int n = column + Sums::column(j);
                store_some(to + n, block.sums.pair(i, j), in ? s.N - n : 0);
            }
            continue;
        }
        const auto at = in ? out.row(m) : 0;
        if constexpr (std::is_same_v<typename Output::Stored, bfloat16>) {
            store_row(out, group, at, columns, block.sums, i, column, in ? s.N : 0);
        } else {
#pragma unroll
            for (int j = 0; j < Sums::across; ++j) {
                const int n = column + Sums::column(j);
                if (in && n < s.N) out.put(group, at, n, columns[j], block.sums.pair(i, j), s.N - n);
            }
        }
        if constexpr (Output::doubts) {
#pragma unroll
            for (int j = 0; j < Sums::across; ++j) {
                const auto pair = block.sums.pair(i, j);
                if (in && !(is_finite(pair.v[0]) && is_finite(pair.v[1])))
                    doubtful |= std::uint64_t{1} << (i * Sums::across + j);
            }
        }
    }
    if constexpr (Output::doubts) {
        __syncwarp();  // a lane may look at what another one has stored
        for (int pair = 0; doubtful; ++pair, doubtful >>= 1) {
            if (!(doubtful & 1)) continue;
            const int i = pair / Sums::across, n = column + Sums::column(pair % Sums::across);
            const std::int64_t m = row + Sums::row(i / 2, i % 2);
            for (int q = 0; q < 2 && n + q < s.N; ++q) out.put_again(group, out.row(m), m, n + q);
        }
    }
}

// Adds up the parts of each sum in order, and stores the sums in `out`.
template <typename Output>
struct AddTensorParts {
    const float* parts;
    Output out;
    std::int64_t M, every;
    int N, splits;
    template <int V>
    __device__ void at(std::int64_t i) const {
        Vector<float, V> sum = load<V>(parts + i);
        for (int split = 1; split < splits; ++split) {
            const auto part = load<V>(parts + split * every + i);
#pragma unroll
            for (int q = 0; q < V; ++q) sum.v[q] += part.v[q];
        }
        const std::int64_t line = divide(i, N), group = divide(line, M), m = line - group * M;
        const int n = int(i - line * N);
        const auto row = out.row(m);
#pragma unroll
        for (int q = 0; q < V; q += 2) {
            const Vector<float, 2> values{sum.v[q], sum.v[V == 1 ? 0 : q + 1]};
            const int count = V == 1 ? 1 : 2;
            out.put(int(group), row, n + q, out.column(int(group), n + q, count), values, count);
            if constexpr (Output::doubts) {
                for (int p = 0; p < smaller(V, 2); ++p) {
                    if (!is_finite(values.v[p])) out.put_again(int(group), row, m, n + q + p);
                }
            }
        }
    }
};

template <typename Shape, typename A, typename B, typename Output>
void launch_tensor(const A& a, const B& b, const Output& out, GemmSize s, int splits) {
    constexpr int depth = slice_depth<typename Shape::T>;
    s.tile_rows = Shape::BM;
    s.split_depth = larger<std::int64_t>(ceil_div(ceil_div(s.K, splits), depth), 1) * depth;
    narrow(s.split_depth, "the depth of a product", 30);
    s.splits = int(larger<std::int64_t>(ceil_div(s.K, s.split_depth), 1));
    const std::int64_t size = s.groups * s.M * s.N;
    const Scratch<float> parts(s.splits > 1 ? s.splits * size : 0);
    const dim3 grid(unsigned(narrow(ceil_div(s.M, Shape::BM), "tiles of a product")),
                    unsigned(ceil_div(s.N, Shape::BN)), unsigned(s.groups * s.splits));
    launch(tensor_kernel<Shape, A, B, Output>, grid, Shape::threads, TensorBlock<Shape, A, B>::shared_bytes,
           current_stream(), a, b, out, s.splits > 1 ? parts.get() : nullptr, s);
    if (s.splits > 1)
        for_each<float>(AddTensorParts<Output>{parts.get(), out, s.M, size, s.N, s.splits}, size,
                        s.N % full_width<float> == 0);
}

// The one place that chooses how a product is computed, from its sizes and the type of its factors alone.
// Calls body(Choice<Shape>(), splits).
template <typename... Shapes, typename Body>
void with_shape(std::tuple<Shapes...>, const GemmSize& s, int most_splits, const Body& body) {
    const Plan plans[] = {plan<Shapes>(s, most_splits)...};
    const auto cheaper = [](const Plan& a, const Plan& b) { return a.cost < b.cost; };
    const auto best = std::min_element(std::begin(plans), std::end(plans), cheaper) - plans;
    int number = 0;
    ((number++ == best ? body(Choice<Shapes>(), plans[best].splits) : void()), ...);
}

// The whole product, in one of these shapes.
template <typename Shapes, typename A, typename B, typename Output>
void tensor_product(const A& a, const B& b, const Output& out, const GemmSize& s) {
    if (s.M == 0 || s.N == 0) return;
    with_shape(Shapes(), s, 128, [&](auto choice, int splits) {
        launch_tensor<typename decltype(choice)::type>(a, b, out, s, splits);
    });
}

}  // namespace minicnn::cuda
