// The part of the CPU module that sessions call.
#pragma once

#include <pybind11/pybind11.h>

namespace minicnn {

void offer_session(pybind11::module_& m);

}  // namespace minicnn
