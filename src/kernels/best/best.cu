// The greedy choice: of each row of logits the lowest id among the largest, a block a row.
//
// A row that the sampler would refuse (see reference.rs) has no choice: one number of a row goes back to the host either
// way. Comparing is exact, so the choice does not depend on how a row is cut; there are no atomics.
#include "../cuda/device.cuh"

constexpr unsigned BEST_WARPS = 16;
constexpr unsigned BEST_THREADS = BEST_WARPS * WARP;
constexpr unsigned NO_CHOICE = 0xffffffffu;

template <typename T> struct BestArgs {
    Global<const T> logits; // (rows, stride)
    Global<unsigned> out;   // (rows)
    unsigned stride;
    unsigned vocab;      // columns that are tokens
    unsigned misaligned; // numbers from a boundary of four to the first logit
    unsigned unused;
};

// Plus infinity with NO_CHOICE: the row is refused. Minus infinity with NO_CHOICE: nothing was allowed yet.
struct Choice {
    float logit;
    unsigned token;
};

DEVICE float plus_infinity() { return __uint_as_float(0x7f800000u); }

// A thread sees its tokens in rising order, so an equal logit changes nothing. A refused row stays so: no logit is greater.
DEVICE void consider(Choice &best, float logit, unsigned token) {
    if (!(logit < plus_infinity())) // also NaN
        best = {plus_infinity(), NO_CHOICE};
    else if (logit > best.logit)
        best = {logit, token};
}

DEVICE void consider4(Choice &best, float4 logits, unsigned token) {
    consider(best, logits.x, token);
    consider(best, logits.y, token + 1);
    consider(best, logits.z, token + 2);
    consider(best, logits.w, token + 3);
}

DEVICE Choice better(const Choice &a, const Choice &b) {
    const bool first = a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
    return first ? a : b;
}

// The best of the lanes' choices, in all lanes.
DEVICE Choice best_of_warp(Choice best) {
    for (unsigned half = WARP / 2; half > 0; half /= 2) {
        Choice other;
        other.logit = __shfl_xor_sync(ALL_LANES, best.logit, half);
        other.token = __shfl_xor_sync(ALL_LANES, best.token, half);
        best = better(best, other);
    }
    return best;
}

// What this thread's part of the row offers: fours of logits, and the few in front of the first whole four and behind the
// last. Rows of any length start at any place, and so are read in vectors all the same.
template <typename T> DEVICE Choice best_of_part(const BestArgs<T> &args) {
    const size_t start = (size_t)blockIdx.x * args.stride;
    Global<const T> logits = args.logits + start;
    const unsigned behind = (unsigned)((args.misaligned + start) % 4);
    const unsigned head = min((4 - behind) % 4, args.vocab);
    const unsigned quads = (args.vocab - head) / 4, tail = head + 4 * quads;
    Choice best = {-plus_infinity(), NO_CHOICE};
    if (threadIdx.x < head)
        consider(best, widen(logits[threadIdx.x]), threadIdx.x);
#pragma unroll 4
    for (unsigned quad = threadIdx.x; quad < quads; quad += BEST_THREADS)
        consider4(best, load4(logits + (head + 4 * quad)), head + 4 * quad);
    if (threadIdx.x < args.vocab - tail)
        consider(best, widen(logits[tail + threadIdx.x]), tail + threadIdx.x);
    return best;
}

template <typename T> DEVICE void best_token(const BestArgs<T> &args) {
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    Shared<float> logits = dynamic_shared();          // (warps)
    Shared<float> tokens = logits + BEST_WARPS;       // (warps), as bits
    const Choice mine = best_of_warp(best_of_part(args));
    if (lane == 0) {
        logits[warp] = mine.logit;
        tokens[warp] = __uint_as_float(mine.token);
    }
    __syncthreads();
    if (warp != 0)
        return;
    Choice best = {-plus_infinity(), NO_CHOICE};
    if (lane < BEST_WARPS)
        best = {logits[lane], __float_as_uint(tokens[lane])};
    best = best_of_warp(best);
    if (lane == 0)
        args.out[blockIdx.x] = best.token;
}

extern "C" __global__ void __launch_bounds__(BEST_THREADS) best_f32(const BestArgs<float> args) { best_token(args); }
extern "C" __global__ void __launch_bounds__(BEST_THREADS) best_bf16(const BestArgs<Bf16> args) { best_token(args); }
