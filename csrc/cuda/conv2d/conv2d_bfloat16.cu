// Convolution of bfloat16, dense layers too (dense.cu).  Tensor cores multiply the factors, with the
// weights rounded to bfloat16, and sum in float; the results are rounded once.
//
// Depthwise convolutions are no products of matrices: their operands are widened to float in scratch
// memory, and the kernels for float compute.

#include "../../ops.h"
#include "../core/launch.h"
#include "conv2d.h"
#include "products.h"

namespace minicnn {
namespace {

using cuda::Scratch;

// Copies as float, with the values rounded to bfloat16 on the way.
template <typename From>
struct Widen {
    const From* from;
    float* to;
    template <int V>
    __device__ void at(std::int64_t i) const {
        for (int k = 0; k < V; ++k) to[i + k] = to_float(to_bfloat16(widen(from[i + k])));
    }
};

// An operand as float in scratch memory, or nullptr for nullptr.
class Operand {
  public:
    template <typename From>
    Operand(const From* from, std::int64_t size) : copy_(from ? size : 0), given_(from) {
        if (from) cuda::for_each<float>(Widen<From>{from, copy_.get()}, size, false);
    }
    const float* get() const { return given_ ? copy_.get() : nullptr; }

  private:
    Scratch<float> copy_;
    bool given_;
};

// Float sums in scratch memory that store() rounds into their place, or nullptr for nullptr.
class Result {
  public:
    Result(bfloat16* place, std::int64_t size) : sums_(place ? size : 0), place_(place), size_(size) {}
    float* get() const { return place_ ? sums_.get() : nullptr; }
    void store() const {
        if (place_) cast(sums_.get(), place_, size_);
    }

  private:
    Scratch<float> sums_;
    bfloat16* place_;
    std::int64_t size_;
};

std::int64_t weights_of(const ConvParams& p) { return p.F * p.KH * p.KW * (p.C / p.groups); }
std::int64_t inputs_of(const ConvParams& p) { return p.N * p.H * p.W * p.C; }
std::int64_t outputs_of(const ConvParams& p) { return p.N * p.OH * p.OW * p.F; }
std::int64_t outputs_of(const ConvParams& p, const PoolParams& pool) {
    return p.N * pool.OH * pool.OW * p.F;
}

}  // namespace

void conv2d_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y,
                    const ConvParams& p, bool relu) {
    cuda::check_sizes(p);
    if (!is_depthwise(p)) {
        const cuda::ForwardOutput<bfloat16> out{y, bias, p.F, int(p.F / p.groups), relu};
        return cuda::product_forward(x, weight, out, p);
    }
    const Operand images(x, inputs_of(p)), filters(weight, weights_of(p));
    const Result sums(y, outputs_of(p));
    conv2d_forward<float>(images.get(), filters.get(), bias, sums.get(), p, relu);
    sums.store();
}

void conv2d_backward(const bfloat16* dy, const bfloat16* relu_y, const bfloat16* x, const float* weight,
                     bfloat16* dx, float* dw, float* db, const ConvParams& p) {
    if (!is_depthwise(p))
        return cuda::conv2d_gradients(dy, {relu_y, nullptr, {}}, x, weight, dx, dw, db, p);
    const Operand gradient(dy, outputs_of(p)), outcome(relu_y, outputs_of(p)),
        images(dw || db ? x : nullptr, inputs_of(p)), filters(dx ? weight : nullptr, weights_of(p));
    const Result sums(dx, inputs_of(p));
    conv2d_backward<float>(gradient.get(), outcome.get(), images.get(), filters.get(), sums.get(), dw, db,
                           p);
    sums.store();
}

void conv2d_pool_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y,
                         std::uint8_t* winner, const ConvParams& p, const PoolParams& pool, bool relu) {
    cuda::check_sizes(p);
    if (!is_depthwise(p)) {
        const cuda::PoolOutput<bfloat16> out{
            y, winner, bias, p.F, int(p.OH), int(p.OW), int(p.F / p.groups), relu};
        return cuda::product_pool_forward(x, weight, out, p, pool);
    }
    const Operand images(x, inputs_of(p)), filters(weight, weights_of(p));
    const Result maxima(y, outputs_of(p, pool));
    conv2d_pool_forward<float>(images.get(), filters.get(), bias, maxima.get(), winner, p, pool, relu);
    maxima.store();
}

void conv2d_pool_backward(const bfloat16* dy, const std::uint8_t* winner, const bfloat16* x,
                          const float* weight, bfloat16* dx, float* dw, float* db, const ConvParams& p,
                          const PoolParams& pool) {
    if (!is_depthwise(p))
        return cuda::conv2d_gradients(dy, {nullptr, winner, pool}, x, weight, dx, dw, db, p);
    const Operand gradient(dy, outputs_of(p, pool)), images(dw || db ? x : nullptr, inputs_of(p)),
        filters(dx ? weight : nullptr, weights_of(p));
    const Result sums(dx, inputs_of(p));
    conv2d_pool_backward<float>(gradient.get(), winner, images.get(), filters.get(), sums.get(), dw, db, p,
                                pool);
    sums.store();
}

}  // namespace minicnn
