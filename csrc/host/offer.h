// How a host function is offered to Python: under the contract's name, with the contract's argument names.
//
// pybind11's own way of calling a function (m.def with py::arg) compares every argument's name with every
// keyword of the call and turns it into a Python string each time.  That is about 0.1 us an argument, and a
// convolution's backward pass has ten.  Here the names are made once, and finding one is a comparison of
// pointers.  pybind11's casters still convert the values.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "arguments.h"

namespace minicnn {

using namespace py::literals;  // "x"_a is the argument x; "need_dx"_a = true has a default

// The names of a function's arguments, in order.
class Signature {
  public:
    // `names` are "x"_a and the like, with py::kw_only() before the keyword-only ones.
    template <typename... Names>
    explicit Signature(const char* function, const Names&... names) : function_(function) {
        (add(names), ...);
        if (!keyword_only_) positional_ = arguments_.size();
        // The form in which inspect.signature() and help() look for a compiled function's signature.
        doc_ = function_ + "(" + text_ + ")\n--\n\n";
    }

    const char* function() const { return function_.c_str(); }
    const char* doc() const { return doc_.c_str(); }
    std::size_t size() const { return arguments_.size(); }

    // Sorts the arguments of a vectorcall into the signature's order, and fills in defaults.
    void arrange(PyObject* const* given, std::size_t count, PyObject* keywords, PyObject** values) const {
        if (count > positional_) {
            refuse("takes " + std::to_string(positional_) + " positional arguments, got " +
                   std::to_string(count));
        }
        for (std::size_t i = 0; i < size(); ++i) values[i] = i < count ? given[i] : nullptr;
        const Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;
        for (Py_ssize_t k = 0; k < named; ++k) {
            PyObject*& value = values[place(PyTuple_GET_ITEM(keywords, k))];
            if (value) refuse("got an argument twice: " + repr(PyTuple_GET_ITEM(keywords, k)));
            value = given[count + std::size_t(k)];
        }
        for (std::size_t i = 0; i < size(); ++i) {
            if (!values[i]) values[i] = arguments_[i].standard;
            if (!values[i]) refuse("lacks the argument " + repr(arguments_[i].name));
        }
    }

    // Raises the contract's error unless a flag of the operation is True or False.
    void check_flag(std::size_t i, PyObject* value) const {
        if (is_bool(value)) return;
        const std::string op = function_.substr(0, function_.rfind("_forward"));
        const std::string name = py::str(arguments_[i].name);
        fail(op.c_str(), name.c_str(), "True or False", shown(value));
    }

    [[noreturn]] void refuse_type(std::size_t i, PyObject* value) const {
        refuse("cannot take " + std::string(Py_TYPE(value)->tp_name) + " for the argument " +
               repr(arguments_[i].name));
    }

  private:
    struct Argument {
        PyObject* name;      // interned, as the keywords of almost every call are; both live for ever
        PyObject* standard;  // the default value, or nullptr
    };

    void add(const py::arg& a) { add(a.name, nullptr, a.name); }
    void add(const py::arg_v& a) {
        add(a.name, a.value.inc_ref().ptr(), a.name + ("=" + repr(a.value.ptr())));
    }
    void add(const py::kw_only&) {
        keyword_only_ = true;
        positional_ = arguments_.size();
        write("*");
    }
    void add(const char* name, PyObject* standard, const std::string& text) {
        arguments_.push_back({PyUnicode_InternFromString(name), standard});
        write(text);
    }
    void write(const std::string& text) { text_ += (text_.empty() ? "" : ", ") + text; }

    std::size_t place(PyObject* keyword) const {
        for (std::size_t i = 0; i < size(); ++i) {
            if (arguments_[i].name == keyword) return i;
        }
        for (std::size_t i = 0; i < size(); ++i) {  // a keyword that was put together at run time
            if (PyUnicode_Compare(arguments_[i].name, keyword) == 0) return i;
        }
        refuse("has no argument " + repr(keyword));
    }

    [[noreturn]] void refuse(const std::string& why) const {
        throw py::type_error(function_ + "() " + why);
    }

    std::string function_, text_, doc_;
    std::vector<Argument> arguments_;
    std::size_t positional_ = 0;  // how many may be passed without their names
    bool keyword_only_ = false;
};

// A host function as a Python callable.
template <typename Result, typename... Arguments>
class Callable {
  public:
    Callable(Result (*function)(Arguments...), Signature signature)
        : function_(function), signature_(std::move(signature)) {
        if (signature_.size() != sizeof...(Arguments)) throw std::logic_error(signature_.doc());
    }
    const Signature& signature() const { return signature_; }

    PyObject* operator()(PyObject* const* given, std::size_t count, PyObject* keywords) const {
        PyObject* values[sizeof...(Arguments)];
        signature_.arrange(given, count, keywords, values);
        return call(values, std::index_sequence_for<Arguments...>());
    }

  private:
    template <std::size_t... I>
    PyObject* call(PyObject** values, std::index_sequence<I...>) const {
        std::tuple<py::detail::make_caster<Arguments>...> casters;
        const auto load = [&](std::size_t i, auto& caster) {
            using Caster = std::remove_reference_t<decltype(caster)>;
            if (std::is_same_v<Caster, py::detail::make_caster<bool>>) signature_.check_flag(i, values[i]);
            if (!caster.load(values[i], /*convert=*/true)) signature_.refuse_type(i, values[i]);
        };
        (load(I, std::get<I>(casters)), ...);
        const Device::Call for_its_duration;
        if constexpr (std::is_void_v<Result>) {
            function_(py::detail::cast_op<Arguments>(std::get<I>(casters))...);
            return py::none().release().ptr();
        } else {
            return py::detail::make_caster<Result>::cast(
                       function_(py::detail::cast_op<Arguments>(std::get<I>(casters))...),
                       py::return_value_policy::move, py::handle())
                .ptr();
        }
    }

    Result (*function_)(Arguments...);
    Signature signature_;
};

// Runs f, whose exceptions become Python's, as pybind11 translates them.
template <typename F>
PyObject* translating_exceptions(const F& f) {
    try {
        return f();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const py::builtin_exception& error) {
        error.set_error();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::logic_error& error) {  // fail()'s std::invalid_argument among them
        PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

// Offers a host function to Python.  `names` are the names and defaults of its arguments.
template <auto function, typename... Names>
void offer(py::module_& m, const char* name, const Names&... names) {
    static const Callable callable(function, Signature(name, names...));
    const auto call = [](PyObject*, PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
        return translating_exceptions([&] { return callable(given, std::size_t(count), keywords); });
    };
    PyObject* (*const pointer)(PyObject*, PyObject* const*, Py_ssize_t, PyObject*) = call;
    static PyMethodDef definition = {callable.signature().function(),
                                     reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(pointer)),
                                     METH_FASTCALL | METH_KEYWORDS, callable.signature().doc()};
    const py::object module_name = m.attr("__name__");
    m.attr(name) =
        py::reinterpret_steal<py::object>(PyCFunction_NewEx(&definition, nullptr, module_name.ptr()));
}

}  // namespace minicnn
