// The few torch headers that the host side needs.  For the compiler, this file and what it includes are
// system headers, whose warnings it does not show.  So strict warnings are possible everywhere else.
#pragma once
#pragma GCC system_header

#include <ATen/EmptyTensor.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/autograd/python_variable.h>
