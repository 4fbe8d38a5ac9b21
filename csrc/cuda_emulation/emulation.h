// Runs a kernel on the CPU: its blocks one after another, and each thread of a block as a fibre.  It
// reports what a GPU would leave undefined:
// - threads that wait at different barriers, or that leave the kernel while others wait at one;
// - shuffles and votes whose mask does not name the lanes that call.
//
// Between two barriers the threads of a block may run in any order.  MINICNN_CUDA_ORDER chooses one:
// forward (the default), reversed, or a number, which seeds a random order.
//
// For ThreadSanitizer each fibre is a thread, and barriers are the only thing that orders them.  Two
// synchronisation objects take turns from barrier to barrier.  With a single one, a thread that has reached
// the next barrier already would seem to be ordered before threads that have not yet left the last one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "counting.h"
#include "fibre.h"
#include "shared_memory.h"

#if defined(__SANITIZE_THREAD__)
// The scheduler and the threads share the scheduler's state without locks, as only one of them runs at a
// time.  These are no races.  What a kernel itself reads and writes is still checked, as its functions have
// other names.
extern "C" inline __attribute__((used, visibility("default"))) const char* __tsan_default_suppressions() {
    return "race_top:emulation::\nrace_top:^std::\n";
}
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

// It is outside the namespace whose races are not reported, because these bytes are the kernel's.
inline void do_asynchronous_copy(void* to, const void* from, std::size_t bytes, std::size_t zeros) {
    for (std::size_t i = 0; i < bytes; ++i) {
        static_cast<char*>(to)[i] = i < bytes - zeros ? static_cast<const char*>(from)[i] : 0;
    }
}

namespace emulation {

constexpr int warp_size = 32;
constexpr int max_threads = 1024;

struct Dim3 {
    unsigned x, y, z;
    constexpr Dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// A copy that cp.async has begun.  It is done at the wait for it, never before.
struct PendingCopy {
    void* to;
    const void* from;
    std::size_t bytes, zeros, batch;
};

enum class State { ready, at_barrier, in_warp, done };

struct Thread {
    Dim3 place;
    int index;
    State state;
    int line;                          // of the source, where it waits
    unsigned barriers, warp_barriers;  // how many it has passed
    unsigned mask, source;
    std::uint64_t value, result;  // of a shuffle; the result of a vote is a bit for each lane that said yes
    std::vector<PendingCopy> copies;
    std::size_t batch;
    std::unique_ptr<Fibre> fibre;
};

class Machine {
  public:
    static Machine& instance() {
        static Machine machine;
        return machine;
    }

    // Runs body() in every thread of the grid.  Returns what went wrong, or "".
    std::string run(Dim3 grid, Dim3 block, std::size_t shared_bytes, const std::function<void()>& body) {
        const std::lock_guard<std::mutex> lock(mutex_);
        count_ = int(block.x * block.y * block.z);
        if (count_ < 1 || count_ > max_threads) return "a block has 1 to 1024 threads";
        if (shared_bytes > 227 * 1024) return "a block has at most 227 KiB of shared memory";
        body_ = &body;
        grid_ = grid;
        block_ = block;
        error_.clear();
        while (int(threads_.size()) < count_) {
            threads_.emplace_back();
            threads_.back().fibre = std::make_unique<Fibre>();
        }
        read_order();
        for (block_place_.z = 0; block_place_.z < grid.z; ++block_place_.z) {
            for (block_place_.y = 0; block_place_.y < grid.y; ++block_place_.y) {
                for (block_place_.x = 0; block_place_.x < grid.x && error_.empty(); ++block_place_.x) {
                    if (runs(block_number(), std::size_t(grid.x) * grid.y * grid.z))
                        run_block(shared_bytes);
                }
            }
        }
        return error_;
    }

    // ---- called by threads -----------------------------------------------------------------------

    const Dim3& thread_place() const { return current_->place; }
    const Dim3& block_place() const { return block_place_; }
    const Dim3& block() const { return block_; }
    const Dim3& grid() const { return grid_; }
    int thread_index() const { return current_->index; }
    const SharedMemory& shared_memory() const { return shared_; }

    // Whether the emulation itself, or a thread's stack, is there.
    bool owns(const void* at) const {
        const auto within = [at](const void* first, std::size_t bytes) {
            return std::uintptr_t(at) - std::uintptr_t(first) < bytes;
        };
        return within(this, sizeof *this) || within(current_, sizeof *current_) ||
               current_->fibre->has_on_stack(at);
    }

