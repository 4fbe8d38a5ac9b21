// The numbers of a training step that are other ones in each step.
//
// A captured step repeats its launches with the arguments that they had when it was captured.  So its
// kernels read these numbers on the device, where the host puts those of the step under way.
#pragma once

#include "device.h"

namespace minicnn::cuda {

struct StepNumbers {
    double lr, step_size, bias_correction2_sqrt, keep;  // of the optimizer's step
    double decay;                                       // of the weight average
};

// Where the device has them.  nullptr: an operation takes the numbers that it is called with.
inline thread_local const StepNumbers* step_numbers = nullptr;

// A number that a kernel takes from its call, or from `there`.
template <typename T>
struct Number {
    const double* there;
    T value;
    __device__ void fetch() {
        if (there) value = T(*there);
    }
};

// The member `of` of the step's numbers if the device has them, else `value`.
template <typename T>
Number<T> number(double StepNumbers::* of, double value) {
    return {step_numbers ? &(step_numbers->*of) : nullptr, T(value)};
}

}  // namespace minicnn::cuda
