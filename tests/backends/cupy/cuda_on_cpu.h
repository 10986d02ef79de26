// Runs CUDA C++ kernels on the CPU, to test them without a GPU.
//
// Blocks run one after the other. Within a block, threads run one after the other too, each on a fiber (a stack of its
// own), until it ends or waits at a barrier; then the next thread starts, and waiting ones go on when their barrier
// opens. A kernel without barriers so runs in one plain loop. The order of threads and of blocks can be reversed, and
// warps can run ahead of others as far as barriers let them: a result that changes with the order is a race.
//
// Found besides races: threads of one block waiting at different barriers, barriers that can never open, shuffles from
// a thread that has left, accesses to pages without access, writes beyond dynamic shared memory, and (as not-a-number)
// reads of what was never written there. Not modelled: memory ordering weaker than one thread at a time, and time.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // one copy for all threads; blocks run one at a time

struct dim3 {
    unsigned int x, y, z;
};

static dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace cpu {

const unsigned int MOST_THREADS = 1024, WARP = 32;
const size_t MOST_SHARED_BYTES = 232448, SHARED_GUARD = 256, STACK_BYTES = 64 << 10;

// A launch: the kernel with its arguments, and how it is to be run.
struct Launch {
    void (*kernel)(void** arguments);
    void** arguments;
    dim3 grid, block;
    size_t shared_bytes;
    bool reverse_threads, reverse_blocks;
    unsigned int interleave;  // 0: warps in lockstep; 1: each warp as far ahead as possible; others: at random
};

struct Barrier {
    unsigned int members, waiting, opened;  // opened: how often
    int line;                               // where the first one waits
};

struct Fiber {
    ucontext_t start;   // how to enter it for the first time
    jmp_buf resume;     // and later; much faster than swapcontext, which asks the kernel to keep the signal mask
    bool entered;
    unsigned int thread;
    Barrier* waits_for;
    unsigned int opened_before;
};

static Launch launch;
static Fiber fibers[MOST_THREADS];
static unsigned int fiber_count;   // fibers with a stack
static Fiber* current;
static jmp_buf scheduler;
static unsigned int threads, next_place, end_place;  // places: threads in the order in which they start
static Barrier block_barrier, warp_barrier[MOST_THREADS / WARP];
static bool has_left[MOST_THREADS];
static const char* error;
static char error_text[256];
static unsigned int random_state;
static void* fault;  // the address of the access that the system refused
alignas(128) static unsigned char shared_memory[MOST_SHARED_BYTES + SHARED_GUARD];

// ---- fibers ---------------------------------------------------------------------------------------------------------

static void back_to_scheduler() {
    if (!_setjmp(current->resume)) _longjmp(scheduler, 1);
}

static void fail(const char* text) {
    if (!error) error = text;
    back_to_scheduler();  // for good: the scheduler gives up
}

static void place_thread(unsigned int thread) {
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
}

static void leave(Barrier& barrier) {
    --barrier.members;
    if (barrier.members && barrier.waiting == barrier.members) {  // the others were waiting for this thread alone
        barrier.waiting = 0;
        ++barrier.opened;
    }
}

// What a fiber does: run threads that shall start and have not yet, one after the other. If one has to wait, this fiber waits
// with it, and the scheduler enters another.
static void run_threads() {
    for (;;) {
        while (next_place < end_place) {
            const unsigned int place = next_place++;
            current->thread = launch.reverse_threads ? threads - 1 - place : place;
            place_thread(current->thread);
            launch.kernel(launch.arguments);
            has_left[current->thread] = true;
            leave(block_barrier);
            leave(warp_barrier[current->thread / WARP]);
        }
        current->thread = MOST_THREADS;  // idle
        back_to_scheduler();
    }
}

static void enter(Fiber& fiber) {
    current = &fiber;
    if (_setjmp(scheduler)) return;
    if (fiber.entered) _longjmp(fiber.resume, 1);
    fiber.entered = true;
    setcontext(&fiber.start);
}

static Fiber& new_fiber() {
    Fiber& fiber = fibers[fiber_count++];
    if (!fiber.start.uc_stack.ss_sp) fiber.start.uc_stack.ss_sp = malloc(STACK_BYTES);
    void* stack = fiber.start.uc_stack.ss_sp;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stack;
    fiber.start.uc_stack.ss_size = STACK_BYTES;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_threads, 0);
    fiber.entered = false;
    fiber.thread = MOST_THREADS;
    return fiber;
}