    __attribute__((noinline)) void barrier(int line) {
        const NotCounted pause;
        Thread& self = *current_;
        char* sync = &barrier_sync_[self.barriers++ & 1];
        release(sync);
        wait(State::at_barrier, line);
        acquire(sync);
    }

    // Waits until all lanes of `mask` have called it.  Returns the `value` of lane `source`, or the result
    // of a vote.
    __attribute__((noinline)) std::uint64_t exchange(unsigned mask, std::uint64_t value, int source,
                                                     int line) {
        const NotCounted pause;
        Thread& self = *current_;
        self.mask = mask;
        self.value = value;
        self.source = unsigned(source);
        wait(State::in_warp, line);
        return self.result;
    }
    static constexpr int vote = -1;  // as `source`: the result has a bit for each lane whose value is not 0

    __attribute__((noinline)) void warp_barrier(unsigned mask, int line) {
        const NotCounted pause;
        Thread& self = *current_;
        char* sync = &warp_sync_[self.index / warp_size][self.warp_barriers++ & 1];
        release(sync);
        exchange(mask, 0, vote, line);
        acquire(sync);
    }

    __attribute__((noinline)) void copy_later(void* to, const void* from, std::size_t bytes,
                                              std::size_t zeros) {
        const NotCounted pause;
        if (zeros < bytes) count_access(from, bytes - zeros, Access::read, MINICNN_COUNTED_PLACE);
        count_access(to, bytes, Access::write, MINICNN_COUNTED_PLACE);
        current_->copies.push_back({to, from, bytes, zeros, current_->batch});
    }
    void commit_copies() { ++current_->batch; }
    __attribute__((noinline)) void finish_copies(std::size_t batches_left) {
        const NotCounted pause;
        Thread& self = *current_;
        std::size_t done = 0;
        for (const PendingCopy& c : self.copies) {
            if (c.batch + batches_left >= self.batch) break;
            do_asynchronous_copy(c.to, c.from, c.bytes, c.zeros);
            ++done;
        }
        self.copies.erase(self.copies.begin(), self.copies.begin() + std::ptrdiff_t(done));
    }

    // The block's shared array that `key` stands for.  The first thread that asks for it makes it;
    // ThreadSanitizer must not take that for an order between this thread and the others.
    __attribute__((noinline)) void* shared(const void* key, std::size_t bytes) {
        const NotCounted pause;
        const Unseen unseen;
        return shared_.array(key, bytes);
    }
    void* dynamic_shared() { return shared(nullptr, 0); }

  private:
    // While an object of this class exists, ThreadSanitizer ignores what the thread reads, writes and
    // allocates.
    struct Unseen {
#if defined(__SANITIZE_THREAD__)
        Unseen() {
            AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
            AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
        }
        ~Unseen() {
            AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
            AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
        }
        Unseen(const Unseen&) = delete;
#else
        Unseen() {}
        ~Unseen() {}
#endif
    };

    void read_order() {
        const char* order = std::getenv("MINICNN_CUDA_ORDER");
        order_.resize(std::size_t(count_));
        std::iota(order_.begin(), order_.end(), 0);
        random_ = order && *order >= '0' && *order <= '9';
        if (random_) generator_.seed(std::strtoul(order, nullptr, 10));
        if (order && std::strcmp(order, "reversed") == 0) std::reverse(order_.begin(), order_.end());
    }

    void run_block(std::size_t shared_bytes) {
        shared_.renew(shared_bytes);
        for (int i = 0; i < count_; ++i) {
            Thread& t = threads_[std::size_t(i)];
            t.place = Dim3(unsigned(i) % block_.x, unsigned(i) / block_.x % block_.y,
                           unsigned(i) / (block_.x * block_.y));
            t.index = i;
            t.state = State::ready;
            t.barriers = t.warp_barriers = 0;
            t.copies.clear();
            t.batch = 0;
            t.fibre->prepare(&Machine::thread_main);
        }
        release(&start_sync_);
        bool running = true;
        while (running && error_.empty()) {
            if (random_) std::shuffle(order_.begin(), order_.end(), generator_);
            for (const int i : order_) {
                Thread& t = threads_[std::size_t(i)];
                if (t.state != State::ready) continue;
                current_ = &t;
                t.fibre->resume();
                if (!error_.empty()) break;
            }
            running = error_.empty() && wake();
        }
        acquire(&end_sync_);
    }

    static void thread_main() {
        Machine& m = instance();
        acquire(&m.start_sync_);
        (*m.body_)();
        m.current_->state = State::done;
        release(&m.end_sync_);
        Fibre::finish();
    }

    std::size_t block_number() const {
        return block_place_.x +
               std::size_t(grid_.x) * (block_place_.y + std::size_t(grid_.y) * block_place_.z);
    }

