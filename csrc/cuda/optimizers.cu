// The optimizer steps: one launch over all parameters.  The order of operations is torch.optim's.

#include <cmath>
#include <vector>

#include "core/reduce.h"

namespace minicnn {
namespace {

using cuda::block_threads;

constexpr int most_rows = 72;         // what fits the 4 KiB that every device takes as arguments
constexpr int block_elements = 4096;  // of one parameter

// Parameters as a kernel's argument; row i has the blocks [first_block[i], first_block[i + 1]).
template <typename T>
struct Rows {
    Parameter<T> row[most_rows];
    unsigned first_block[most_rows + 1];
};

// Calls f on the block's share of one row.
template <typename T, typename F>
__device__ void for_each_of_block(const Rows<T>& rows, const F& f) {
    int i = 0;
    while (blockIdx.x >= rows.first_block[i + 1]) ++i;
    const Parameter<T>& row = rows.row[i];
    const std::int64_t first = std::int64_t(blockIdx.x - rows.first_block[i]) * block_elements;
    const std::int64_t last = cuda::smaller(first + block_elements, row.size);
    for (std::int64_t k = first + threadIdx.x; k < last; k += block_threads) f(row, k);
}

template <typename T, typename Update>
__global__ void __launch_bounds__(block_threads) update_kernel(Rows<T> rows, Update update) {
    for_each_of_block(rows, update);
}

template <typename T>
__global__ void __launch_bounds__(block_threads) squares_kernel(Rows<T> rows, double* partial) {
    double sum = 0;
    for_each_of_block(rows, [&](const Parameter<T>& row, std::int64_t k) {
        const double value = double(row.value[k]);
        sum += value * value;
    });
    sum = cuda::block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Calls body(rows, blocks) with as many rows at a time as a kernel takes.
template <typename T, typename Body>
void for_rows(const Parameter<T>* list, std::int64_t count, const Body& body) {
    for (std::int64_t first = 0; first < count; first += most_rows) {
        Rows<T> rows{};
        const int here = int(std::min<std::int64_t>(most_rows, count - first));
        std::int64_t blocks = 0;
        for (int i = 0; i < here; ++i) {
            rows.row[i] = list[first + i];
            blocks += cuda::ceil_div(rows.row[i].size, block_elements);
            rows.first_block[i + 1] = unsigned(cuda::narrow(blocks, "blocks of an optimizer step"));
        }
        if (blocks) body(rows, unsigned(blocks));
    }
}

template <typename T, typename Update>
void update_all(const Parameter<T>* list, std::int64_t count, const Update& update) {
    for_rows(list, count, [&](const Rows<T>& rows, unsigned blocks) {
        cuda::launch(update_kernel<T, Update>, blocks, block_threads, 0, cuda::current_stream(), rows,
                     update);
    });
}

template <typename T>
struct Sgd {
    T lr, momentum, decay;
    bool nesterov;
    __device__ void operator()(const Parameter<T>& row, std::int64_t i) const {
        T g = row.grad[i] + decay * row.value[i];
        if (momentum != T(0)) {
            const T v = row.state[i] = momentum * row.state[i] + g;
            g = nesterov ? g + momentum * v : v;
        }
        row.value[i] -= lr * g;
    }
};

template <typename T>
struct Adam {
    T rate, root, shrink, decay, beta2, rest1, rest2, eps;
    __device__ void operator()(const Parameter<T>& row, std::int64_t i) const {
        const T value = row.value[i], g = row.grad[i] + decay * value;
        const T m = row.state[i] + (g - row.state[i]) * rest1;
        const T s = beta2 * row.state2[i] + rest2 * g * g;
        row.state[i] = m;
        row.state2[i] = s;
        row.value[i] = value * shrink - rate * (m / (sqrt(s) / root + eps));
    }
};

template <typename T>
struct Rmsprop {
    T lr, alpha, rest, eps, decay, momentum;
    __device__ void operator()(const Parameter<T>& row, std::int64_t i) const {
        const T g = row.grad[i] + decay * row.value[i];
        const T s = row.state[i] = alpha * row.state[i] + rest * g * g;
        T update = g / (sqrt(s) + eps);
        if (momentum != T(0)) update = row.state2[i] = momentum * row.state2[i] + update;
        row.value[i] -= lr * update;
    }
};

template <typename T>
struct Ema {
    T keep, rest;
    __device__ void operator()(const Parameter<T>& row, std::int64_t i) const {
        row.value[i] = keep * row.value[i] + rest * row.grad[i];
    }
};

template <typename T>
struct Scale {
    T factor;
    __device__ void operator()(const Parameter<T>& row, std::int64_t i) const { row.value[i] *= factor; }
};

}  // namespace

template <typename T>
void sgd_step(const Parameter<T>* list, std::int64_t count, const SgdParams& p) {
    update_all(list, count, Sgd<T>{T(p.lr), T(p.momentum), T(p.weight_decay), p.nesterov});
}

template <typename T>
void adam_step(const Parameter<T>* list, std::int64_t count, const AdamParams& p) {
    const T rate = T(p.lr / (1 - std::pow(p.beta1, double(p.step))));
    const T root = T(std::sqrt(1 - std::pow(p.beta2, double(p.step))));
    const T shrink = T(p.decoupled ? 1 - p.lr * p.weight_decay : 1),
            decay = T(p.decoupled ? 0 : p.weight_decay);
    update_all(list, count,
               Adam<T>{rate, root, shrink, decay, T(p.beta2), T(1 - p.beta1), T(1 - p.beta2), T(p.eps)});
}

template <typename T>
void rmsprop_step(const Parameter<T>* list, std::int64_t count, const RmspropParams& p) {
    update_all(list, count,
               Rmsprop<T>{T(p.lr), T(p.alpha), T(1 - p.alpha), T(p.eps), T(p.weight_decay), T(p.momentum)});
}

template <typename T>
void ema_update(const Parameter<T>* list, std::int64_t count, double decay) {
    update_all(list, count, Ema<T>{T(decay), T(1 - decay)});
}

template <typename T>
void scale(const Parameter<T>* list, std::int64_t count, double factor) {
    update_all(list, count, Scale<T>{T(factor)});
}

// The blocks' sums are added on the host, in order.
template <typename T>
double sum_of_squares(const Parameter<T>* list, std::int64_t count) {
    double sum = 0;
    for_rows(list, count, [&](const Rows<T>& rows, unsigned blocks) {
        const cuda::Scratch<double> partial(blocks);
        cuda::launch(squares_kernel<T>, blocks, block_threads, 0, cuda::current_stream(), rows,
                     partial.get());
        std::vector<double> sums(blocks);
        cuda::check(cudaMemcpyAsync(sums.data(), partial.get(), blocks * sizeof(double),
                                    cudaMemcpyDeviceToHost, cuda::current_stream()),
                    "CUDA copy");
        cuda::check(cudaStreamSynchronize(cuda::current_stream()), "CUDA stream");
        for (const double part : sums) sum += part;
    });
    return sum;
}

#define INSTANTIATE(T)                                                                   \
    template void sgd_step(const Parameter<T>*, std::int64_t, const SgdParams&);         \
    template void adam_step(const Parameter<T>*, std::int64_t, const AdamParams&);       \
    template void rmsprop_step(const Parameter<T>*, std::int64_t, const RmspropParams&); \
    template void ema_update(const Parameter<T>*, std::int64_t, double);                 \
    template void scale(const Parameter<T>*, std::int64_t, double);                      \
    template double sum_of_squares(const Parameter<T>*, std::int64_t)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn
