// A plan: the operations of a graph for batches of one size, in the order in which they run, and where in
// one block of memory, the arena, each result lies.  It is made once; a run allocates nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "../../sizes.h"
#include "../core/helpers.h"
#include "../core/memory.h"

namespace minicnn::session {

enum class Type { byte, float32, bfloat16 };

inline std::int64_t bytes_per_value(Type type) {
    return type == Type::byte ? 1 : type == Type::float32 ? 4 : 2;
}

// What a value is: images, channels-last in memory, or rows (N,C), whose H and W are 1.
struct Value {
    ImageShape shape;
    Type type;

    std::int64_t size() const { return shape.N * shape.C * shape.H * shape.W; }
    std::int64_t bytes() const { return size() * bytes_per_value(type); }
};

// Computes one result from the values that it reads.  Several threads may call it at once, each with
// arrays of its own.
using Work = std::function<void(const void* const* inputs, void* output)>;

class Plan {
  public:
    // Value 0 is the input.
    explicit Plan(const Value& input) { values_.push_back(input); }

    const Value& value(int number) const { return values_.at(static_cast<std::size_t>(number)); }

    // Adds an operation; the number of the value that it gives.
    int add(const std::vector<int>& inputs, const Value& result, Work work);

    // Says which value comes out, and lays out the arena.  Nothing is added afterwards.
    void finish(int output);

    // Measures which operations gain from more threads than one; the others keep to one from now on, and
    // all do where waking helpers takes longer than what a run gains.  Plans that take long are not
    // measured: there, all work is worth it.  The results are the same for any number.
    void choose_threads(int threads, const Waking& waking);

    // Runs all operations on the input x; the output goes to y.  A call takes at most so many threads.
    // Several threads may call it at once: each call has an arena of its own.
    void run(const void* x, void* y, int threads) const;

    std::int64_t arena_bytes() const { return arena_bytes_; }

  private:
    struct Node {
        std::vector<int> inputs;
        Work work;
        int threads;  // how many it may take
    };

    // The memory of one run, and where each value lies in it.
    struct Arena {
        AlignedBytes bytes;
        std::vector<void*> values;
        std::vector<const void*> inputs;  // of the operation that runs
    };
    class Lease;

    std::vector<int> last_reads() const;
    void run_node(std::size_t i, Arena& arena) const;
    void time_nodes(Arena& arena, int threads, std::vector<double>& least) const;
    bool measure(int threads, std::vector<double>& one, std::vector<double>& all) const;
    std::unique_ptr<Arena> new_arena() const;

    std::vector<Value> values_;
    std::vector<Node> nodes_;           // node i gives value i + 1
    std::vector<std::int64_t> places_;  // of each value in the arena
    std::int64_t arena_bytes_ = 0;
    int output_ = 0;

    mutable std::mutex mutex_;
    mutable std::vector<std::unique_ptr<Arena>> idle_;
    mutable int arenas_ = 0;  // idle ones and those of runs
};

}  // namespace minicnn::session