// ---- barriers and shuffles ------------------------------------------------------------------------------------------

static void wait(Barrier& barrier, int line, const char* name) {
    if (barrier.waiting == 0) {
        barrier.line = line;
    } else if (barrier.line != line) {
        snprintf(error_text, sizeof error_text, "divergent barrier: %s at line %d while others wait at line %d", name,
                 line, barrier.line);
        fail(error_text);
    }
    if (++barrier.waiting == barrier.members) {
        barrier.waiting = 0;
        ++barrier.opened;
        return;
    }
    current->waits_for = &barrier;
    current->opened_before = barrier.opened;
    back_to_scheduler();
}

static void sync_warp(unsigned int mask, int line) {
    if (mask != 0xffffffffu) fail("only full warps are supported: mask is not 0xffffffff");
    wait(warp_barrier[current->thread / WARP], line, "warp barrier or shuffle");
}

static unsigned long long shuffle_slot[2][MOST_THREADS];
static unsigned char shuffle_turn[MOST_THREADS];

// Two sets of slots take turns, so one barrier is enough: a lane can only write a slot again after a shuffle in between,
// whose barrier shows that all lanes have read it.
template <typename T>
static T shuffle(unsigned int mask, T value, unsigned int source_lane, int line) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    const unsigned int thread = current->thread, source = (thread & ~(WARP - 1)) + (source_lane & (WARP - 1));
    unsigned long long* slots = shuffle_slot[shuffle_turn[thread] ^= 1];
    memcpy(&slots[thread], &value, sizeof value);
    if (source >= threads || has_left[source]) fail("shuffle from a lane that has left or does not exist");
    sync_warp(mask, line);
    T result;
    memcpy(&result, &slots[source], sizeof result);
    return result;
}

// ---- blocks ---------------------------------------------------------------------------------------------------------

// Start the threads of some places; each runs until it ends or waits.
static void start(unsigned int first, unsigned int end) {
    next_place = first;
    end_place = end;
    for (unsigned int i = 0; next_place < end_place && !error; ++i) {
        if (i < fiber_count && fibers[i].thread != MOST_THREADS) continue;
        enter(i < fiber_count ? fibers[i] : new_fiber());
    }
}

static bool can_go_on(const Fiber& fiber) {
    return fiber.thread != MOST_THREADS && fiber.waits_for->opened != fiber.opened_before;
}

// Let threads go on whose barrier has opened, each until it ends or waits; whether there were any.
static bool resume(unsigned int first_thread, unsigned int end_thread) {
    bool progress = false;
    for (unsigned int i = 0; i < fiber_count && !error; ++i) {
        Fiber& fiber = fibers[i];
        if (fiber.thread < first_thread || fiber.thread >= end_thread || !can_go_on(fiber)) continue;
        progress = true;
        place_thread(fiber.thread);
        enter(fiber);
    }
    return progress;
}

// All warps go from barrier to barrier together.
static void run_in_lockstep() {
    start(0, threads);
    while (resume(0, threads) && !error) {
    }
}

// One warp after the other goes from barrier to barrier, in any order that barriers allow.
static void run_warps_apart() {
    const unsigned int warps = (threads + WARP - 1) / WARP;
    unsigned int started = 0, last = launch.reverse_threads ? warps - 1 : 0;  // `started`: a bit for each warp
    while (!error) {
        unsigned int ready = ~started & (warps == 32 ? ~0u : (1u << warps) - 1);
        for (unsigned int i = 0; i < fiber_count; ++i)
            if (can_go_on(fibers[i])) ready |= 1u << fibers[i].thread / WARP;
        if (!ready) return;
        unsigned int warp = last;
        if (launch.interleave > 1) {
            random_state = random_state * 1664525u + 1013904223u;
            warp = random_state >> 16;
        }
        const unsigned int step = launch.reverse_threads ? warps - 1 : 1;
        for (warp %= warps; !(ready >> warp & 1);) warp = (warp + step) % warps;
        last = warp;
        const unsigned int first = warp * WARP, end = first + WARP < threads ? first + WARP : threads;
        if (started >> warp & 1) {
            resume(first, end);
        } else {
            started |= 1u << warp;
            if (launch.reverse_threads)
                start(threads - end, threads - first);
            else
                start(first, end);
        }
    }
}

