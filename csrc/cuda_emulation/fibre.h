// A fibre is a function with a stack of its own, that can stop in the middle and continue later.  All
// fibres run in one thread of the host, one at a time.  Sanitizers are told of every switch from one to
// another.  Without a sanitizer a switch saves the registers only; saving the signal mask as well would
// take a system call.
#pragma once

#undef _FORTIFY_SOURCE  // its checked longjmp would take a jump to another stack for an error

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace emulation {

class Fibre {
  public:
    static constexpr std::size_t stack_bytes = 128 * 1024;

    Fibre() {
        stack_ = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack_ == MAP_FAILED) throw std::bad_alloc();
#if defined(__SANITIZE_THREAD__)
        tsan_ = __tsan_create_fiber(0);
#endif
    }
    ~Fibre() {
#if defined(__SANITIZE_THREAD__)
        __tsan_destroy_fiber(tsan_);
#endif
        munmap(stack_, stack_bytes);
    }
    Fibre(const Fibre&) = delete;
    Fibre& operator=(const Fibre&) = delete;

    bool has_on_stack(const void* at) const {
        return std::size_t(static_cast<const char*>(at) - static_cast<const char*>(stack_)) < stack_bytes;
    }

    // Makes the next resume() start body(), which must end by calling finish().
    void prepare(void (*body)()) {
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(stack_, stack_bytes);  // of a body that was never finished
#endif
        body_ = body;
        fresh_ = true;
    }

    // Runs the fibre until it calls yield() or finish().
    void resume() {
#if defined(__SANITIZE_ADDRESS__)
        void* fake;
        __sanitizer_start_switch_fiber(&fake, stack_, stack_bytes);
#endif
        current() = this;
        if (fresh_) {
            fresh_ = false;
            getcontext(&context_);
            context_.uc_stack = {stack_, 0, stack_bytes};
            context_.uc_link = nullptr;
            makecontext(&context_, &Fibre::enter, 0);
            first_switch();
        } else {
            next_switch();
        }
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    }

    // Returns to the caller of resume() for the fibre that runs now.
    static void yield() { current()->leave(false); }
    [[noreturn]] static void finish() {
        current()->leave(true);
        __builtin_unreachable();
    }

  private:
    static Fibre*& current() {
        static Fibre* fibre;
        return fibre;
    }

    static void enter() {
        current()->arrived();
        current()->body_();
    }

    void arrived() {
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_finish_switch_fiber(fake_, &host_stack_, &host_stack_bytes_);
#endif
    }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    void first_switch() {
#if defined(__SANITIZE_THREAD__)
        host_tsan_ = __tsan_get_current_fiber();
        __tsan_switch_to_fiber(tsan_, __tsan_switch_to_fiber_no_sync);
#endif
        swapcontext(&host_, &context_);
    }
    void next_switch() { first_switch(); }
    void switch_back() {
#if defined(__SANITIZE_THREAD__)
        __tsan_switch_to_fiber(host_tsan_, __tsan_switch_to_fiber_no_sync);
#endif
        swapcontext(&context_, &host_);
    }
#else
    void first_switch() {
        if (_setjmp(host_jump_) == 0) setcontext(&context_);
    }
    void next_switch() {
        if (_setjmp(host_jump_) == 0) _longjmp(jump_, 1);
    }
    void switch_back() {
        if (_setjmp(jump_) == 0) _longjmp(host_jump_, 1);
    }
    jmp_buf host_jump_, jump_;
#endif

    void leave([[maybe_unused]] bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_, host_stack_, host_stack_bytes_);
#endif
        switch_back();
        arrived();
    }

    void* stack_;
    void (*body_)() = nullptr;
    bool fresh_ = false;
    ucontext_t context_, host_;
#if defined(__SANITIZE_ADDRESS__)
    void* fake_ = nullptr;
    const void* host_stack_ = nullptr;
    std::size_t host_stack_bytes_ = 0;
#endif
#if defined(__SANITIZE_THREAD__)
    void *tsan_, *host_tsan_;
#endif
};

}  // namespace emulation
