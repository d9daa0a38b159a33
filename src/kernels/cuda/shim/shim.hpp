// A CUDA device in a test: one block at a time, its threads as fibers on one OS thread.
//
// Every access to global or shared memory is checked: inside of a buffer, aligned, written before it is read, and without
// a race (two threads, no barrier between them, one of them writes). A barrier or a shuffle that not all of its threads
// reach at the same line is an error. Any error ends the process with a message on stderr.
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>
#include <ucontext.h>
#include <vector>

#include "streams.hpp"

#define DEVICE inline
#define __global__
#define __launch_bounds__(...)

struct Dim {
    unsigned x, y, z;
};
inline Dim threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
template <typename T> T min(T a, T b) { return a < b ? a : b; }
template <typename T> T max(T a, T b) { return a < b ? b : a; }

namespace shim {

[[noreturn]] inline void fail(const char *format, ...) {
    std::fprintf(stderr, "block %u thread %u: ", blockIdx.x, threadIdx.x);
    va_list arguments;
    va_start(arguments, format);
    std::vfprintf(stderr, format, arguments);
    va_end(arguments);
    std::fputc('\n', stderr);
    std::exit(1);
}

// --- threads -----------------------------------------------------------------------------------------------------

constexpr unsigned LANES = 32;
constexpr size_t STACK = 128 << 10;

enum class State { Ready, Warp, Block, Done };

struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    State state;
    int line;            // of the barrier or shuffle that it waits at
    uint64_t warp_epoch; // warp-wide meetings so far
};

struct Launch {
    std::vector<Thread> threads;
    std::function<void()> body;
    ucontext_t scheduler;
    unsigned current;
    uint64_t block_epoch; // over all blocks: an access of another block is never of this epoch
    uint64_t before;      // the last epoch of the kernels that have ended: nothing races with them
    std::vector<unsigned> exchanged[2];
};
inline Launch launch;

inline unsigned warp_of(unsigned thread) { return thread / LANES; }

inline void wait(State state, int line) {
    Thread &thread = launch.threads[launch.current];
    thread.state = state;
    thread.line = line;
    swapcontext(&thread.context, &launch.scheduler);
}

inline void enter() {
    launch.body();
    launch.threads[launch.current].state = State::Done;
    swapcontext(&launch.threads[launch.current].context, &launch.scheduler);
}

// The threads [first, end) wait in `state` at one line: they go on. Otherwise, with someone in `state`, nobody may differ.
inline bool release(unsigned first, unsigned end, State state) {
    unsigned waiting = 0;
    for (unsigned i = first; i < end; i++)
        waiting += launch.threads[i].state == state;
    if (waiting == 0)
        return false;
    for (unsigned i = first; i < end; i++) {
        threadIdx.x = i;
        if (launch.threads[i].state != state) {
            if (state == State::Block && launch.threads[i].state == State::Warp)
                return false; // perhaps it comes here yet
            fail("a divergent %s: not every thread reached it", state == State::Block ? "barrier" : "shuffle");
        }
        if (launch.threads[i].line != launch.threads[first].line)
            fail("a divergent meeting: threads wait at lines %d and %d", launch.threads[first].line,
                 launch.threads[i].line);
    }
    for (unsigned i = first; i < end; i++) {
        launch.threads[i].state = State::Ready;
        launch.threads[i].warp_epoch++;
    }
    return true;
}

inline void run_block(unsigned block) {
    blockIdx.x = block;
    launch.block_epoch++;
    for (Thread &thread : launch.threads) {
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = STACK;
        thread.context.uc_link = nullptr;
        makecontext(&thread.context, enter, 0);
        thread.state = State::Ready;
        thread.warp_epoch = 1;
    }
    const unsigned count = (unsigned)launch.threads.size();
    for (;;) {
        for (unsigned i = 0; i < count; i++) {
            if (launch.threads[i].state != State::Ready)
                continue;
            launch.current = threadIdx.x = i;
            swapcontext(&launch.scheduler, &launch.threads[i].context);
        }
        bool moved = false;
        for (unsigned first = 0; first < count; first += LANES)
            moved |= release(first, first + LANES, State::Warp);
        if (moved)
            continue;
        if (!release(0, count, State::Block))
            return;
        launch.block_epoch++;
    }
}

