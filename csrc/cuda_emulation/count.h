// Counts what the memory requests and branches of kernels would cost a GPU.
//
// The compiler reports them.  With -fsanitize=thread it calls a function before every load and store, and
// with -fsanitize-coverage=trace-pc one in every basic block; these functions are at the end of this file,
// and no sanitizer is linked.  Each kernel is compiled as one function, so that the place of a call tells
// one instruction from another.
//
// The lanes of a warp run one after another here.  What a lane does for the k-th time at a place belongs to
// what the other lanes of its warp do there for the k-th time.
#pragma once

#include <dlfcn.h>

#include <array>
#include <cstdio>
#include <deque>
#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "emulation.h"
#include "warp_request.h"

namespace emulation {

// What the lanes of a warp do at one place: entry k is what they do there for the k-th time.  It is handed
// to `finish` when all lanes have come, or at the end of the block.
template <typename Entry>
class Lockstep {
  public:
    template <typename Finish>
    void add(int lane, std::uint32_t warp, const Entry& mine, const Finish& finish) {
        const std::size_t k = seen_[std::size_t(lane)]++ - gone_;
        while (entries_.size() <= k) entries_.emplace_back();
        entries_[k].join(lane, mine);
        while (!entries_.empty() && entries_.front().lanes() == warp) {
            finish(entries_.front());
            entries_.pop_front();
            ++gone_;
        }
    }

    template <typename Finish>
    void end(const Finish& finish) {
        for (const Entry& entry : entries_) finish(entry);
        *this = {};
    }

  private:
    std::deque<Entry> entries_;
    std::array<std::size_t, warp_size> seen_{};
    std::size_t gone_ = 0;
};

struct RequestEntry {
    WarpRequest request;
    std::uint32_t lanes() const { return request.lanes; }
    void join(int lane, const RequestEntry& mine) {
        request.lanes |= 1u << lane;
        request.address[lane] = mine.request.address[0];
        request.bytes = mine.request.bytes;
    }
};

// Where lanes go from a basic block.
struct BranchEntry {
    std::uint32_t came = 0;
    const void* next = nullptr;
    bool parted = false;
    std::uint32_t lanes() const { return came; }
    void join(int lane, const BranchEntry& mine) {
        parted |= came && next != mine.next;
        came |= 1u << lane;
        next = mine.next;
    }
};

constexpr int most_warps = max_threads / warp_size;

// An instruction that loads or stores, and the array that it touches.
struct Place {
    const void* at;
    Access access;
    bool shared;
    std::size_t bytes;  // that a lane asks for
    int array;          // its number, or -1
    std::uint64_t requests = 0, lanes = 0, sectors = 0, least_sectors = 0, turns = 0, conflicts = 0;
    std::array<Lockstep<RequestEntry>, most_warps> open;
};

struct Branch {
    std::uint64_t runs = 0, divergent = 0;  // by warps
    std::array<Lockstep<BranchEntry>, most_warps> open;
};

struct Traffic {
    std::uint64_t in_blocks = 0, in_launches = 0;  // sectors, each once in a block, or in a launch
    std::unordered_set<std::uintptr_t> block, launch;
};

struct KernelCounts {
    std::uint64_t launches = 0, blocks = 0, run = 0;
    std::map<std::array<std::uintptr_t, 4>, Place> places;
    std::unordered_map<const void*, Branch> branches;
    std::map<int, Traffic> arrays;
};

class Counter {
  public:
    static Counter& instance() {
        static Counter counter;
        return counter;
    }

    // Gives an array the name under which its requests are counted.
    void name(const void* array, std::size_t bytes, const std::string& name) {
        arrays_.push_back({std::uintptr_t(array), bytes, name});
    }

    void begin(const void* kernel, std::size_t blocks) {
        kernel_ = &kernels_[kernel];
        ++kernel_->launches;
        kernel_->blocks += blocks;
    }
    void end() {
        end_block();
        for (auto& [number, traffic] : kernel_->arrays) {
            traffic.in_launches += traffic.launch.size();
            traffic.launch.clear();
        }
    }
    void begin_block() {
        end_block();
        ++kernel_->run;
    }

    void access(const void* at, std::size_t bytes, Access access, const void* from) {
        const Machine& machine = Machine::instance();
        const bool shared = machine.shared_memory().holds(at);
        if (!shared && machine.owns(at)) return;
        const int array = shared ? -1 : number_of(at);
        const std::array<std::uintptr_t, 4> key{std::uintptr_t(from), std::uintptr_t(access) * 2 + shared,
                                                bytes, std::uintptr_t(array)};
        auto [found, fresh] = kernel_->places.try_emplace(key);
        Place& place = found->second;
        if (fresh) {
            place.at = from;
            place.access = access;
            place.shared = shared;
            place.bytes = bytes;
            place.array = array;
        }
        RequestEntry mine;
        mine.request.address[0] = std::uintptr_t(at);
        mine.request.bytes = bytes;
        const int thread = machine.thread_index(), warp = thread / warp_size;
        place.open[std::size_t(warp)].add(thread % warp_size, lanes_of(warp), mine,
                                          [&](const RequestEntry& e) { tally(place, e.request); });
    }

