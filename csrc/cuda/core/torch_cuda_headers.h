// torch's headers for the device, in a file of their own for the same reason as csrc/host/torch_headers.h.
#pragma once
#pragma GCC system_header

#include <ATen/cuda/EmptyTensor.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
