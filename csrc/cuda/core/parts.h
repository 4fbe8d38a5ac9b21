// The size of a product, and how its sums over k are cut into parts that are added up in order.
#pragma once

#include "elementwise.h"

namespace minicnn::cuda {

constexpr int slice = 16;  // of k

// A type that can be passed as an argument.
template <typename Type>
struct Choice {
    using type = Type;
};

struct GemmSize {
    std::int64_t M, K;
    int N;
    int tile_rows;       // how many rows of out a block computes: those of its tile, or fewer
    int groups, splits;  // independent products, and the parts that each sum over k is cut into
    std::int64_t split_depth;
};

// The Output of a product whose sums are cut into parts: (splits, groups, M, N) in scratch memory.
template <typename T>
struct Parts {
    T* data;
    std::int64_t M;
    int N, groups;
    static constexpr bool doubts = false, contiguous = true;
    __device__ std::int64_t row(std::int64_t m) const { return m * N; }
    __device__ T* at(int group, int split, std::int64_t row, int n) const {
        return data + (std::int64_t(split) * groups + group) * M * N + row + n;
    }
    __device__ T value(int, int, T sum) const { return sum; }
};

// Adds up the parts of each sum in order, and stores the sums in `out`.
template <typename T, typename Output>
struct AddParts {
    const T* parts;
    Output out;
    std::int64_t M;
    int N, groups, splits;
    template <int V>
    __device__ void at(std::int64_t i) const {
        const std::int64_t every = std::int64_t(groups) * M * N;
        T sum = parts[i];
        for (int split = 1; split < splits; ++split) sum += parts[split * every + i];
        const std::int64_t line = divide(i, N), group = divide(line, M), m = line - group * M;
        const std::int64_t row = out.row(m);
        const int n = int(i - line * N);
        const T value = out.value(int(group), n, sum);
        *out.at(int(group), 0, row, n) = value;
        if constexpr (Output::doubts) {
            if (!is_finite(value)) out.put_again(int(group), row, m, n);
        }
    }
};

// How many parts each sum is cut into.  A product with few tiles would leave most of a GPU idle, so it is
// cut until about 256 blocks have work, as long as a part has 8 slices or more.
inline int splits_for(const GemmSize& s, int BM, int BN) {
    const std::int64_t tiles = ceil_div(s.M, BM) * ceil_div(s.N, BN) * s.groups;
    const std::int64_t wanted = 256 / larger<std::int64_t>(tiles, 1), most = s.K / (slice * 8);
    return int(std::clamp<std::int64_t>(smaller(wanted, most), 1, 128));
}

// Calls compute(output), which stores either the sums in `out` or, if they are cut, their parts in scratch
// memory. Then the parts are added up.
template <typename T, typename Output, typename Compute>
void sum_parts(const GemmSize& s, const Output& out, const Compute& compute) {
    if (s.splits == 1) return compute(out);
    const std::int64_t size = s.groups * s.M * s.N;
    const Scratch<T> parts(s.splits * size);
    compute(Parts<T>{parts.get(), s.M, s.N, s.groups});
    for_each<T>(AddParts<T, Output>{parts.get(), out, s.M, s.N, s.groups, s.splits}, size, false);
}

}  // namespace minicnn::cuda
