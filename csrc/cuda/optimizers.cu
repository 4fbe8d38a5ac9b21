// The optimizer steps: one launch updates many parameters.  The order of operations is that of torch.optim.

#include <cmath>
#include <vector>

#include "../ops.h"
#include "core/reduce.h"
#include "core/step_numbers.h"
#include "device_step.h"

namespace minicnn {
namespace {

using cuda::block_threads, cuda::Number, cuda::StepNumbers, cuda::number;

// The arguments of a kernel may take 4 KiB on every device; so many parameters fit.
constexpr int most_parameters = 72;
// How many elements of one parameter a block updates.
constexpr int block_elements = 4096;

// Parameters as a kernel's argument.  The blocks [first_block[i], first_block[i + 1]) update parameter i.
template <typename T>
struct ParameterList {
    Parameter<T> parameter[most_parameters];
    unsigned first_block[most_parameters + 1];
};

// Calls f(parameter, k) for every element k that the block updates.
template <typename T, typename F>
__device__ void for_each_of_block(const ParameterList<T>& list, const F& f) {
    int i = 0;
    while (blockIdx.x >= list.first_block[i + 1]) ++i;
    const Parameter<T>& p = list.parameter[i];
    const std::int64_t first = std::int64_t(blockIdx.x - list.first_block[i]) * block_elements;
    const std::int64_t last = cuda::smaller(first + block_elements, p.size);
    for (std::int64_t k = first + threadIdx.x; k < last; k += block_threads) f(p, k);
}

template <typename T, typename Update>
__global__ void __launch_bounds__(block_threads) update_kernel(ParameterList<T> list, Update update) {
    update.fetch();
    for_each_of_block(list, update);
}

template <typename T>
__global__ void __launch_bounds__(block_threads) squares_kernel(ParameterList<T> list, double* partial) {
    double sum = 0;
    for_each_of_block(list, [&](const Parameter<T>& p, std::int64_t k) {
        const double value = double(p.value[k]);
        sum += value * value;
    });
    sum = cuda::block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Calls body(list, blocks) with as many parameters at a time as a kernel takes.
template <typename T, typename Body>
void for_lists(const Parameter<T>* all, std::int64_t count, const Body& body) {
    for (std::int64_t first = 0; first < count; first += most_parameters) {
        ParameterList<T> list{};
        const int here = int(std::min<std::int64_t>(most_parameters, count - first));
        std::int64_t blocks = 0;
        for (int i = 0; i < here; ++i) {
            list.parameter[i] = all[first + i];
            blocks += cuda::ceil_div(list.parameter[i].size, block_elements);
            list.first_block[i + 1] = unsigned(cuda::narrow(blocks, "blocks of an optimizer step"));
        }
        if (blocks) body(list, unsigned(blocks));
    }
}

template <typename T, typename Update>
void update_all(const Parameter<T>* all, std::int64_t count, const Update& update) {
    for_lists(all, count, [&](const ParameterList<T>& list, unsigned blocks) {
        cuda::launch(update_kernel<T, Update>, blocks, block_threads, 0, cuda::current_stream(), list,
                     update);
    });
}

template <typename T>
struct Sgd {
    Number<T> lr;
    T momentum, weight_decay;
    bool nesterov;
    __device__ void fetch() { lr.fetch(); }
    __device__ void operator()(const Parameter<T>& p, std::int64_t i) const {
        T g = p.grad[i] + weight_decay * p.value[i];
        if (momentum != T(0)) {
            const T v = p.state[i] = momentum * p.state[i] + g;
            g = nesterov ? g + momentum * v : v;
        }
        p.value[i] -= lr.value * g;
    }
};

template <typename T>
struct Adam {
    Number<T> step_size;              // lr / bias_correction1
    Number<T> bias_correction2_sqrt;  // of exp_avg_sq
    Number<T> keep;                   // what AdamW's decoupled weight decay leaves of a value; 1 for Adam
    T weight_decay;                   // what Adam adds to the gradient; 0 for AdamW
    T beta2, one_minus_beta1, one_minus_beta2, eps;
    __device__ void fetch() {
        step_size.fetch();
        bias_correction2_sqrt.fetch();
        keep.fetch();
    }
    __device__ void operator()(const Parameter<T>& p, std::int64_t i) const {
        const T value = p.value[i], g = p.grad[i] + weight_decay * value;
        const T exp_avg = p.state[i] + (g - p.state[i]) * one_minus_beta1;
        const T exp_avg_sq = beta2 * p.state2[i] + one_minus_beta2 * g * g;
        p.state[i] = exp_avg;
        p.state2[i] = exp_avg_sq;
        const T denominator = sqrt(exp_avg_sq) / bias_correction2_sqrt.value + eps;
        p.value[i] = value * keep.value - step_size.value * (exp_avg / denominator);
    }
};

template <typename T>
struct Rmsprop {
    Number<T> lr;
    T alpha, one_minus_alpha, eps, weight_decay, momentum;
    __device__ void fetch() { lr.fetch(); }
    __device__ void operator()(const Parameter<T>& p, std::int64_t i) const {
        const T g = p.grad[i] + weight_decay * p.value[i];
        const T square_avg = p.state[i] = alpha * p.state[i] + one_minus_alpha * g * g;
        T update = g / (sqrt(square_avg) + eps);
        if (momentum != T(0)) update = p.state2[i] = momentum * p.state2[i] + update;
        p.value[i] -= lr.value * update;
    }
};

template <typename T>
struct Ema {
    const double* there;
    T decay, one_minus_decay;
    __device__ void fetch() {
        if (!there) return;
        decay = T(*there);
        one_minus_decay = T(1 - *there);
    }
    __device__ void operator()(const Parameter<T>& p, std::int64_t i) const {
        p.value[i] = decay * p.value[i] + one_minus_decay * p.grad[i];
    }
};

template <typename T>
struct Scale {
    Number<T> factor;
    __device__ void fetch() { factor.fetch(); }
    __device__ void operator()(const Parameter<T>& p, std::int64_t i) const {
        if (factor.value != T(1)) p.value[i] *= factor.value;
    }
};

// The factor that brings the norm down to `limit`; 1 if it is not greater, or not a number.
__global__ void __launch_bounds__(block_threads)
    clip_factor_kernel(const double* squares, unsigned count, double limit, double* factor) {
    double sum = 0;
    for (unsigned i = threadIdx.x; i < count; i += block_threads) sum += squares[i];
    sum = cuda::block_sum(sum);
    if (threadIdx.x != 0) return;
    const double wanted = limit / (sqrt(sum) + 1e-6);
    *factor = wanted < 1 ? wanted : 1;
}

}  // namespace

template <typename T>
void sgd_step(const Parameter<T>* list, std::int64_t count, const SgdParams& p) {
    update_all(list, count,
               Sgd<T>{number<T>(&StepNumbers::lr, p.lr), T(p.momentum), T(p.weight_decay), p.nesterov});
}

template <typename T>
void adam_step(const Parameter<T>* list, std::int64_t count, const AdamParams& p) {
    const double bias_correction1 = 1 - std::pow(p.beta1, double(p.step));
    const double bias_correction2_sqrt = std::sqrt(1 - std::pow(p.beta2, double(p.step)));
    const double keep = p.decoupled ? 1 - p.lr * p.weight_decay : 1;
    const double weight_decay = p.decoupled ? 0 : p.weight_decay;
    update_all(list, count,
               Adam<T>{number<T>(&StepNumbers::step_size, p.lr / bias_correction1),
                       number<T>(&StepNumbers::bias_correction2_sqrt, bias_correction2_sqrt),
                       number<T>(&StepNumbers::keep, keep), T(weight_decay), T(p.beta2), T(1 - p.beta1),
                       T(1 - p.beta2), T(p.eps)});
}

template <typename T>
void rmsprop_step(const Parameter<T>* list, std::int64_t count, const RmspropParams& p) {
    update_all(list, count,
               Rmsprop<T>{number<T>(&StepNumbers::lr, p.lr), T(p.alpha), T(1 - p.alpha), T(p.eps),
                          T(p.weight_decay), T(p.momentum)});
}

template <typename T>
void ema_update(const Parameter<T>* list, std::int64_t count, double decay) {
    const StepNumbers* numbers = cuda::step_numbers;
    update_all(list, count, Ema<T>{numbers ? &numbers->decay : nullptr, T(decay), T(1 - decay)});
}

template <typename T>
void scale(const Parameter<T>* list, std::int64_t count, double factor) {
    update_all(list, count, Scale<T>{{nullptr, T(factor)}});
}

template <typename T>
void clip_norm(const Parameter<T>* all, std::int64_t count, double limit) {
    std::int64_t all_blocks = 0;
    for_lists(all, count, [&](const ParameterList<T>&, unsigned blocks) { all_blocks += blocks; });
    const cuda::Scratch<double> partial(all_blocks), factor(1);
    double* next = partial.get();
    for_lists(all, count, [&](const ParameterList<T>& list, unsigned blocks) {
        cuda::launch(squares_kernel<T>, blocks, block_threads, 0, cuda::current_stream(), list, next);
        next += blocks;
    });
    cuda::launch(clip_factor_kernel, 1, block_threads, 0, cuda::current_stream(), partial.get(),
                 unsigned(cuda::narrow(all_blocks, "blocks of clip_norm")), limit, factor.get());
    update_all(all, count, Scale<T>{{factor.get(), T(1)}});
}

// The blocks' sums are added on the host, in order.
template <typename T>
double sum_of_squares(const Parameter<T>* all, std::int64_t count) {
    double sum = 0;
    for_lists(all, count, [&](const ParameterList<T>& list, unsigned blocks) {
        const cuda::Scratch<double> partial(blocks);
        cuda::launch(squares_kernel<T>, blocks, block_threads, 0, cuda::current_stream(), list,
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
    template void clip_norm(const Parameter<T>*, std::int64_t, double);                  \
    template double sum_of_squares(const Parameter<T>*, std::int64_t)
INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace minicnn
