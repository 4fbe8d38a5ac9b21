// The weight and the bias of a convolution or a dense layer, copied, with what the plans of a session made
// ready of them: each form once, for batches of every size.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "../bfloat16/tile_conv2d.h"
#include "../conv2d/forward.h"
#include "../core/memory.h"

namespace minicnn::session {

// Forms are added while a plan is made, which one thread does at a time.  What was given out stays as it
// is.
class Filters {
  public:
    // weight is as in conv2d_forward or dense_forward; bias has `outputs` values, and is optional.
    Filters(const float* weight, std::int64_t size, const float* bias, std::int64_t outputs);

    const float* weight() const { return forms_.weight; }
    const float* bias() const { return forms_.bias; }

    // The filters with the form that a way reads.
    template <typename Way>
    ForwardFilters<float> ready(Way way, const ConvParams& p) {
        make_ready(forms_, way, p, memory_);
        note_finite();
        return forms_;
    }

    // The weight (outputs, depth) of a dense layer as the second operand of a product.
    PackedOperand<float> operand(std::int64_t depth);

    // The filters in bfloat16, in tiles, as this pass reads them.
    PackedTiles tiles(const TileForward& pass);

    std::size_t bytes() const { return memory_.bytes(); }

  private:
    void note_finite();

    Kept memory_;
    std::int64_t size_, outputs_;
    ForwardFilters<float> forms_;
    std::vector<std::pair<TileRuns, PackedTiles>> tiles_;
};

using FiltersPtr = std::shared_ptr<Filters>;

}  // namespace minicnn::session