    // The thread comes to a basic block.
    void come(const void* block) {
        const int thread = Machine::instance().thread_index(), warp = thread / warp_size;
        const void*& last = last_[std::size_t(thread)];
        if (last) {
            Branch& branch = kernel_->branches[last];
            BranchEntry mine;
            mine.next = block;
            branch.open[std::size_t(warp)].add(thread % warp_size, lanes_of(warp), mine,
                                               [&](const BranchEntry& e) { tally(branch, e); });
        }
        last = block;
    }

    ~Counter() {
        const char* wanted = std::getenv("MINICNN_CUDA_COUNT");
        if (!wanted || !*wanted || kernels_.empty()) return;
        const char* path = std::strcmp(wanted, "1") == 0 ? "cuda-counts.json" : wanted;
        std::FILE* file = std::fopen(path, "w");
        if (!file) {
            std::fprintf(stderr, "[MINICNN_CUDA_COUNT] %s: expected a file that can be written\n", path);
            return;
        }
        write(file);
        std::fclose(file);
        std::fprintf(stderr, "counts of %zu kernels: python scripts/cuda_counts.py --read %s\n",
                     kernels_.size(), path);
    }

  private:
    struct Array {
        std::uintptr_t first;
        std::size_t bytes;
        std::string name;
        bool holds(const void* at) const { return std::uintptr_t(at) - first < bytes; }
    };

    // A bit for each lane that a warp of the block has.
    static std::uint32_t lanes_of(int warp) {
        const Dim3& block = Machine::instance().block();
        const int lanes = std::min(warp_size, int(block.x * block.y * block.z) - warp * warp_size);
        return lanes == warp_size ? ~0u : (1u << lanes) - 1;
    }

    // The latest array that holds the address: memory may have been given out again.
    int number_of(const void* at) const {
        for (int i = int(arrays_.size()) - 1; i >= 0; --i) {
            if (arrays_[std::size_t(i)].holds(at)) return i;
        }
        return -1;
    }

    void tally(Place& place, const WarpRequest& request) {
        ++place.requests;
        place.lanes += std::uint64_t(__builtin_popcount(request.lanes));
        const WarpRequest::Turns turns = request.turns();
        place.turns += std::uint64_t(turns.all);
        if (place.shared) {
            place.conflicts += std::uint64_t(turns.conflicts);
            return;
        }
        const auto sectors = request.touched(sector_bytes);
        place.sectors += sectors.size();
        place.least_sectors += request.least_sectors();
        kernel_->arrays[place.array].block.insert(sectors.begin(), sectors.end());
    }

    static void tally(Branch& branch, const BranchEntry& entry) {
        ++branch.runs;
        branch.divergent += entry.parted;
    }

    void end_block() {
        for (auto& [key, place] : kernel_->places) {
            for (auto& warp : place.open) {
                warp.end([&, p = &place](const RequestEntry& e) { tally(*p, e.request); });
            }
        }
        for (auto& [block, branch] : kernel_->branches) {
            for (auto& warp : branch.open) warp.end([b = &branch](const BranchEntry& e) { tally(*b, e); });
        }
        for (auto& [number, traffic] : kernel_->arrays) {
            traffic.in_blocks += traffic.block.size();
            traffic.launch.merge(traffic.block);
            traffic.block.clear();
        }
        last_.assign(max_threads, nullptr);
    }

    // ---- the file ---------------------------------------------------------------------------------

    // A place in the code as the number that addr2line takes, and the file that it is in.  `back` is 1
    // where the place is what a call returns to.
    static std::string where(const void* at, int back) {
        Dl_info info{};
        if (!dladdr(at, &info)) return "\"at\": 0, \"file\": \"\"";
        return "\"at\": " +
               std::to_string(std::uintptr_t(at) - std::uintptr_t(info.dli_fbase) - std::uintptr_t(back)) +
               ", \"file\": \"" + info.dli_fname + "\"";
    }

    std::string name_of(int array) const { return array < 0 ? "" : arrays_[std::size_t(array)].name; }

