// Filters as Winograd's way reads them.
#pragma once

#include <cstdint>

namespace minicnn {

// The transformed filters: plane p begins at p * plane, and holds blocks of output channels as
// PackedFilters does.
struct WinogradFilters {
    const float* blocks;
    const float* bias;
    std::int64_t plane, padded;
};

}  // namespace minicnn
