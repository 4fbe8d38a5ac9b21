// The parts of a training step that other backends do on the host: here the device does them, so that the
// host need not wait for it.
#pragma once

#include <cstdint>

#include "../ops.h"

namespace minicnn {

// What steps add up, as float64 numbers; `minicnn/tally.py` reads them.  All start at 0.
struct Tally {
    double loss, correct;              // of the last step: the mean loss, and the right answers
    double total_loss, total_correct;  // of all steps: the sums over images
    double steps;
    double diverged_step, diverged_loss;  // the first step whose loss was not finite, from 1, and this loss
    double wrong_step, wrong_label;       // the first step with a label that is no class, and this label
    unsigned blocks_done, unused;         // of the kernel; 0 between two steps
};
constexpr std::int64_t tally_numbers = sizeof(Tally) / sizeof(double);

// The gradient of the mean loss; the loss goes to the tally.
template <typename T>
void cross_entropy_gradient(const T* logits, const Targets<T>& targets, T* dlogits, Tally* tally,
                            std::int64_t N, std::int64_t K);

// Scales the values down to the Euclidean norm `limit` where theirs is greater.
template <typename T>
void clip_norm(const Parameter<T>* list, std::int64_t count, double limit);

}  // namespace minicnn
