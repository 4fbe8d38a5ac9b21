// Everything that a compiled backend offers to Python, the same for the CPU and the CUDA module.  Each
// header offers its own operations at its end.
#pragma once

#include "batch_norm2d.h"
#include "conv2d.h"
#include "conv2d_pool.h"
#include "dense.h"
#include "elementwise.h"
#include "make_batch.h"
#include "optimizers.h"
#include "pool.h"
#include "rearrange.h"
#include "softmax.h"

namespace minicnn {

inline void bind(py::module_& m) {
    host::offer_conv2d(m);
    host::offer_conv2d_pool(m);
    host::offer_dense(m);
    host::offer_pool(m);
    host::offer_batch_norm2d(m);
    host::offer_elementwise(m);
    host::offer_softmax(m);
    host::offer_rearrange(m);
    host::offer_make_batch(m);
    host::offer_optimizers(m);
}

}  // namespace minicnn
