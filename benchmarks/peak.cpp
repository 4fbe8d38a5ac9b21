// The machine's greatest rate of fused multiply-adds in float32: independent chains held in registers,
// one per thread and core.  Prints GFLOP/s for the number of threads given.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
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

constexpr int chains = 12;
constexpr long rounds = 2'000'000;

static float multiply_add() {
    Vector sums[chains] = {};
    Vector factor = sums[0] + 0.999999f, term = sums[0] + 1e-6f;
    // What the compiler cannot know to be equal it cannot merge into one chain.
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

int main(int, char** arguments) {
    const int threads = std::atoi(arguments[1]);
    double best = 0;
    float sink = 0;
    for (int repeat = 0; repeat < 7; ++repeat) {
        const auto start = std::chrono::steady_clock::now();
        std::vector<std::thread> pool;
        std::vector<float> results(threads);
        for (int t = 0; t < threads; ++t) pool.emplace_back([&results, t] { results[t] = multiply_add(); });
        for (std::thread& thread : pool) thread.join();
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        best = std::max(best, 2.0 * lanes * chains * rounds * threads / seconds.count() / 1e9);
        for (const float r : results) sink += r;
    }
    std::printf("%.1f\n", sink > 0 ? best : 0.0);
}
