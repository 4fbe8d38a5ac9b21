// Weighted sums of blocks of memory in registers, with one instantiation for each shape of a block.  A
// block is the memory operand of the multiply-add, and an entry's value is broadcast.
#include "sparse_sum.h"

namespace minicnn {
namespace {

template <int L, int RUNS, int VECTORS, typename T>
void sparse_sum(const Entry<T>* entries, int64_t count, const SparseBlock<T>& block) {
    Vec<T, L> acc[RUNS][VECTORS]{};
    const T* source = block.source;
    const int64_t stride = block.source_stride;
    for (const Entry<T>* end = entries + count; entries != end; ++entries) {
        const T value = entries->value;
        const T* from = source + entries->offset;
        unroll<RUNS>([&](auto r) __attribute__((always_inline)) {
            unroll<VECTORS>([&](auto v) __attribute__((always_inline)) {
                acc[r][v] += load<L>(from + r * stride + v * L) * value;
            });
        });
    }
    // The lanes after the tail belong to others.  Nothing is added there, not even a 0: it could be 0 *
    // infinity.
    using Lane = decltype(Vec<T, L>{} < Vec<T, L>{});
    Lane in_tail{};
    for (int lane = 0; lane < block.tail; ++lane) in_tail[lane] = -1;
    unroll<RUNS>([&](auto r) __attribute__((always_inline)) {
        T* sum = block.sum + r * block.sum_stride;
        unroll<VECTORS>([&](auto v) __attribute__((always_inline)) {
            const auto added = v + 1 < VECTORS ? acc[r][v] : (in_tail ? acc[r][v] : Vec<T, L>{});
            store(sum + v * L, load<L>(sum + v * L) + added);
        });
    });
}

template <typename T>
using KernelsOfRuns = std::array<SparseKernel<T>, sparse_vectors>;

template <typename T, int L, int RUNS, int... V>
constexpr KernelsOfRuns<T> kernels_of_runs(std::integer_sequence<int, V...>) {
    KernelsOfRuns<T> kernels{};
    auto add = [&](auto v) {
        constexpr int vectors = decltype(v)::value + 1;
        if constexpr (RUNS * vectors <= sparse_vectors)
            kernels[vectors - 1] = sparse_sum<L, RUNS, vectors, T>;
    };
    (add(std::integral_constant<int, V>{}), ...);
    return kernels;
}

template <typename T, int L, int... R>
constexpr std::array<KernelsOfRuns<T>, sparse_runs> make_table(std::integer_sequence<int, R...>) {
    return {kernels_of_runs<T, L, R + 1>(std::make_integer_sequence<int, sparse_vectors>{})...};
}

template <typename T, int L>
constexpr auto table = make_table<T, L>(std::make_integer_sequence<int, sparse_runs>{});

}  // namespace

template <typename T>
SparsePieces<T>::SparsePieces(int64_t runs, int64_t length) : length(length) {
    const bool half = vector_bytes >= 32 && length <= lanes<T> / 2;
    lane_count = half ? lanes<T> / 2 : lanes<T>;
    const int64_t vectors = (length + lane_count - 1) / lane_count;
    padded = vectors * lane_count;
    vectors_per_piece = static_cast<int>(std::min<int64_t>(vectors, sparse_vectors));
    runs_per_piece =
        static_cast<int>(std::min<int64_t>({runs, sparse_runs, sparse_vectors / vectors_per_piece}));
}

template <typename T>
SparseKernel<T> SparsePieces<T>::kernel(int64_t runs, int64_t vectors) const {
    if constexpr (vector_bytes >= 32) {
        if (lane_count < lanes<T>) return table<T, lanes<T> / 2>[runs - 1][vectors - 1];
    }
    return table<T, lanes<T>>[runs - 1][vectors - 1];
}

template struct SparsePieces<float>;
template struct SparsePieces<double>;

}  // namespace minicnn