    void wait(State state, int line) {
        current_->state = state;
        current_->line = line;
        Fibre::yield();
    }

    // Makes those threads ready that have what they wait for.  Returns false if there are none: all are
    // done, or the kernel is wrong.
    bool wake() {
        bool woke = false;
        for (int first = 0; first < count_; first += warp_size) woke |= wake_warp(first);
        if (woke) return true;
        int waiting = 0, gone = 0, line = 0;
        for (int i = 0; i < count_; ++i) {
            const Thread& t = threads_[std::size_t(i)];
            if (t.state == State::done) {
                ++gone;
            } else if (t.state == State::at_barrier) {
                if (waiting && t.line != line) {
                    report("divergent barriers: lines " + std::to_string(line) + " and " +
                               std::to_string(t.line),
                           t);
                    return false;
                }
                line = t.line;
                ++waiting;
            } else {
                report("lanes of a warp wait for lanes that do not come, line " + std::to_string(t.line),
                       t);
                return false;
            }
        }
        if (waiting == 0) return false;
        if (gone > 0) {
            error_ = std::to_string(gone) + " threads left while others wait at the barrier of line " +
                     std::to_string(line);
            return false;
        }
        for (int i = 0; i < count_; ++i) threads_[std::size_t(i)].state = State::ready;
        return true;
    }

    // Completes those exchanges of a warp for which all lanes of the mask have arrived.
    bool wake_warp(int first) {
        bool woke = false;
        const int lanes = std::min(warp_size, count_ - first);
        Thread* warp = &threads_[std::size_t(first)];
        for (int lane = 0; lane < lanes; ++lane) {
            if (warp[lane].state != State::in_warp) continue;
            const unsigned mask = warp[lane].mask;
            if (!(mask >> lane & 1)) {
                report("bad mask: the calling lane is not in it", warp[lane]);
                return false;
            }
            if (lanes < warp_size && mask >> lanes) {
                report("bad mask: it names lanes that the block does not have", warp[lane]);
                return false;
            }
            bool all = true;
            for (int other = 0; other < lanes && all; ++other) {
                const Thread& t = warp[other];
                const bool beside = t.state == State::in_warp && t.line == warp[lane].line;
                if (beside && t.mask != mask && t.mask & mask) {
                    report("bad mask: the lanes do not agree on it", warp[lane]);
                    return false;
                }
                if (!(mask >> other & 1)) continue;
                if (t.state == State::done) {
                    report("bad mask: it names a lane that has left", warp[lane]);
                    return false;
                }
                all = t.state == State::in_warp && t.line == warp[lane].line;
            }
            if (!all) continue;
            complete(warp, lanes, mask);
            woke = true;
        }
        return woke;
    }

    void complete(Thread* warp, int lanes, unsigned mask) {
        std::uint64_t yes = 0;
        for (int lane = 0; lane < lanes; ++lane) {
            if (mask >> lane & 1 && warp[lane].value) yes |= std::uint64_t{1} << lane;
        }
        for (int lane = 0; lane < lanes; ++lane) {
            Thread& t = warp[lane];
            if (!(mask >> lane & 1)) continue;
            if (t.source == unsigned(vote)) {
                t.result = yes;
            } else if (t.source < unsigned(lanes) && mask >> t.source & 1) {
                t.result = warp[t.source].value;
            } else {
                report("bad shuffle: it reads a lane that is not in the mask", t);
            }
            t.state = State::ready;
        }
    }

    void report(const std::string& what, const Thread& t) {
        if (!error_.empty()) return;
        error_ = what + " (line " + std::to_string(t.line) + ", block " + std::to_string(block_place_.x) +
                 ", thread " + std::to_string(t.index) + ")";
    }

    static void release([[maybe_unused]] void* sync) {
#if defined(__SANITIZE_THREAD__)
        __tsan_release(sync);
#endif
    }
    static void acquire([[maybe_unused]] void* sync) {
#if defined(__SANITIZE_THREAD__)
        __tsan_acquire(sync);
#endif
    }

    std::mutex mutex_;
    std::vector<Thread> threads_;
    std::vector<int> order_;
    std::mt19937 generator_;
    bool random_ = false;
    int count_ = 0;
    Dim3 grid_, block_, block_place_;
    const std::function<void()>* body_ = nullptr;
    Thread* current_ = nullptr;
    SharedMemory shared_;
    std::string error_;
    char barrier_sync_[2], warp_sync_[max_threads / warp_size][2], start_sync_, end_sync_;
};

}  // namespace emulation
