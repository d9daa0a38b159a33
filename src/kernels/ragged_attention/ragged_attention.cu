// Attention over packed rows (see mod.rs): prefill and decode, keys in rows or in blocks of a slab, grouped queries, T5's
// relative bias, a window, a soft cap. Online softmax (Milakov and Gimelshein 2018); all sums in f32.
//
// The query heads that share a key head read the same keys, so a block works on *vectors*: (query row, head of the group)
// of one sequence and one key head. Keys come to shared memory in tiles of 32, one a lane, that start at multiples of 32
// whatever part of the sequence is asked for. Two kernels walk them:
//   attend_rows   16 vectors a block, 4 a warp; all warps share a tile                     (prefill, encoders)
//   attend_split  4 vectors a block; each warp takes every fourth tile, merged at the end   (decode: few vectors, many keys)
// The host has checked every index (mod.rs, check), and that heads are a multiple of 4 numbers long and at most 256.
#include "../cuda/device.cuh"

constexpr unsigned ATTEND_WARPS = 4;
constexpr unsigned ATTEND_VECTORS = 4; // of a warp
constexpr unsigned TILE = WARP;        // keys

struct AttentionSpan {
    unsigned first_query; // row of q
    unsigned first_position;
    unsigned context;   // keys in all
    unsigned first_key; // row of the keys, or place in `blocks` where paged
    unsigned paged;
    unsigned causal;
};

struct AttentionTask {
    unsigned span;
    unsigned kv_head;
    unsigned first; // vector: query row of the span * group + head of the group
    unsigned count;
};

template <typename T> struct AttentionArgs {
    Global<const T> q;      // (rows, q_stride), heads * dim columns from the front
    Global<const T> keys;   // row r at r * kv_stride
    Global<const T> values; // row r at r * kv_stride
    Global<T> out;          // (rows, heads * dim)
    Global<const unsigned> blocks;
    Global<const AttentionSpan> spans;
    Global<const AttentionTask> tasks;
    Global<const float> bias;        // (buckets, heads), where biased
    Global<const unsigned> buckets;  // (2 max_distance + 1), by key - query + max_distance
    unsigned q_stride;
    unsigned kv_stride;
    unsigned heads;
    unsigned kv_heads;
    unsigned dim;
    unsigned block_size;
    unsigned window; // the greatest number: a row sees all
    unsigned max_distance;
    float scale;
    unsigned biased;
    float soft_cap; // 0: none
    unsigned unused;
};

// One query row of one head.
struct Vector {
    unsigned row; // of q and out
    unsigned head;
    unsigned position;
    unsigned start; // of the keys that it sees
    unsigned end;
};

// The running softmax of a vector. Lane l holds columns l, l + 32, ...
template <unsigned COLUMNS> struct Running {
    float largest, total;
    float sums[COLUMNS];
};

// The threads that share a tile have all come here: a warp where each has its own, else the block.
template <bool SPLIT> DEVICE void meet() {
    if constexpr (SPLIT)
        __syncwarp();
    else
        __syncthreads();
}

DEVICE float lowest() { return __uint_as_float(0xff800000u); } // -infinity

template <typename T>
DEVICE Vector vector_of(const AttentionArgs<T> &args, const AttentionSpan &span, const AttentionTask &task, unsigned i) {
    const unsigned group = args.heads / args.kv_heads, at = task.first + i, row = at / group;
    Vector vector;
    vector.row = span.first_query + row;
    vector.head = task.kv_head * group + at % group;
    vector.position = span.first_position + row;
    vector.end = span.causal ? min(vector.position + 1, span.context) : span.context;
    vector.start = vector.position + 1 > args.window ? min(vector.position + 1 - args.window, vector.end) : 0;
    return vector;
}

