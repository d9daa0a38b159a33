// What a kernel must not do: each fault is one that the shim has to find.
#include "../device.cuh"

struct Fault {
    Global<const unsigned> input; // 64 words
    Global<unsigned> output;      // 64 words
    unsigned which;
};

extern "C" __global__ void fault(const Fault args) {
    const unsigned me = threadIdx.x; // two warps
    Shared<float> shared = dynamic_shared();
    switch (args.which) {
    case 0: // nothing wrong: through shared memory, the other way round
        shared[me] = (float)args.input[me];
        __syncthreads();
        args.output[me] = (unsigned)shared[63 - me];
        break;
    case 1: // reads beyond the end
        args.output[me] = args.input[me + 1];
        break;
    case 2: // writes beyond the end
        args.output[me + 1] = me;
        break;
    case 3: // half of the block passes by the barrier
        if (me < 32)
            __syncthreads();
        break;
    case 4: // no barrier between a write and another warp's read
        shared[me] = 1.0f;
        args.output[me] = (unsigned)shared[me ^ 32];
        break;
    case 5: // two threads write one word
        args.output[me / 2] = me;
        break;
    case 6: // reads shared memory that nobody wrote
        args.output[me] = (unsigned)shared[me];
        break;
    case 7: // not aligned to sixteen bytes
        args.output[me] = load_as<uint4>(args.input + 1).x;
        break;
    case 8: // half of a warp shuffles
        if (me % 2 == 0)
            args.output[me] = (unsigned)__shfl_sync(ALL_LANES, 1.0f, 0);
        break;
    case 9: // two barriers that are not one
        if (me < 32)
            __syncthreads();
        else
            __syncthreads();
        break;
    case 10: // writes over what another thread has yet to read
        shared[me] = 1.0f;
        __syncthreads();
        args.output[me] = (unsigned)shared[0];
        shared[me] = 2.0f;
        break;
    case 11: // beyond the end of shared memory
        shared[64] = 1.0f;
        break;
    case 12: // inside a warp a shuffle orders, as __syncwarp does
        shared[me] = (float)me;
        __syncwarp();
        args.output[me] = (unsigned)shared[me ^ 1];
        break;
    }
}
