// torch's headers for the device, apart for the same reason as torch_headers.h.
#pragma once
#pragma GCC system_header

#include <ATen/cuda/EmptyTensor.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