    void write(std::FILE* file) const {
        static constexpr const char* words[] = {"read", "write", "atomic"};
        const auto number = [](std::uint64_t n) { return (unsigned long long)(n); };
        const char* comma = "";
        std::fputs("[", file);
        for (const auto& [kernel, k] : kernels_) {
            std::fprintf(file, "%s\n{%s, \"launches\": %llu, \"blocks\": %llu, \"run\": %llu", comma,
                         where(kernel, 0).c_str(), number(k.launches), number(k.blocks), number(k.run));
            std::fputs(", \"places\": [", file);
            comma = "";
            for (const auto& [key, p] : k.places) {
                std::fprintf(
                    file,
                    "%s\n {%s, \"access\": \"%s\", \"shared\": %s, \"bytes\": %zu, \"array\": \"%s\", "
                    "\"requests\": %llu, \"lanes\": %llu, \"sectors\": %llu, \"least_sectors\": %llu, "
                    "\"turns\": %llu, \"conflicts\": %llu}",
                    comma, where(p.at, 1).c_str(), words[int(p.access)], p.shared ? "true" : "false",
                    p.bytes, name_of(p.array).c_str(), number(p.requests), number(p.lanes),
                    number(p.sectors), number(p.least_sectors), number(p.turns), number(p.conflicts));
                comma = ",";
            }
            std::fputs("], \"branches\": [", file);
            comma = "";
            for (const auto& [at, b] : k.branches) {
                std::fprintf(file, "%s\n {%s, \"runs\": %llu, \"divergent\": %llu}", comma,
                             where(at, 1).c_str(), number(b.runs), number(b.divergent));
                comma = ",";
            }
            std::fputs("], \"arrays\": [", file);
            comma = "";
            for (const auto& [array, t] : k.arrays) {
                std::fprintf(file, "%s\n {\"array\": \"%s\", \"in_blocks\": %llu, \"in_launches\": %llu}",
                             comma, name_of(array).c_str(), number(t.in_blocks), number(t.in_launches));
                comma = ",";
            }
            std::fputs("]}", file);
            comma = ",";
        }
        std::fputs("\n]\n", file);
    }

    std::map<const void*, KernelCounts> kernels_;
    KernelCounts* kernel_ = nullptr;
    std::vector<Array> arrays_;
    std::vector<const void*> last_ = std::vector<const void*>(max_threads);  // each thread's basic block
};

inline CountedLaunch::CountedLaunch(const void* kernel, std::size_t blocks) {
    Counter::instance().begin(kernel, blocks);
}
inline CountedLaunch::~CountedLaunch() { Counter::instance().end(); }

inline void count_access(const void* at, std::size_t bytes, Access access, const void* place) {
    Counter::instance().access(at, bytes, access, place);
}

inline bool runs(std::size_t block, std::size_t blocks) {
    const char* wanted = std::getenv("MINICNN_CUDA_COUNT_BLOCKS");
    const std::size_t some = wanted ? std::strtoul(wanted, nullptr, 10) : 0;
    const bool run = some == 0 || block * some / blocks != (block + 1) * some / blocks;
    if (run) Counter::instance().begin_block();
    return run;
}

}  // namespace emulation

// ---- what the compiler calls -------------------------------------------------------------------------

#define MINICNN_HOOK extern "C" inline __attribute__((used)) MINICNN_NOT_INSTRUMENTED void

// Several registers' worth is as many instructions.
MINICNN_NOT_INSTRUMENTED inline void count_from_hook(const void* at, std::size_t bytes,
                                                     emulation::Access access, const void* place) {
    if (!emulation::counting) return;
    emulation::counting = false;
    for (std::size_t done = 0; done < bytes; done += 16) {
        emulation::count_access(static_cast<const char*>(at) + done, bytes - done < 16 ? bytes - done : 16,
                                access, static_cast<const char*>(place) + done / 16);
    }
    emulation::counting = true;
}

#define MINICNN_HOOKS_OF(bytes)                                                            \
    MINICNN_HOOK __tsan_read##bytes(void* at) {                                            \
        count_from_hook(at, bytes, emulation::Access::read, __builtin_return_address(0));  \
    }                                                                                      \
    MINICNN_HOOK __tsan_write##bytes(void* at) {                                           \
        count_from_hook(at, bytes, emulation::Access::write, __builtin_return_address(0)); \
    }                                                                                      \
    MINICNN_HOOK __tsan_unaligned_read##bytes(void* at) {                                  \
        count_from_hook(at, bytes, emulation::Access::read, __builtin_return_address(0));  \
    }                                                                                      \
    MINICNN_HOOK __tsan_unaligned_write##bytes(void* at) {                                 \
        count_from_hook(at, bytes, emulation::Access::write, __builtin_return_address(0)); \
    }
MINICNN_HOOKS_OF(1)
MINICNN_HOOKS_OF(2)
MINICNN_HOOKS_OF(4)
MINICNN_HOOKS_OF(8)
MINICNN_HOOKS_OF(16)
#undef MINICNN_HOOKS_OF

MINICNN_HOOK __tsan_read_range(void* at, unsigned long bytes) {
    count_from_hook(at, bytes, emulation::Access::read, __builtin_return_address(0));
}
MINICNN_HOOK __tsan_write_range(void* at, unsigned long bytes) {
    count_from_hook(at, bytes, emulation::Access::write, __builtin_return_address(0));
}
MINICNN_HOOK __tsan_init() {}
MINICNN_HOOK __tsan_func_entry(void*) {}
MINICNN_HOOK __tsan_func_exit() {}
MINICNN_HOOK __tsan_vptr_update(void**, void*) {}
// The compiler asks so whether a static variable has been made.
extern "C" inline __attribute__((used)) MINICNN_NOT_INSTRUMENTED char __tsan_atomic8_load(
    const volatile char* at, int) {
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

MINICNN_HOOK __sanitizer_cov_trace_pc() {
    if (!emulation::counting) return;
    emulation::counting = false;
    emulation::Counter::instance().come(__builtin_return_address(0));
    emulation::counting = true;
}
#undef MINICNN_HOOK
