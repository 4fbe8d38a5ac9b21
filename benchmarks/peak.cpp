// Measures one of the machine's two peaks.
//
//     peak fma THREADS     GFLOP/s of float32 multiply-adds: independent sums that stay in registers
//     peak copy THREADS    GB/s, read and written, when arrays far larger than the caches are copied
//
// Prints the best of several tries.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
typedef float Vector __attribute__((vector_size(lanes * sizeof(float))));

constexpr int chains = 12, tries = 7;
constexpr long rounds = 2'000'000;
constexpr std::size_t megabytes = 256;  // each of source and copy, for each thread

static float multiply_add() {
    Vector sums[chains] = {};
    Vector factor = sums[0] + 0.999999f, term = sums[0] + 1e-6f;
    // The compiler must not see that the chains are equal, or it would merge them into one.
    asm volatile("" : "+m"(factor), "+m"(term));
    for (Vector& sum : sums) asm volatile("" : "+m"(sum));
    for (long i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
        for (int k = 0; k < chains; ++k) sums[k] = sums[k] * factor + term;
    }
    float total = 0;
    for (const Vector& v : sums) total += v[0];
    return total;
}

// The shortest time in seconds in which `threads` threads run work(thread) side by side.
static double best_seconds(int threads, const std::function<void(int)>& work) {
    double best = 1e30;
    for (int i = 0; i < tries; ++i) {
        const auto start = std::chrono::steady_clock::now();
        std::vector<std::thread> pool;
        for (int t = 0; t < threads; ++t) pool.emplace_back(work, t);
        for (std::thread& thread : pool) thread.join();
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::min(best, seconds.count());
    }
    return best;
}

int main(int count, char** arguments) {
    if (count != 3) return 1;
    const int threads = std::atoi(arguments[2]);
    if (arguments[1] == std::string("fma")) {
        std::vector<float> results(threads);
        const double seconds = best_seconds(threads, [&](int t) { results[t] = multiply_add(); });
        for (const float& r : results) asm volatile("" ::"m"(r));
        std::printf("%.1f\n", 2.0 * lanes * chains * rounds * threads / seconds / 1e9);
    } else {
        const std::size_t bytes = megabytes << 20;
        std::vector<std::vector<char>> from(threads), to(threads);
        for (int t = 0; t < threads; ++t) from[t].assign(bytes, 1), to[t].assign(bytes, 0);
        const double seconds =
            best_seconds(threads, [&](int t) { std::memcpy(to[t].data(), from[t].data(), bytes); });
        std::printf("%.1f\n", 2.0 * static_cast<double>(bytes) * threads / seconds / 1e9);
    }
}
