// A stand-in for CUDA's graphs: while one is recorded, launches and copies are kept instead of run, and the
// memory that they name is kept, too.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace emulation {

class Recording {
  public:
    using Work = std::function<std::string()>;  // returns what went wrong, or ""

    // The one that this thread records, or nullptr.
    static Recording*& open() {
        static thread_local Recording* now = nullptr;
        return now;
    }

    void add(Work work) { works_.push_back(std::move(work)); }
    void keep(std::shared_ptr<const void> memory) { memory_.push_back(std::move(memory)); }

    // Runs everything in order.  Returns what went wrong, or "".
    std::string replay() const {
        for (const Work& work : works_) {
            if (std::string error = work(); !error.empty()) return error;
        }
        return "";
    }

  private:
    std::vector<Work> works_;
    std::vector<std::shared_ptr<const void>> memory_;
};

}  // namespace emulation
