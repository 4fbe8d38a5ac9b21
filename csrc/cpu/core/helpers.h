// Threads that help whoever calls a kernel.  They wait for work actively for a moment after each call, so
// that the operations of a network, which follow one another, need not wake them every time.
#pragma once

namespace minicnn {

// Calls body(context, 0) on this thread, and body(context, i) with 0 < i < count on helpers.  The same i
// has the same helper in every call, unless other callers keep that one busy.  A helper that has not come
// by the time that this thread is done is not waited for, and its i is never called: so body(context, 0)
// has to do whatever nobody else does.  Within a body, body(context, 0) is the only call.  An exception
// thrown by a body comes out.
void run_with_helpers(int count, void (*body)(void*, int), void* context);

// Wakes helpers for work of so many threads that comes soon.
void rouse_helpers(int count);

// How long it takes to wake a helper, in seconds: the call alone, and until the helper computes.
struct Waking {
    double call, delay;
};
Waking measure_waking();

}  // namespace minicnn
