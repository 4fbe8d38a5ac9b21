// How the sums over a batch in a weight gradient are shared out: a fixed number of chunks of the batch,
// each with a partial sum of its own that are added in order, times parts of the filters.  A large
// gradient gets more parts of filters and fewer partial sums.  Nothing depends on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace minicnn {

struct BatchSplit {
    static constexpr std::int64_t tasks = 16;
    std::int64_t units, chunks, blocks, parts;

    // units: bands of images, in order; blocks: of filters.
    BatchSplit(std::int64_t units, std::int64_t blocks, std::int64_t gradient_bytes)
        : units(units), blocks(blocks) {
        constexpr std::int64_t partial_bytes = 4 << 20;
        chunks =
            std::clamp<std::int64_t>(partial_bytes / std::max<std::int64_t>(1, gradient_bytes), 1, tasks);
        chunks = std::clamp<std::int64_t>(chunks, 1, std::max<std::int64_t>(1, units));
        parts = std::clamp<std::int64_t>(tasks / chunks, 1, blocks);
    }

    std::int64_t first_unit(std::int64_t chunk) const { return units * chunk / chunks; }
    std::int64_t first_block(std::int64_t part) const { return blocks * part / parts; }
};

}  // namespace minicnn
