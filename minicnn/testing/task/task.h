// What the C++ of assignments needs: how a function is exported, and how it says what went wrong.
#pragma once

#include <exception>
#include <string>

#define TASK extern "C" __attribute__((visibility("default"))) const char*

namespace task {

inline bool& gap_reached() {
    static bool reached = false;
    return reached;
}

// Calls the function; nullptr if all went well, else words.
template <typename F>
const char* run(const F& function) {
    static std::string words;
    gap_reached() = false;
    try {
        function();
    } catch (const std::exception& error) {
        words = error.what();
        return words.c_str();
    }
    return gap_reached() ? "not implemented" : nullptr;
}

}  // namespace task

// Stands where a solution is missing, also in a kernel.
inline void not_implemented() { task::gap_reached() = true; }
