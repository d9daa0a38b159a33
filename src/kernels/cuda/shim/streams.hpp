// Streams, and who has waited for whom: an operation may touch what another stream touched only behind an event or a
// synchronisation that orders the two (vector clocks, as race detectors keep them).
#pragma once

#include <cstdint>
#include <vector>

namespace shim {

// An operation: the so many-th of a stream, from 1; 0 is none.
struct Visit {
    uint32_t stream, tick;
};

// By stream, how many of its operations lie behind.
struct Clock {
    std::vector<uint32_t> ticks;

    uint32_t &at(uint32_t stream) {
        if (stream >= ticks.size())
            ticks.resize(stream + 1);
        return ticks[stream];
    }
    void join(const Clock &other) {
        for (uint32_t stream = 0; stream < other.ticks.size(); stream++)
            at(stream) = at(stream) < other.ticks[stream] ? other.ticks[stream] : at(stream);
    }
};

// What each stream has behind it; the first is there without being made.
inline std::vector<Clock> clocks(1);
// What the host has waited for, any thread of it: how threads wait for each other is not known here.
inline Clock host_clock;
// Whose operation runs.
inline uint32_t current_stream;

// Begins an operation.
inline void operate(uint32_t stream) {
    current_stream = stream;
    clocks[stream].join(host_clock);
    clocks[stream].at(stream)++;
}

inline bool is_behind(Visit before) { return clocks[current_stream].at(before.stream) >= before.tick; }

// Who touched a word: its last writer, its last reader, and the last that read it on another stream.
struct Visits {
    Visit wrote, read, read_before;

    // Notes an access of the operation that runs. What is told is a stream that it should have waited for, or -1.
    int64_t note(bool write) {
        if (!is_behind(wrote))
            return wrote.stream;
        const Visit now{current_stream, clocks[current_stream].at(current_stream)};
        if (!write) {
            if (read.stream != now.stream)
                read_before = read;
            read = now;
            return -1;
        }
        for (const Visit &before : {read, read_before})
            if (!is_behind(before))
                return before.stream;
        wrote = now;
        return -1;
    }
};

} // namespace shim
