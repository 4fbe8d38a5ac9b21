// The cast between float and bfloat16.

#include "../ops.h"
#include "core/elementwise.h"

namespace minicnn {
namespace {

template <typename From, typename To>
struct Cast {
    const From* x;
    To* y;
    template <int V>
    __device__ void at(std::int64_t i) const {
        cuda::store(y + i, cuda::load<V>(x + i));
    }
    Cast from(std::int64_t i) const { return {x + i, y + i}; }
};

}  // namespace

template <typename From, typename To>
void cast(const From* x, To* y, std::int64_t size) {
    cuda::elementwise<float>(Cast<From, To>{x, y}, size, x, y);
}

template void cast(const float*, bfloat16*, std::int64_t);
template void cast(const bfloat16*, float*, std::int64_t);

}  // namespace minicnn
