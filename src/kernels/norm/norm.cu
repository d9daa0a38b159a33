// Root-mean-square and layer norm of rows, a warp a row, from f32 (the residual stream) to what the next product reads.
//
// mod.rs fixes the order of a row's sum: 32 running sums, added pair by pair. They are a warp's lanes, so the bits are the
// CPU's (in f32).
#include "../cuda/device.cuh"

constexpr unsigned NORM_WARPS = 4;

template <typename Out> struct NormArgs {
    Global<const float> x;      // (rows, width)
    Global<const float> weight; // (width)
    Global<const float> bias;   // (width), of a layer norm
    Global<Out> out;            // (rows, width)
    unsigned rows;
    unsigned width;
    float eps;
    unsigned layer; // 1: a layer norm
};

// The lanes' sums added pair by pair, lane i to lane i + half; in all lanes.
DEVICE float sum_lanes(float sum) {
    for (unsigned half = WARP / 2; half > 0; half /= 2)
        sum += __shfl_down_sync(ALL_LANES, sum, half);
    return __shfl_sync(ALL_LANES, sum, 0);
}

template <typename Out> DEVICE void norm(const NormArgs<Out> &args) {
    const unsigned row = blockIdx.x * NORM_WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= args.rows)
        return;
    Global<const float> x = args.x + (size_t)row * args.width;
    Global<Out> out = args.out + (size_t)row * args.width;
    float mean = 0.0f;
    if (args.layer) {
        float sum = 0.0f;
        for (unsigned i = lane; i < args.width; i += WARP)
            sum += x[i];
        mean = sum_lanes(sum) / (float)args.width;
    }
    float sum = 0.0f;
    for (unsigned i = lane; i < args.width; i += WARP) {
        const float centred = x[i] - mean;
        sum += centred * centred;
    }
    const float inverse = 1.0f / sqrtf(sum_lanes(sum) / (float)args.width + args.eps);
    for (unsigned i = lane; i < args.width; i += WARP) {
        const float scaled = (x[i] - mean) * inverse * args.weight[i];
        out[i] = narrow<Out>(args.layer ? scaled + args.bias[i] : scaled);
    }
}

extern "C" __global__ void __launch_bounds__(NORM_WARPS *WARP) norm_f32(const NormArgs<float> args) { norm(args); }
extern "C" __global__ void __launch_bounds__(NORM_WARPS *WARP) norm_bf16(const NormArgs<Bf16> args) { norm(args); }
