#include "widened.h"

#include <algorithm>

#include "../core/elementwise.h"
#include "../core/scratch.h"

namespace minicnn::widened {
namespace {

// So many bytes of float copies, or one image: they stay near the processor until they are used.
constexpr std::int64_t chunk_bytes = std::int64_t{32} << 20;

// The images of a convolution that go through together.
struct Chunk {
    std::int64_t first, count;
    ConvParams p;  // of these images alone
};

std::int64_t weights_of(const ConvParams& p) { return p.F * p.KH * p.KW * (p.C / p.groups); }

// Calls f(chunk) for every part of the batch.  The shape alone decides how it is cut.  An empty batch is
// one empty chunk.
template <typename F>
void for_each_chunk(const ConvParams& p, std::int64_t floats_per_image, const F& f) {
    const std::int64_t bytes = floats_per_image * static_cast<std::int64_t>(sizeof(float));
    const std::int64_t together = std::max<std::int64_t>(1, chunk_bytes / std::max<std::int64_t>(1, bytes));
    std::int64_t first = 0;
    do {
        Chunk chunk{first, std::min(together, p.N - first), p};
        chunk.p.N = chunk.count;
        f(chunk);
        first += together;
    } while (first < p.N);
}

// The values as float; nullptr stays nullptr.
const float* wide(const bfloat16* values, std::int64_t size, Scratch& scratch) {
    if (!values) return nullptr;
    float* copy = scratch.take<float>(size);
    elementwise(size, [=](std::int64_t i) { copy[i] = to_float(values[i]); });
    return copy;
}

// The weights rounded to bfloat16, as float.
const float* rounded(const float* weight, std::int64_t size, Scratch& scratch) {
    if (!weight) return nullptr;
    float* copy = scratch.take<float>(size);
    elementwise(size, [=](std::int64_t i) { copy[i] = to_float(to_bfloat16(weight[i])); });
    return copy;
}

void store(const float* values, bfloat16* rounded, std::int64_t size) {
    elementwise(size, [=](std::int64_t i) { rounded[i] = to_bfloat16(values[i]); });
}

void add(const float* values, float* sum, std::int64_t size) {
    elementwise(size, [=](std::int64_t i) { sum[i] += values[i]; });
}

// The place of a chunk's gradient to the weights: the gradient itself for the first chunk, scratch memory
// for the others, whose gradients finish() adds to it in order.
class Part {
  public:
    Part(float* whole, std::int64_t size, bool is_first, Scratch& scratch)
        : whole_(whole), part_(whole && !is_first ? scratch.take<float>(size) : whole), size_(size) {}
    float* place() const { return part_; }
    void finish() const {
        if (part_ != whole_) add(part_, whole_, size_);
    }

  private:
    float *whole_, *part_;
    std::int64_t size_;
};

template <typename T>
T* at(T* values, std::int64_t offset) {
    return values ? values + offset : nullptr;
}

// A forward pass, whose outputs have `output` values an image.  kernel(chunk, images, filters, y) computes
// one chunk of it in float.
template <typename Kernel>
void forward(const bfloat16* x, const float* weight, bfloat16* y, const ConvParams& p, std::int64_t output,
             const Kernel& kernel) {
    Scratch kept;
    const float* filters = rounded(weight, weights_of(p), kept);
    const std::int64_t input = p.H * p.W * p.C;
    for_each_chunk(p, input + output, [&](const Chunk& c) {
        Scratch scratch;
        const float* images = wide(x + c.first * input, c.count * input, scratch);
        float* results = scratch.take<float>(c.count * output);
        kernel(c, images, filters, results);
        store(results, y + c.first * output, c.count * output);
    });
}

// The gradients of such a pass; kernel(chunk, dy, relu_y, images, filters, dx, dw, db).
template <typename Kernel>
void backward(const bfloat16* dy, const bfloat16* relu_y, const bfloat16* x, const float* weight,
              bfloat16* dx, float* dw, float* db, const ConvParams& p, std::int64_t output,
              const Kernel& kernel) {
    Scratch kept;
    const float* filters = dx ? rounded(weight, weights_of(p), kept) : nullptr;
    const std::int64_t input = p.H * p.W * p.C;
    for_each_chunk(p, input + output, [&](const Chunk& c) {
        Scratch scratch;
        const std::int64_t inputs = c.count * input, outputs = c.count * output;
        const float* gradient = wide(dy + c.first * output, outputs, scratch);
        const float* outcome = wide(at(relu_y, c.first * output), outputs, scratch);
        const float* images = dw || db ? wide(x + c.first * input, inputs, scratch) : nullptr;
        float* sums = dx ? scratch.take<float>(inputs) : nullptr;
        const Part dw_part(dw, weights_of(p), c.first == 0, scratch),
            db_part(db, p.F, c.first == 0, scratch);
        kernel(c, gradient, outcome, images, filters, sums, dw_part.place(), db_part.place());
        if (dx) store(sums, dx + c.first * input, inputs);
        dw_part.finish();
        db_part.finish();
    });
}

}  // namespace

void conv2d_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y,
                    const ConvParams& p, bool relu) {
    forward(x, weight, y, p, p.OH * p.OW * p.F,
            [&](const Chunk& c, const float* images, const float* filters, float* results) {
                minicnn::conv2d_forward<float>(images, filters, bias, results, c.p, relu);
            });
}

