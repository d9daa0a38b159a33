// Norms and turns of the heads of packed rows [q; k; v], a warp a head; v is copied. The CPU's order of sums, so its bits in f32.
#include "../cuda/device.cuh"

constexpr unsigned ROPE_WARPS = 4;

template <typename T> struct PrepareHeads {
    Global<const T> x;                // (rows, (heads + 2 kv_heads) * dim)
    Global<T> out;                    // the same
    Global<const unsigned> positions; // (rows)
    Global<const float> turns;        // (positions, [cos; sin])
    Global<const float> query_norm;   // (dim), where normed
    Global<const float> key_norm;     // (dim), where normed
    unsigned rows;
    unsigned heads;
    unsigned kv_heads;
    unsigned dim;
    float query_eps;
    float key_eps;
    unsigned normed; // 1: by head, before the turn
    unsigned unused;
};

// 1 / sqrt(mean square + eps) of a head, in all lanes; the order of norm.cu.
template <typename T> DEVICE float head_inverse(Global<const T> x, unsigned dim, float eps) {
    float sum = 0.0f;
    for (unsigned i = threadIdx.x % WARP; i < dim; i += WARP) {
        const float value = widen(x[i]);
        sum += value * value;
    }
    for (unsigned half = WARP / 2; half > 0; half /= 2)
        sum += __shfl_down_sync(ALL_LANES, sum, half);
    return 1.0f / sqrtf(__shfl_sync(ALL_LANES, sum, 0) / (float)dim + eps);
}

template <typename T> DEVICE void prepare_heads(const PrepareHeads<T> &args) {
    const unsigned all = args.heads + 2 * args.kv_heads, half = args.dim / 2;
    const unsigned unit = blockIdx.x * ROPE_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (unit >= args.rows * all)
        return;
    const unsigned row = unit / all, head = unit % all;
    Global<const T> x = args.x + (size_t)unit * args.dim;
    Global<T> out = args.out + (size_t)unit * args.dim;
    if (head >= args.heads + args.kv_heads) {
        for (unsigned i = lane; i < args.dim; i += WARP)
            out[i] = x[i];
        return;
    }
    const bool query = head < args.heads;
    Global<const float> weight = query ? args.query_norm : args.key_norm;
    const float inverse = args.normed ? head_inverse(x, args.dim, query ? args.query_eps : args.key_eps) : 1.0f;
    Global<const float> cos = args.turns + (size_t)args.positions[row] * args.dim;
    Global<const float> sin = cos + half;
    for (unsigned i = lane; i < half; i += WARP) {
        float first = widen(x[i]), second = widen(x[i + half]);
        if (args.normed) {
            first = first * inverse * weight[i];
            second = second * inverse * weight[i + half];
        }
        out[i] = narrow<T>(first * cos[i] - second * sin[i]);
        out[i + half] = narrow<T>(second * cos[i] + first * sin[i]);
    }
}

extern "C" __global__ void __launch_bounds__(ROPE_WARPS *WARP) prepare_heads_f32(const PrepareHeads<float> args) {
    prepare_heads(args);
}
extern "C" __global__ void __launch_bounds__(ROPE_WARPS *WARP) prepare_heads_bf16(const PrepareHeads<Bf16> args) {
    prepare_heads(args);
}
