// A job lives as long as the call of run_with_helpers.  It is offered to each helper in that helper's own
// place; the helper takes it from there, or the caller takes it back.  Either happens once, so the caller
// knows for which helpers it has to wait.
#include "helpers.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "parallel.h"

namespace minicnn {
namespace {

using Clock = std::chrono::steady_clock;

// So long a helper waits actively before it sleeps, and a caller for its helpers.  It is longer than what
// Python does between two operations, and waking takes about as long.
constexpr std::chrono::microseconds patience{100};
constexpr int most_helpers = 63;

void relax() {
#if defined(__SSE2__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits actively; whether `done` held before patience ended.  Whoever else wants this processor gets it: it
// may be the very thread that is waited for.
template <typename F>
bool wait_actively(const F& done) {
    const auto end = Clock::now() + patience;
    do {
        for (int i = 0; i < 16; ++i) {
            if (done()) return true;
            relax();
        }
        std::this_thread::yield();
    } while (Clock::now() < end);
    return done();
}

struct Job {
    void (*body)(void*, int);
    void* context;
    std::atomic<int> open{0};  // offers that are neither done nor taken back
    std::atomic<bool> failed{false};
    std::exception_ptr error{};

    void run(int i) {
        try {
            body(context, i);
        } catch (...) {
            if (!failed.exchange(true)) error = std::current_exception();
        }
    }
};

Job taken{nullptr, nullptr};  // stands where a helper's place is not free, and has no offer

// Whether this thread is within a body.
thread_local bool computing = false;

class Helpers {
  public:
    // So many helpers, or fewer where the system gives no more threads.
    int grow(int wanted) {
        wanted = std::min(wanted, most_helpers);
        if (size_.load(std::memory_order_acquire) >= wanted) return wanted;
        const std::lock_guard<std::mutex> lock(mutex_);
        try {
            for (int i = size_; i < wanted; ++i) {
                all_[index(i)] = std::make_unique<Helper>();
                std::thread([this, i] { work(*all_[index(i)]); }).detach();
                size_.store(i + 1, std::memory_order_release);
            }
        } catch (const std::system_error&) {
        }
        return std::min(wanted, size_.load());
    }

    void run(Job& job, int count) {
        const int known = grow(std::max(count, num_threads()) - 1);
        std::array<Helper*, most_helpers> asked;
        int number = 0;
        bool sleeping = false;
        for (int i = 0; i < known && number < count - 1; ++i) {
            Helper& helper = *all_[index(i)];
            if (!offer(helper, job, number + 1)) continue;
            asked[index(number++)] = &helper;
            sleeping |= helper.asleep.load();
        }
        if (sleeping) wake();
        computing = true;
        job.run(0);
        computing = false;
        for (int i = 0; i < number; ++i) take_back(*asked[index(i)], job);
        const auto done = [&] { return job.open.load() == 0; };
        if (wait_actively(done)) return;
        // Nobody computes here, so that a helper that the system has interrupted can have this processor.
        std::unique_lock<std::mutex> lock(mutex_);
        ++waiting_;
        finished_.wait(lock, done);
        --waiting_;
    }

    void rouse(int count) {
        const int known = grow(count - 1);
        bool sleeping = false;
        for (int i = 0; i < known; ++i) sleeping |= all_[index(i)]->asleep.load();
        if (!sleeping) return;
        ++roused_;
        wake();
    }

    bool sleeps(int i) const { return all_[index(i)]->asleep; }

  private:
    struct alignas(64) Helper {
        std::atomic<Job*> place{nullptr};
        int i = 0;  // of the job in its place
        std::atomic<bool> asleep{false};
    };

    static std::size_t index(int i) { return static_cast<std::size_t>(i); }

    static bool has_offer(const Helper& helper) {
        const Job* job = helper.place.load();
        return job != nullptr && job != &taken;
    }

    static bool offer(Helper& helper, Job& job, int i) {
        Job* free = nullptr;
        if (!helper.place.compare_exchange_strong(free, &taken)) return false;
        helper.i = i;
        ++job.open;
        helper.place.store(&job);
        return true;
    }

    static void take_back(Helper& helper, Job& job) {
        Job* offered = &job;
        if (helper.place.compare_exchange_strong(offered, nullptr)) --job.open;
    }

    [[noreturn]] void work(Helper& helper) {
        computing = true;  // bodies call kernels, which then take no other thread
        for (;;) {
            await_offer(helper);
            Job* job = helper.place.load();
            // The offer may have been taken back since, and the place may be another caller's by now.
            if (job == nullptr || job == &taken) continue;
            if (!helper.place.compare_exchange_strong(job, &taken)) continue;
            job->run(helper.i);
            helper.place.store(nullptr);
            // The job is gone as soon as the last offer is closed.
            if (--job->open == 0 && waiting_.load() > 0) {
                {
                    const std::lock_guard<std::mutex> lock(mutex_);
                }
                finished_.notify_all();
            }
        }
    }

    void await_offer(Helper& helper) {
        const auto offered = [&] { return has_offer(helper); };
        while (!wait_actively(offered)) {
            std::unique_lock<std::mutex> lock(mutex_);
            helper.asleep = true;
            wanted_.wait(lock, [&, before = roused_.load()] { return offered() || roused_ != before; });
            helper.asleep = false;
        }
    }

    void wake() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
        }
        wanted_.notify_all();
    }

    std::array<std::unique_ptr<Helper>, most_helpers> all_;
    std::atomic<int> size_{0}, waiting_{0}, roused_{0};
    std::mutex mutex_;
    std::condition_variable wanted_, finished_;
};

std::atomic<Helpers*> present{nullptr};

// They live until the process ends.  A forked process has none of its parent's threads, and makes new ones.
Helpers& helpers() {
    static const bool made = [] {
        present = new Helpers;
        pthread_atfork(nullptr, nullptr, [] { present = new Helpers; });
        return true;
    }();
    static_cast<void>(made);
    return *present;
}

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

// A low one of the values: what else the machine does makes some of them larger.
double low(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 5];
}

}  // namespace

void run_with_helpers(int count, void (*body)(void*, int), void* context) {
    if (count < 2 || computing) return body(context, 0);
    Job job{body, context};
    helpers().run(job, count);
    if (job.error) std::rethrow_exception(job.error);
}

void rouse_helpers(int count) {
    if (count > 1 && !computing) helpers().rouse(count);
}

Waking measure_waking() {
    constexpr int rounds = 25;
    static constexpr std::chrono::milliseconds most{2};
    struct Times {
        Clock::time_point own;
        std::atomic<Clock::rep> helper{0};
    };
    std::vector<double> call, delay;
    for (int round = 0; round < rounds && helpers().grow(1) > 0; ++round) {
        for (int i = 0; i < 50 && !helpers().sleeps(0); ++i) std::this_thread::sleep_for(patience);
        Times times;
        const auto start = Clock::now();
        const auto note = [](void* context, int i) {
            Times& t = *static_cast<Times*>(context);
            if (i > 0) {
                t.helper = Clock::now().time_since_epoch().count();
                return;
            }
            t.own = Clock::now();
            while (t.helper == 0 && Clock::now() < t.own + most) relax();
        };
        run_with_helpers(2, note, &times);
        const Clock::duration came{times.helper.load()};
        call.push_back(seconds(times.own - start));
        delay.push_back(times.helper == 0 ? seconds(most) : seconds(came - start.time_since_epoch()));
    }
    if (call.empty()) return {1, 1};
    return {low(call), low(delay)};
}

}  // namespace minicnn
