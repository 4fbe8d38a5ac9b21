// What the steps share: the problem, a vector of floats, threads, and the passes over the full map that the
// later steps no longer need.
//
// The problem is one layer of a small network in training: a 3x3 convolution with padding 1 and a bias,
// ReLU, and a 2x2 max-pool that remembers which value of each window won.  Every step computes
//   y       the pooled values, and
//   winner  for each of them the place of the largest value in its window, 0 to 3, counted row by row.
//           The first of equal values wins.  4 means that ReLU is off, so that no gradient flows back.
// H and W are even, C and F are multiples of 32.
#pragma once

#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#ifdef __AVX512F__
constexpr int lanes = 16;
#else
constexpr int lanes = 8;
#endif
typedef float Vec __attribute__((vector_size(lanes * sizeof(float))));
typedef std::int32_t IntVec __attribute__((vector_size(lanes * sizeof(float))));
typedef std::uint8_t ByteVec __attribute__((vector_size(lanes)));

struct Shape {
    int N, C, H, W, F;  // images, channels, height, width, filters
};

inline Vec load(const float* p) {
    Vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline void store_bytes(std::uint8_t* p, IntVec v) {
    const ByteVec bytes = __builtin_convertvector(v, ByteVec);
    std::memcpy(p, &bytes, sizeof bytes);
}

// Calls f(first, last) on each of `threads` threads; together they cover 0 to count.
template <typename F>
void parallel(int threads, int count, const F& f) {
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) {
        others.emplace_back([&f, t, threads, count] { f(count * t / threads, count * (t + 1) / threads); });
    }
    f(0, count / threads);
    for (std::thread& other : others) other.join();
}

// ReLU of the whole map, in place.
inline void relu(float* map, const Shape& s, int threads) {
    const std::int64_t image = std::int64_t(s.H) * s.W * s.F;
    parallel(threads, s.N, [&](int first, int last) {
        for (float* p = map + first * image; p != map + last * image; p += lanes) {
            const Vec v = load(p);
            store(p, v > 0 ? v : Vec{});
        }
    });
}

// Where v is larger than `best`, takes v and its place in the window instead.
inline void keep_larger(Vec& best, IntVec& place, Vec v, int v_place) {
    const IntVec larger = v > best;
    best = larger ? v : best;
    place = larger ? IntVec{} + v_place : place;
}

// Max-pool of a map (N,H,W,F) after ReLU.
inline void max_pool(const float* map, float* y, std::uint8_t* winner, const Shape& s, int threads) {
    parallel(threads, s.N * (s.H / 2), [&](int first, int last) {
        for (int row = first; row < last; ++row) {
            for (int j = 0; j < s.W / 2; ++j) {
                for (int f = 0; f < s.F; f += lanes) {
                    const float* window = map + (std::int64_t(2 * row) * s.W + 2 * j) * s.F + f;
                    Vec best = load(window);
                    IntVec place{};
                    keep_larger(best, place, load(window + s.F), 1);
                    keep_larger(best, place, load(window + s.W * s.F), 2);
                    keep_larger(best, place, load(window + s.W * s.F + s.F), 3);
                    const std::int64_t at = (std::int64_t(row) * (s.W / 2) + j) * s.F + f;
                    store(y + at, best);
                    store_bytes(winner + at, best > 0 ? place : IntVec{} + 4);
                }
            }
        }
    });
}

// A full map.  Its memory is kept from call to call, as a framework's allocator would do.
inline float* full_map(const Shape& s) {
    static std::vector<float> map;
    map.resize(std::size_t(s.N) * s.H * s.W * s.F);
    return map.data();
}
