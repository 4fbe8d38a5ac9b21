#include "plan.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

#include "../core/parallel.h"

namespace minicnn::session {
namespace {

constexpr int unlimited = 1 << 30;

// A value that lies in the arena from the operation that gives it to the last one that reads it.
struct Tenant {
    int number, from, to;
    std::int64_t bytes, place;

    bool meets(const Tenant& other) const { return from <= other.to && other.from <= to; }
};

double sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

std::int64_t whole_lines(std::int64_t bytes) {
    constexpr std::int64_t line = cache_line;
    return (bytes + line - 1) / line * line;
}

// The lowest place where the tenant fits beside those that are there at the same time.
std::int64_t lowest_place(const Tenant& tenant, std::vector<Tenant> others) {
    std::sort(others.begin(), others.end(),
              [](const Tenant& a, const Tenant& b) { return a.place < b.place; });
    std::int64_t place = 0;
    for (const Tenant& other : others) {
        if (!tenant.meets(other)) continue;
        if (place + tenant.bytes <= other.place) break;
        place = std::max(place, other.place + other.bytes);
    }
    return place;
}

}  // namespace

int Plan::add(const std::vector<int>& inputs, const Value& result, Work work) {
    nodes_.push_back({inputs, std::move(work), unlimited});
    values_.push_back(result);
    return static_cast<int>(nodes_.size());
}

std::vector<int> Plan::last_reads() const {
    std::vector<int> last(values_.size());
    std::iota(last.begin(), last.end(), -1);  // a value that nothing reads: the node that gives it
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
        for (const int input : nodes_[i].inputs)
            last[static_cast<std::size_t>(input)] = static_cast<int>(i);
    }
    return last;
}

// The largest values are placed first, each as low as it fits (Pisarchyk and Lee 2020, arXiv:2001.03288,
// greedy by size).
void Plan::finish(int output) {
    output_ = output;
    places_.assign(values_.size(), 0);
    const std::vector<int> last = last_reads();
    std::vector<Tenant> tenants, placed;
    for (int number = 1; number < static_cast<int>(values_.size()); ++number) {
        if (number == output) continue;  // goes to the caller's array
        tenants.push_back({number, number - 1, last[static_cast<std::size_t>(number)],
                           whole_lines(value(number).bytes()), 0});
    }
    std::stable_sort(tenants.begin(), tenants.end(),
                     [](const Tenant& a, const Tenant& b) { return a.bytes > b.bytes; });
    for (Tenant& tenant : tenants) {
        tenant.place = lowest_place(tenant, placed);
        placed.push_back(tenant);
        places_[static_cast<std::size_t>(tenant.number)] = tenant.place;
        arena_bytes_ = std::max(arena_bytes_, tenant.place + tenant.bytes);
    }
}

std::unique_ptr<Plan::Arena> Plan::new_arena() const {
    auto arena = std::make_unique<Arena>();
    arena->bytes = aligned_bytes(static_cast<std::size_t>(arena_bytes_));
    for (const std::int64_t place : places_) arena->values.push_back(arena->bytes.get() + place);
    std::size_t most = 0;
    for (const Node& node : nodes_) most = std::max(most, node.inputs.size());
    arena->inputs.resize(most);
    return arena;
}

// An arena for one run, which the next run takes over.
class Plan::Lease {
  public:
    explicit Lease(const Plan& plan) : plan_(plan) {
        const std::lock_guard<std::mutex> lock(plan.mutex_);
        if (plan.idle_.empty()) {
            arena_ = plan.new_arena();
            plan.idle_.reserve(static_cast<std::size_t>(++plan.arenas_));  // to give it back cannot fail
        } else {
            arena_ = std::move(plan.idle_.back());
            plan.idle_.pop_back();
        }
    }
    ~Lease() {
        const std::lock_guard<std::mutex> lock(plan_.mutex_);
        plan_.idle_.push_back(std::move(arena_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    Arena& operator*() const { return *arena_; }

  private:
    const Plan& plan_;
    std::unique_ptr<Arena> arena_;
};

void Plan::run(const void* x, void* y, int threads) const {
    const ThreadLimit limit(threads);
    const Lease lease(*this);
    Arena& arena = *lease;
    // The input is only read, so its const is taken away for the table alone.
    arena.values[0] = const_cast<void*>(x);
    if (output_ == 0) {
        std::memcpy(y, x, static_cast<std::size_t>(value(0).bytes()));
    } else {
        arena.values[static_cast<std::size_t>(output_)] = y;
    }
    const auto shared = [](const Node& node) { return node.threads > 1; };
    if (std::any_of(nodes_.begin(), nodes_.end(), shared)) rouse_threads(ThreadLimit::available());
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
        const ThreadLimit own(nodes_[i].threads);
        run_node(i, arena);
    }
}

void Plan::run_node(std::size_t i, Arena& arena) const {
    const Node& node = nodes_[i];
    for (std::size_t k = 0; k < node.inputs.size(); ++k) {
        arena.inputs[k] = arena.values[static_cast<std::size_t>(node.inputs[k])];
    }
    node.work(arena.inputs.data(), arena.values[i + 1]);
}

// One whole run, in which each operation's time is taken if it is the least so far.
void Plan::time_nodes(Arena& arena, int threads, std::vector<double>& least) const {
    const ThreadLimit limit(threads);
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
        const auto start = std::chrono::steady_clock::now();
        run_node(i, arena);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        least[i] = std::min(least[i], took.count());
    }
}

// The least time of each operation, in seconds, with one thread and with all; false for a long plan.
bool Plan::measure(int threads, std::vector<double>& one, std::vector<double>& all) const {
    constexpr double longest = 0.02,
                     budget = 0.04;  // seconds: of a run, of all runs after the least number
    constexpr int least_rounds = 5, most_rounds = 25;
    const auto zeros = [](std::int64_t bytes) {
        AlignedBytes made = aligned_bytes(static_cast<std::size_t>(bytes));
        std::memset(made.get(), 0, static_cast<std::size_t>(bytes));
        return made;
    };
    const AlignedBytes x = zeros(value(0).bytes()), y = zeros(value(output_).bytes());
    const std::unique_ptr<Arena> arena = new_arena();
    arena->values[0] = x.get();
    if (output_ != 0) arena->values[static_cast<std::size_t>(output_)] = y.get();
    time_nodes(*arena, 1, one);  // the first run makes scratch memory, too
    const double whole = sum(one);
    if (whole > longest) return false;
    for (int round = 0; round < most_rounds; ++round) {
        if (round >= least_rounds && 2 * round * whole > budget) break;
        time_nodes(*arena, 1, one);
        time_nodes(*arena, threads, all);
    }
    return true;
}

void Plan::choose_threads(int threads, const Waking& waking) {
    constexpr double worthwhile = 0.9;  // the largest share of the time that counts as a gain
    if (std::min(threads, num_threads()) < 2 || nodes_.empty()) return;
    std::vector<double> one(nodes_.size(), 1e9), all(nodes_.size(), 1e9);
    if (!measure(threads, one, all)) return;
    double gain = 0;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
        const bool gains = all[i] <= worthwhile * one[i];
        if (gains) gain += one[i] - all[i];
        nodes_[i].threads = gains ? unlimited : 1;
    }
    // Helpers that sleep miss the beginning of a run.
    const double present = 1 - std::min(1.0, waking.delay / sum(one));
    if (gain * present > 2 * waking.call) return;
    for (Node& node : nodes_) node.threads = 1;
}

}  // namespace minicnn::session