// --- memory ------------------------------------------------------------------------------------------------------

// The last accesses of a word. An epoch is a block's, so two blocks never share one.
struct Access {
    uint64_t epoch, warp_epoch;
    unsigned thread, block;
};
struct Word {
    Access written, read, read_before; // the last reader, and the last other than that
    Visits visits;
    uint64_t counted; // the warp and meeting for which its load was counted last
    bool valid, touched;
};

enum class Kind : uint32_t { ReadOnly, Output, InOut };

// Buffers and shared memory are tracked by units of this many bytes; accesses are whole units, or inside of one.
struct Buffer {
    uint8_t *start;
    size_t length;
    Kind kind;
    size_t unit;
    std::vector<Word> words;
};
inline std::vector<Buffer> buffers;
inline Buffer shared_memory;

struct Counts {
    uint64_t loaded, stored, distinct_loaded;
};
inline Counts counts;

inline Access here() {
    return {launch.block_epoch, launch.threads[launch.current].warp_epoch, launch.current, blockIdx.x};
}

// Whether `before` may be at the same time as `now`.
inline bool concurrent(const Access &before, const Access &now) {
    if (before.epoch <= launch.before || (before.block == now.block && before.thread == now.thread))
        return false;
    if (before.block != now.block)
        return true;
    const bool same_warp = warp_of(before.thread) == warp_of(now.thread);
    return before.epoch == now.epoch && !(same_warp && before.warp_epoch != now.warp_epoch);
}

// Notes an access of the operation that runs.
inline void note(Word &word, bool write, const char *what) {
    const int64_t stream = word.visits.note(write);
    if (stream >= 0)
        fail("%s: stream %u does not wait for stream %u, which used the same memory", what, current_stream, (unsigned)stream);
}

inline void access(Buffer &buffer, const void *at, size_t size, bool write, const char *what) {
    const size_t offset = (size_t)((const uint8_t *)at - buffer.start);
    if (offset % size != 0)
        fail("%s: %zu bytes at offset %zu are not aligned", what, size, offset);
    const Access now = here();
    for (size_t unit = offset / buffer.unit; unit * buffer.unit < offset + size; unit++) {
        Word &word = buffer.words[unit];
        note(word, write, what);
        if (concurrent(word.written, now))
            fail("%s: a race at offset %zu with thread %u of block %u, which wrote", what, offset, word.written.thread,
                 word.written.block);
        if (write) {
            for (const Access &read : {word.read, word.read_before})
                if (concurrent(read, now))
                    fail("%s: a race at offset %zu with thread %u of block %u, which read", what, offset, read.thread,
                         read.block);
            word.written = now;
            word.valid = true;
            continue;
        }
        if (!word.valid)
            fail("%s: offset %zu is read and was never written", what, offset);
        if (word.read.thread != now.thread || word.read.block != now.block)
            word.read_before = word.read;
        word.read = now;
        // A warp that reads a word twice between two meetings, or with several lanes, moves it once.
        const uint64_t stamp = ((now.epoch * 64 + warp_of(now.thread)) << 24) + now.warp_epoch;
        if (word.counted != stamp && buffer.start != shared_memory.start) {
            counts.loaded += buffer.unit;
            counts.distinct_loaded += word.touched ? 0 : buffer.unit;
        }
        word.counted = stamp;
        word.touched = true;
    }
    if (write && buffer.start != shared_memory.start)
        counts.stored += size;
}

inline void check_global(const void *at, size_t size, bool write) {
    static size_t last = 0;
    const auto holds = [&](const Buffer &buffer) {
        return (const uint8_t *)at >= buffer.start && (const uint8_t *)at + size <= buffer.start + buffer.length;
    };
    if (last >= buffers.size() || !holds(buffers[last])) {
        for (last = 0; last < buffers.size() && !holds(buffers[last]); last++) {
        }
        if (last == buffers.size())
            fail("global memory: %zu bytes at %p lie in no buffer", size, at);
    }
    if (write && buffers[last].kind == Kind::ReadOnly)
        fail("global memory: buffer %zu is read only", last);
    access(buffers[last], at, size, write, "global memory");
}

