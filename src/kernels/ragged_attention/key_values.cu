// Rows [k; v] to their places in a K/V slab, a warp a row. It moves bytes, so one kernel serves every format.
#include "../cuda/device.cuh"

constexpr unsigned KEY_VALUE_WARPS = 4;

struct WriteKeyValues {
    Global<const uint2> source;   // (rows, stride); the last `width` of a row are written
    Global<uint2> slab;           // (slots, width)
    Global<const unsigned> slots; // (rows), each another one
    unsigned rows;
    unsigned stride; // in units of 8 bytes
    unsigned width;  // in units of 8 bytes
    unsigned unused;
};

extern "C" __global__ void __launch_bounds__(KEY_VALUE_WARPS *WARP) write_key_values(const WriteKeyValues args) {
    const unsigned row = blockIdx.x * KEY_VALUE_WARPS + threadIdx.x / WARP;
    if (row >= args.rows)
        return;
    Global<const uint2> source = args.source + ((size_t)(row + 1) * args.stride - args.width);
    Global<uint2> slab = args.slab + (size_t)args.slots[row] * args.width;
    for (unsigned i = threadIdx.x % WARP; i < args.width; i += WARP)
        slab[i] = source[i];
}
