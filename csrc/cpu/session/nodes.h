// The operations of a plan.  Each function adds one and gives the number of its value.  Routers are asked
// here, once, and filters are made ready for the way that they choose.
#pragma once

#include <vector>

#include "filters.h"
#include "plan.h"

namespace minicnn::session {

// Images (N,C,H,W), of bytes or float, as channels-last float.  Of bytes, value b of channel c becomes
// table[c * 256 + b]; of floats, there is no table.
int images(Plan& plan, int x, std::vector<float> table);

// N, C, H and W of `p` are taken from the value.  `residual` is a value that is added before ReLU, or -1.
int conv2d(Plan& plan, int x, int residual, const FiltersPtr& filters, ConvParams p, bool relu);
int conv2d_pool(Plan& plan, int x, const FiltersPtr& filters, ConvParams p, const PoolParams& pool,
                bool relu);
int dense(Plan& plan, int x, const FiltersPtr& filters, std::int64_t outputs, bool relu);

// The four vectors of a batch norm, each of C values; gamma and beta may be empty.
struct BatchNorm {
    std::vector<float> gamma, beta, mean, var;
    double eps;
};
// `residual` is a value that is added, or -1.
int batch_norm2d(Plan& plan, int x, int residual, const BatchNorm& norm, bool relu);

int max_pool2d(Plan& plan, int x, const PoolParams& pool);
int avg_pool2d(Plan& plan, int x, const PoolParams& pool, bool count_include_pad);
int adaptive_avg_pool2d(Plan& plan, int x, std::int64_t OH, std::int64_t OW);
int relu(Plan& plan, int x);
int relu6(Plan& plan, int x);
int add(Plan& plan, int a, int b, bool relu);
int concat(Plan& plan, const std::vector<int>& pieces);
int flatten(Plan& plan, int x);
int softmax(Plan& plan, int x);
int cast(Plan& plan, int x, Type type);

}  // namespace minicnn::session