inline void check_shared(const void *at, size_t size, bool write) {
    const uint8_t *start = (const uint8_t *)at;
    if (start < shared_memory.start || start + size > shared_memory.start + shared_memory.length)
        fail("shared memory: offset %td of %zu bytes", start - shared_memory.start, shared_memory.length);
    access(shared_memory, at, size, write, "shared memory");
}

// A pointer whose every access is checked by `check`. As large as a plain one: kernels' arguments keep their layout.
template <typename T, void (*check)(const void *, size_t, bool)> struct Pointer {
    T *raw;

    struct Place {
        T *raw;
        operator std::remove_const_t<T>() const {
            check(raw, sizeof(T), false);
            return *raw;
        }
        void operator=(const T &value) const {
            check(raw, sizeof(T), true);
            *const_cast<std::remove_const_t<T> *>(raw) = value;
        }
    };

    auto operator[](size_t index) const {
        if constexpr (std::is_const_v<T>)
            return (std::remove_const_t<T>)Place{raw + index};
        else
            return Place{raw + index};
    }
    Pointer operator+(size_t count) const { return {raw + count}; }
    operator Pointer<const T, check>() const { return {raw}; }
};

} // namespace shim

template <typename T> using Global = shim::Pointer<T, shim::check_global>;
template <typename T> using Shared = shim::Pointer<T, shim::check_shared>;

inline Shared<float> dynamic_shared() { return {(float *)shim::shared_memory.start}; }

template <typename V, typename T> V load_as(Global<T> p) {
    shim::check_global(p.raw, sizeof(V), false);
    return *(const V *)p.raw;
}
template <typename V, typename T> void store_as(Global<T> p, V value) {
    shim::check_global(p.raw, sizeof(V), true);
    *(V *)p.raw = value;
}
template <typename V, typename T> V shared_as(Shared<T> p) {
    shim::check_shared(p.raw, sizeof(V), false);
    return *(const V *)p.raw;
}

inline void store_shared4(Shared<float> p, float4 value) {
    shim::check_shared(p.raw, sizeof value, true);
    *(float4 *)p.raw = value;
}

inline void __syncthreads(int line = __builtin_LINE()) { shim::wait(shim::State::Block, line); }
inline void __syncwarp(int line = __builtin_LINE()) { shim::wait(shim::State::Warp, line); }

// What lane `source` gave. Two halves in turn: a lane that runs ahead leaves what the others have yet to read.
inline unsigned exchange(unsigned mine, unsigned source, int line) {
    const unsigned current = shim::launch.current;
    auto &half = shim::launch.exchanged[shim::launch.threads[current].warp_epoch % 2];
    half[current] = mine;
    shim::wait(shim::State::Warp, line);
    return half[current / shim::LANES * shim::LANES + source];
}
inline float __shfl_sync(unsigned, float value, unsigned source, int line = __builtin_LINE()) {
    return __uint_as_float(exchange(__float_as_uint(value), source % shim::LANES, line));
}
inline float __shfl_xor_sync(unsigned, float value, unsigned mask, int line = __builtin_LINE()) {
    return __uint_as_float(exchange(__float_as_uint(value), (threadIdx.x % shim::LANES) ^ mask, line));
}
inline unsigned __shfl_xor_sync(unsigned, unsigned value, unsigned mask, int line = __builtin_LINE()) {
    return exchange(value, (threadIdx.x % shim::LANES) ^ mask, line);
}
inline float __shfl_down_sync(unsigned, float value, unsigned by, int line = __builtin_LINE()) {
    const unsigned lane = threadIdx.x % shim::LANES;
    return __uint_as_float(exchange(__float_as_uint(value), lane + by < shim::LANES ? lane + by : lane, line));
}
