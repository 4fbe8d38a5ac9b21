#include "filters.h"

#include <algorithm>

#include "../core/finite.h"

namespace minicnn::session {
namespace {

const float* copied(const float* values, std::int64_t size, Memory& memory) {
    if (!values) return nullptr;
    auto* copy = memory.take<float>(size);
    std::copy_n(values, size, copy);
    return copy;
}

}  // namespace

Filters::Filters(const float* weight, std::int64_t size, const float* bias, std::int64_t outputs)
    : size_(size),
      outputs_(outputs),
      forms_{copied(weight, size, memory_), copied(bias, outputs, memory_)} {}

// Kernels look through filters that are not known to be finite in every run.
void Filters::note_finite() {
    if (forms_.packed.blocks && !forms_.packed.finite) forms_.packed.finite = all_finite(weight(), size_);
}

PackedOperand<float> Filters::operand(std::int64_t depth) {
    if (!forms_.columns.blocks) {
        const Gemm<float> product{nullptr, 0,       0, weight(), 1,     depth,
                                  bias(),  nullptr, 0, outputs_, depth, false};
        forms_.columns = pack_operand(product, memory_);
    }
    return forms_.columns;
}

PackedTiles Filters::tiles(const TileForward& pass) {
    const TileRuns& runs = pass.runs();
    for (const auto& [known, packed] : tiles_) {
        if (known.count == runs.count && known.length == runs.length) return packed;
    }
    tiles_.emplace_back(runs, pass.pack(weight(), bias(), memory_));
    return tiles_.back().second;
}

}  // namespace minicnn::session
