// The few torch headers that the host side needs, kept apart so that our own warnings stay strict:
// to the compiler this file, and what it includes, is a system header.
#pragma once
#pragma GCC system_header

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/autograd/python_variable.h>
