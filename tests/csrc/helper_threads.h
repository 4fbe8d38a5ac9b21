// Drives helpers.h: every piece is done once whoever comes, and nobody waits for a helper that others keep.
#pragma once

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "arrays.h"

namespace minicnn {
namespace {

inline void expect(bool holds, const char* what) {
    ++runs;
    if (holds) return;
    std::fprintf(stderr, "helpers: %s\n", what);
    ++failures;
}

// Two callers share the helpers; each counts what was done of its own pieces, again and again.
inline void pieces_of_two_callers() {
    const auto wrong_calls = [] {
        int wrong = 0;
        for (int call = 0; call < 300; ++call) {
            constexpr int64_t size = 50;
            std::vector<int> times(size, 0);
            parallel_for(0, size, 3, [&](int64_t first, int64_t last) {
                for (int64_t i = first; i < last; ++i) ++times[std::size_t(i)];
            });
            wrong += times != std::vector<int>(size, 1);
            if (call % 100 == 99) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // they sleep
        }
        return wrong;
    };
    int theirs = 0;
    std::thread other([&] { theirs = wrong_calls(); });
    const int own = wrong_calls();
    other.join();
    expect(own + theirs == 0, "some piece was not done exactly once");
}

// While one call keeps the only helper, another returns without it.  Waiting for it would never end.
inline void busy_helper_is_not_waited_for() {
    struct Places {
        std::atomic<bool> kept{false}, free{false};
    } places;
    const auto keep = [](void* context, int i) {
        Places& p = *static_cast<Places*>(context);
        if (i > 0) p.kept = true;
        while (!(i > 0 ? p.free : p.kept)) std::this_thread::yield();
    };
    std::thread keeper([&] { run_with_helpers(2, keep, &places); });
    while (!places.kept) std::this_thread::yield();
    std::atomic<int> calls{0};
    run_with_helpers(2, [](void* context, int) { ++*static_cast<std::atomic<int>*>(context); }, &calls);
    expect(calls == 1, "a helper took two jobs at once");
    places.free = true;
    keeper.join();
}

inline void exceptions_come_out() {
    for (const int thrower : {0, 7}) {
        bool caught = false;
        try {
            parallel_for(0, 8, 1, [&](int64_t first, int64_t) {
                if (first == thrower) throw std::runtime_error("wanted");
            });
        } catch (const std::runtime_error&) {
            caught = true;
        }
        expect(caught, "an exception was lost");
    }
}

inline void helper_threads() {
    threads = 2;
    busy_helper_is_not_waited_for();
    exceptions_come_out();
    const Waking waking = measure_waking();
    expect(waking.call > 0 && waking.delay > 0, "waking takes no time");
    threads = 4;
    pieces_of_two_callers();
}

}  // namespace
}  // namespace minicnn
