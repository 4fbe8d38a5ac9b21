// Drives plans of sessions: the same bits for any number of threads, and from two callers at once.
#pragma once

#include "../../csrc/cpu/session/nodes.h"
#include "arrays.h"
#include "conv_shapes.h"

namespace minicnn {
namespace {

// Runs one plan from two threads at once, each with arrays of its own.
inline void run_twice(const session::Plan& plan, const float* x, float* first, float* second) {
    std::thread other([&] { plan.run(x, second, 2); });
    plan.run(x, first, 2);
    other.join();
}

template <typename T>
session::FiltersPtr filters_of(Arrays<T>& a, int64_t size, int64_t outputs) {
    return std::make_shared<session::Filters>(a.in(size), size, a.in(outputs), outputs);
}

// A branch with a residual, a pool and a dense layer, so that several values are alive at the same time.
inline void session_plans() {
    const ConvParams wide = params_of({2, 16, 13, 11, 40, 3, 1, 1, 1, 1});
    const ConvParams deep = params_of({2, 40, 13, 11, 40, 3, 1, 1, 1, 1});
    const PoolParams pool = pool_over(13, 11, 2, 2, 0);
    const int64_t features = 40 * pool.OH * pool.OW;
    for (const bool narrow : {false, true}) {
        check<float>(narrow ? "session in bfloat16" : "session", [&](Arrays<float>& a) {
            using namespace session;
            Plan plan({{2, 16, 13, 11}, Type::float32});
            int x = images(plan, 0, {});
            if (narrow) x = cast(plan, x, Type::bfloat16);
            const int left = conv2d(plan, x, -1, filters_of(a, 40 * 9 * 16, 40), wide, true);
            const int right = conv2d(plan, left, left, filters_of(a, 40 * 9 * 40, 40), deep, true);
            const int sum = session::add(plan, right, left, true);
            const int pooled = conv2d_pool(plan, sum, filters_of(a, 40 * 9 * 40, 40), deep, pool, true);
            const int row = flatten(plan, pooled);
            int y = dense(plan, row, filters_of(a, 10 * features, 10), 10, false);
            if (narrow) y = cast(plan, y, Type::float32);
            plan.finish(y);
            plan.choose_threads(2, {0, 0});
            const float* input = a.in(2 * 16 * 13 * 11);
            float *first = a.out(20), *second = a.out(20);
            run_twice(plan, input, first, second);
            if (std::memcmp(first, second, 20 * sizeof(float)) != 0) {
                std::fprintf(stderr, "two callers of one plan got different results\n");
                ++failures;
            }
        });
    }
}

}  // namespace
}  // namespace minicnn