void conv2d_backward(const bfloat16* dy, const bfloat16* relu_y, const bfloat16* x, const float* weight,
                     bfloat16* dx, float* dw, float* db, const ConvParams& p) {
    backward(dy, relu_y, x, weight, dx, dw, db, p, p.OH * p.OW * p.F,
             [](const Chunk& c, auto... arrays) { minicnn::conv2d_backward<float>(arrays..., c.p); });
}

void conv2d_pool_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y,
                         std::uint8_t* winner, const ConvParams& p, const PoolParams& pool, bool relu) {
    const std::int64_t output = pool.OH * pool.OW * p.F;
    forward(x, weight, y, p, output,
            [&](const Chunk& c, const float* images, const float* filters, float* results) {
                minicnn::conv2d_pool_forward<float>(images, filters, bias, results,
                                                    at(winner, c.first * output), c.p, pool, relu);
            });
}

void conv2d_pool_backward(const bfloat16* dy, const std::uint8_t* winner, const bfloat16* x,
                          const float* weight, bfloat16* dx, float* dw, float* db, const ConvParams& p,
                          const PoolParams& pool) {
    const std::int64_t output = pool.OH * pool.OW * p.F;
    backward(dy, nullptr, x, weight, dx, dw, db, p, output,
             [&](const Chunk& c, const float* gradient, const float*, auto... arrays) {
                 minicnn::conv2d_pool_backward<float>(gradient, winner + c.first * output, arrays..., c.p,
                                                      pool);
             });
}

void dense_forward(const bfloat16* x, const float* weight, const float* bias, bfloat16* y, std::int64_t N,
                   std::int64_t in, std::int64_t out, bool relu) {
    Scratch scratch;
    const float* rows = wide(x, N * in, scratch);
    const float* weights = rounded(weight, out * in, scratch);
    float* sums = scratch.take<float>(N * out);
    minicnn::dense_forward<float>(rows, weights, bias, sums, N, in, out, relu);
    store(sums, y, N * out);
}

void dense_backward(const bfloat16* dy, const bfloat16* relu_y, const bfloat16* x, const float* weight,
                    bfloat16* dx, float* dw, float* db, std::int64_t N, std::int64_t in, std::int64_t out) {
    Scratch scratch;
    const float* gradient = wide(dy, N * out, scratch);
    const float* outcome = wide(relu_y, N * out, scratch);
    const float* rows = dw ? wide(x, N * in, scratch) : nullptr;
    const float* weights = dx ? rounded(weight, out * in, scratch) : nullptr;
    float* sums = dx ? scratch.take<float>(N * in) : nullptr;
    minicnn::dense_backward<float>(gradient, outcome, rows, weights, sums, dw, db, N, in, out);
    if (dx) store(sums, dx, N * in);
}

}  // namespace minicnn::widened