static void run_block() {
    block_barrier = {threads, 0, 0, 0};
    for (unsigned int warp = 0; warp * WARP < threads; ++warp) {
        const unsigned int members = threads - warp * WARP < WARP ? threads - warp * WARP : WARP;
        warp_barrier[warp] = {members, 0, 0, 0};
    }
    memset(has_left, 0, sizeof has_left);
    memset(shuffle_turn, 0, sizeof shuffle_turn);
    memset(shared_memory, 0xff, launch.shared_bytes + SHARED_GUARD);  // not-a-number, as float and as double
    if (launch.interleave)
        run_warps_apart();
    else
        run_in_lockstep();
    for (unsigned int i = 0; i < fiber_count && !error; ++i)
        if (fibers[i].thread != MOST_THREADS) error = "divergent barrier: it waits for threads that never come";
    for (size_t i = 0; i < SHARED_GUARD && !error; ++i)
        if (shared_memory[launch.shared_bytes + i] != 0xff) error = "write beyond the dynamic shared memory";
}

// The system refused an access of the running thread, which is abandoned.
static void refused(int, siginfo_t* info, void*) {
    fault = info->si_addr;
    error = "access outside of every buffer";
    _longjmp(scheduler, 1);
}

// Run a launch; null, or what went wrong.
static const char* run(const Launch& what) {
    launch = what;
    gridDim = launch.grid;
    blockDim = launch.block;
    threads = blockDim.x * blockDim.y * blockDim.z;
    error = nullptr;
    fault = nullptr;
    random_state = launch.interleave;
    struct sigaction ours = {}, others;
    ours.sa_sigaction = refused;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER;  // the signal must not stay blocked after the jump
    sigaction(SIGSEGV, &ours, &others);
    const unsigned long long blocks = (unsigned long long)gridDim.x * gridDim.y * gridDim.z;
    for (unsigned long long i = 0; i < blocks && !error; ++i) {
        const unsigned long long block = launch.reverse_blocks ? blocks - 1 - i : i;
        blockIdx = {(unsigned int)(block % gridDim.x), (unsigned int)(block / gridDim.x % gridDim.y),
                    (unsigned int)(block / gridDim.x / gridDim.y)};
        run_block();
    }
    sigaction(SIGSEGV, &others, nullptr);
    if (error) fiber_count = 0;  // their threads are stuck half-way; the stacks are used again
    return error;
}

}  // namespace cpu

// What kernels call. The line is where a call stands: threads that meet at a barrier must have come from the same one.

static inline void __syncthreads(int line = __builtin_LINE()) { cpu::wait(cpu::block_barrier, line, "__syncthreads"); }

static inline void __syncwarp(unsigned int mask = 0xffffffffu, int line = __builtin_LINE()) {
    cpu::sync_warp(mask, line);
}

template <typename T>
static inline T __shfl_sync(unsigned int mask, T value, int lane, int line = __builtin_LINE()) {
    return cpu::shuffle(mask, value, lane, line);
}

template <typename T>
static inline T __shfl_xor_sync(unsigned int mask, T value, int lanes, int line = __builtin_LINE()) {
    return cpu::shuffle(mask, value, (cpu::current->thread % cpu::WARP) ^ lanes, line);
}

template <typename T>
static inline T __shfl_down_sync(unsigned int mask, T value, int distance, int line = __builtin_LINE()) {
    const unsigned int lane = cpu::current->thread % cpu::WARP;
    return cpu::shuffle(mask, value, lane + distance < cpu::WARP ? lane + distance : lane, line);
}

#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(cpu::shared_memory)