// The row of position `position`.
template <typename T>
DEVICE size_t key_row(const AttentionArgs<T> &args, const AttentionSpan &span, unsigned position) {
    if (!span.paged)
        return (size_t)span.first_key + position;
    const size_t block = args.blocks[span.first_key + position / args.block_size];
    return block * args.block_size + position % args.block_size;
}

// Positions [first, end) of one key head, at most a tile, to shared memory by `threads` threads; zeros behind them.
template <typename T>
DEVICE void stage(const AttentionArgs<T> &args, const AttentionSpan &span, Global<const T> from, Shared<float> tile,
                  unsigned kv_head, unsigned first, unsigned end, unsigned thread, unsigned threads) {
    const unsigned quads = args.dim / 4;
    for (unsigned i = thread; i < TILE * quads; i += threads) {
        const unsigned key = i / quads, column = i % quads * 4;
        float4 value = make_float4(0, 0, 0, 0);
        if (first + key < end)
            value = load4(from + (key_row(args, span, first + key) * args.kv_stride + kv_head * args.dim + column));
        store_shared4(tile + (key * (args.dim + 4) + column), value);
    }
}

// T5's bias of the key at `key`.
template <typename T> DEVICE float bias_of(const AttentionArgs<T> &args, const Vector &vector, unsigned key) {
    const int reach = (int)args.max_distance;
    const int relative = min(max((int)key - (int)vector.position, -reach), reach);
    return args.bias[args.buckets[relative + reach] * args.heads + vector.head];
}

// The scores of the staged keys, a key a lane: scale * q . k, softly capped where asked for, + bias; -infinity where the
// vector doesn't see the key.
template <typename T>
DEVICE void score(const AttentionArgs<T> &args, const Vector (&vectors)[ATTEND_VECTORS], Shared<const float> q,
                  Shared<const float> tile, unsigned first, float (&scores)[ATTEND_VECTORS]) {
    const unsigned lane = threadIdx.x % WARP, key = first + lane;
    float dots[ATTEND_VECTORS] = {};
    for (unsigned column = 0; column < args.dim; column += 4) {
        const float4 k = shared_as<float4>(tile + (lane * (args.dim + 4) + column));
#pragma unroll
        for (unsigned v = 0; v < ATTEND_VECTORS; v++) {
            const float4 x = shared_as<float4>(q + (v * args.dim + column));
            dots[v] = fmaf(x.x, k.x, fmaf(x.y, k.y, fmaf(x.z, k.z, fmaf(x.w, k.w, dots[v]))));
        }
    }
#pragma unroll
    for (unsigned v = 0; v < ATTEND_VECTORS; v++) {
        const bool seen = key >= vectors[v].start && key < vectors[v].end;
        const float bias = seen && args.biased ? bias_of(args, vectors[v], key) : 0.0f;
        float scaled = args.scale * dots[v];
        if (args.soft_cap > 0.0f)
            scaled = args.soft_cap * tanhf(scaled / args.soft_cap);
        scores[v] = seen ? scaled + bias : lowest();
    }
}

// Takes a tile's scores into the running softmax and leaves their weights in shared memory for `add_values`.
template <unsigned COLUMNS>
DEVICE void weigh(Running<COLUMNS> (&running)[ATTEND_VECTORS], const float (&scores)[ATTEND_VECTORS],
                  Shared<float> weights) {
    const unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned v = 0; v < ATTEND_VECTORS; v++) {
        Running<COLUMNS> &now = running[v];
        const float largest = max(now.largest, warp_max(scores[v]));
        // As long as nothing was seen everything stays 0.
        const float keep = largest == lowest() ? 1.0f : expf(now.largest - largest);
        const float weight = largest == lowest() ? 0.0f : expf(scores[v] - largest);
        now.largest = largest;
        now.total = now.total * keep + warp_sum(weight);
#pragma unroll
        for (unsigned c = 0; c < COLUMNS; c++)
            now.sums[c] *= keep;
        weights[v * TILE + lane] = weight;
    }
}

