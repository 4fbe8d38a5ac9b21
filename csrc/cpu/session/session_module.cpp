// What minicnn/graph/plans.py calls: plans of sessions, made operation by operation, and run without the
// GIL. Shapes and attributes are checked there.

#include "session_module.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>

#include "nodes.h"

namespace minicnn {
namespace {

namespace py = pybind11;
using session::Filters;
using session::FiltersPtr;
using session::Plan;
using session::Type;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

// F, KH, KW, OH, OW, stride, padding (above and to the left), dilation, groups
using ConvNumbers = std::array<std::int64_t, 12>;
// KH, KW, OH, OW, stride, padding (above and to the left), dilation, padding (below and to the right)
using PoolNumbers = std::array<std::int64_t, 12>;

ConvParams conv_params(const ConvNumbers& n) {
    return {0, 0, 0, 0, n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11]};
}

PoolParams pool_params(const PoolNumbers& n) {
    return {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11]};
}

FiltersPtr make_filters(const Floats& weight, const std::optional<Floats>& bias) {
    return std::make_shared<Filters>(weight.data(), weight.size(), bias ? bias->data() : nullptr,
                                     weight.shape(0));
}

void run(const Plan& plan, const py::array& x, py::array& y, int threads) {
    const void* from = x.data();
    void* to = y.mutable_data();
    const py::gil_scoped_release release;
    plan.run(from, to, threads);
}

int batch_norm2d(Plan& plan, int x, int residual, std::vector<float> gamma, std::vector<float> beta,
                 std::vector<float> mean, std::vector<float> var, double eps, bool relu) {
    return session::batch_norm2d(
        plan, x, residual, {std::move(gamma), std::move(beta), std::move(mean), std::move(var), eps}, relu);
}

}  // namespace

void offer_session(py::module_& m) {
    py::enum_<Type>(m, "SessionType")
        .value("uint8", Type::byte)
        .value("float32", Type::float32)
        .value("bfloat16", Type::bfloat16);
    py::class_<Filters, FiltersPtr>(m, "SessionFilters")
        .def(py::init(&make_filters))
        .def_property_readonly("bytes", &Filters::bytes);
    py::class_<Plan>(m, "SessionPlan")
        .def(py::init([](const std::array<std::int64_t, 4>& s, Type type) {
            return std::make_unique<Plan>(session::Value{{s[0], s[1], s[2], s[3]}, type});
        }))
        .def("images", &session::images)
        .def("conv2d",
             [](Plan& plan, int x, int residual, const FiltersPtr& filters, const ConvNumbers& conv,
                bool relu) { return session::conv2d(plan, x, residual, filters, conv_params(conv), relu); })
        .def("conv2d_pool",
             [](Plan& plan, int x, const FiltersPtr& filters, const ConvNumbers& conv,
                const PoolNumbers& pool, bool relu) {
                 return session::conv2d_pool(plan, x, filters, conv_params(conv), pool_params(pool), relu);
             })
        .def("dense", &session::dense)
        .def("batch_norm2d", &batch_norm2d)
        .def("max_pool2d",
             [](Plan& plan, int x, const PoolNumbers& pool) {
                 return session::max_pool2d(plan, x, pool_params(pool));
             })
        .def("avg_pool2d",
             [](Plan& plan, int x, const PoolNumbers& pool, bool count_include_pad) {
                 return session::avg_pool2d(plan, x, pool_params(pool), count_include_pad);
             })
        .def("adaptive_avg_pool2d", &session::adaptive_avg_pool2d)
        .def("relu", &session::relu)
        .def("relu6", &session::relu6)
        .def("add", &session::add)
        .def("concat", &session::concat)
        .def("flatten", &session::flatten)
        .def("softmax", &session::softmax)
        .def("cast", &session::cast)
        .def("finish", &Plan::finish)
        .def(
            "choose_threads",
            [](Plan& plan, int threads, double call, double delay) {
                plan.choose_threads(threads, {call, delay});
            },
            py::call_guard<py::gil_scoped_release>())
        .def("run", &run)
        .def_property_readonly("arena_bytes", &Plan::arena_bytes);
}

}  // namespace minicnn
