// The same for CUDA kernels that the emulation runs on the CPU: `launch`, and shared memory.
#pragma once

#include "task.h"
#include "without_torch.h"

using minicnn::cuda::launch;