// sums += weights . values, keys in order.
template <unsigned COLUMNS>
DEVICE void add_values(Running<COLUMNS> (&running)[ATTEND_VECTORS], Shared<const float> weights,
                       Shared<const float> tile, unsigned keys, unsigned dim) {
    const unsigned lane = threadIdx.x % WARP;
    for (unsigned key = 0; key < keys; key++) {
        float factors[ATTEND_VECTORS];
#pragma unroll
        for (unsigned v = 0; v < ATTEND_VECTORS; v++)
            factors[v] = weights[v * TILE + key];
#pragma unroll
        for (unsigned c = 0; c < COLUMNS; c++) {
            const unsigned column = lane + WARP * c;
            const float value = column < dim ? (float)tile[key * (dim + 4) + column] : 0.0f;
#pragma unroll
            for (unsigned v = 0; v < ATTEND_VECTORS; v++)
                running[v].sums[c] = fmaf(factors[v], value, running[v].sums[c]);
        }
    }
}

// Writes a vector's output.
template <typename T, unsigned COLUMNS>
DEVICE void write(const AttentionArgs<T> &args, const Vector &vector, const Running<COLUMNS> &result) {
    const float share = result.total > 0.0f ? 1.0f / result.total : 0.0f;
    Global<T> out = args.out + ((size_t)vector.row * args.heads + vector.head) * args.dim;
#pragma unroll
    for (unsigned c = 0; c < COLUMNS; c++) {
        const unsigned column = threadIdx.x % WARP + WARP * c;
        if (column < args.dim)
            out[column] = narrow<T>(share * result.sums[c]);
    }
}

// Merges what the warps made of their tiles, a vector a warp, warps in order, through their tiles' memory.
template <unsigned COLUMNS>
DEVICE Running<COLUMNS> merge(const Running<COLUMNS> (&running)[ATTEND_VECTORS], Shared<float> tiles, unsigned dim) {
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, stride = TILE * (dim + 4);
#pragma unroll
    for (unsigned v = 0; v < ATTEND_VECTORS; v++) {
        Shared<float> mine = tiles + (warp * stride + v * (dim + 4));
#pragma unroll
        for (unsigned c = 0; c < COLUMNS; c++)
            if (lane + WARP * c < dim)
                mine[lane + WARP * c] = running[v].sums[c];
        if (lane == 0) {
            mine[dim] = running[v].largest;
            mine[dim + 1] = running[v].total;
        }
    }
    __syncthreads();
    Running<COLUMNS> result = {lowest(), 0.0f, {}};
    for (unsigned other = 0; other < ATTEND_WARPS; other++)
        result.largest = max(result.largest, (float)tiles[other * stride + warp * (dim + 4) + dim]);
    if (result.largest == lowest())
        return result;
    for (unsigned other = 0; other < ATTEND_WARPS; other++) {
        Shared<float> theirs = tiles + (other * stride + warp * (dim + 4));
        const float keep = expf(theirs[dim] - result.largest);
        result.total += keep * theirs[dim + 1];
#pragma unroll
        for (unsigned c = 0; c < COLUMNS; c++)
            if (lane + WARP * c < dim)
                result.sums[c] = fmaf(keep, theirs[lane + WARP * c], result.sums[c]);
    }
    return result;
}

