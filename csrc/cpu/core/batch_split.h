// How the sums over a batch in a gradient to filters are shared out.  The batch is cut into a fixed
// number of chunks, each with partial sums of its own, which are added in order at the end; the filters
// are cut into parts.  A task is a chunk times a part.  A large gradient gets more parts and fewer
// chunks, because each chunk needs memory for a whole gradient.  Nothing depends on the number of
// threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace minicnn {

struct BatchSplit {
    static constexpr std::int64_t tasks = 16;
    std::int64_t units, chunks, blocks, parts;

    // `units` are what the batch is cut at: bands of images, in order.  `blocks` are what the filters are
    // cut at.
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