template <typename T, unsigned COLUMNS, bool SPLIT> DEVICE void attend(const AttentionArgs<T> &args) {
    const AttentionTask task = args.tasks[blockIdx.x];
    const AttentionSpan span = args.spans[task.span];
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    constexpr unsigned HELD = SPLIT ? ATTEND_VECTORS : ATTEND_WARPS * ATTEND_VECTORS;
    Shared<float> q = dynamic_shared();                                   // (HELD, dim)
    Shared<float> weights = q + HELD * args.dim;                          // (warps, vectors, TILE)
    Shared<float> tiles = weights + ATTEND_WARPS * ATTEND_VECTORS * TILE; // (1 or warps, TILE, dim + 4)
    Shared<float> tile = tiles + (SPLIT ? warp * TILE * (args.dim + 4) : 0);

    for (unsigned i = 4 * threadIdx.x; i < HELD * args.dim; i += 4 * ATTEND_WARPS * WARP) {
        float4 x = make_float4(0, 0, 0, 0);
        if (i / args.dim < task.count) {
            const Vector vector = vector_of(args, span, task, i / args.dim);
            x = load4(args.q + ((size_t)vector.row * args.q_stride + vector.head * args.dim + i % args.dim));
        }
        store_shared4(q + i, x);
    }
    const unsigned mine = SPLIT ? 0 : warp * ATTEND_VECTORS; // this warp's first vector
    Vector vectors[ATTEND_VECTORS];
    Running<COLUMNS> running[ATTEND_VECTORS];
#pragma unroll
    for (unsigned v = 0; v < ATTEND_VECTORS; v++) {
        vectors[v] = vector_of(args, span, task, min(mine + v, task.count - 1));
        running[v] = {lowest(), 0.0f, {}};
    }
    // Rows come in order of position: the first sees the earliest key, the last the latest.
    const unsigned begin = vector_of(args, span, task, 0).start / TILE * TILE;
    const unsigned end = vector_of(args, span, task, task.count - 1).end;
    const unsigned thread = SPLIT ? lane : threadIdx.x, threads = SPLIT ? WARP : ATTEND_WARPS * WARP;
    weights = weights + warp * ATTEND_VECTORS * TILE;
    __syncthreads();

    for (unsigned first = begin + (SPLIT ? warp * TILE : 0); first < end; first += SPLIT ? ATTEND_WARPS * TILE : TILE) {
        float scores[ATTEND_VECTORS];
        stage(args, span, args.keys, tile, task.kv_head, first, end, thread, threads);
        meet<SPLIT>();
        score(args, vectors, q + mine * args.dim, tile, first, scores);
        weigh(running, scores, weights);
        meet<SPLIT>();
        stage(args, span, args.values, tile, task.kv_head, first, end, thread, threads);
        meet<SPLIT>();
        add_values(running, weights, tile, min(TILE, end - first), args.dim);
        meet<SPLIT>();
    }
    if constexpr (SPLIT) {
        const Running<COLUMNS> result = merge(running, tiles, args.dim);
        if (warp < task.count)
            write(args, vector_of(args, span, task, warp), result);
    } else {
#pragma unroll
        for (unsigned v = 0; v < ATTEND_VECTORS; v++)
            if (mine + v < task.count)
                write(args, vectors[v], running[v]);
    }
}

// A kernel for each format and for heads of up to 64, 128 and 256 numbers.
#define ATTEND(name, T, COLUMNS, SPLIT)                                                                                \
    extern "C" __global__ void __launch_bounds__(ATTEND_WARPS *WARP, 3) name(const AttentionArgs<T> args) {               \
        attend<T, COLUMNS, SPLIT>(args);                                                                               \
    }
ATTEND(attend_rows_f32_64, float, 2, false)
ATTEND(attend_rows_f32_128, float, 4, false)
ATTEND(attend_rows_f32_256, float, 8, false)
ATTEND(attend_rows_bf16_64, Bf16, 2, false)
ATTEND(attend_rows_bf16_128, Bf16, 4, false)
ATTEND(attend_rows_bf16_256, Bf16, 8, false)
ATTEND(attend_split_f32_64, float, 2, true)
ATTEND(attend_split_f32_128, float, 4, true)
ATTEND(attend_split_f32_256, float, 8, true)
ATTEND(attend_split_bf16_64, Bf16, 2, true)
ATTEND(attend_split_bf16_128, Bf16, 4, true)
ATTEND(attend_split_bf16_256, Bf16, 8, true)
