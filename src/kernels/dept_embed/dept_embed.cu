// The input embeddings of a whole ragged batch, every sequence's adapter applied, in one launch (see mod.rs).
//
// A task is a block's work. Rows that are only copied (prompt rows, tokens without an update) make tasks of their own; rows
// that share an adapter's update are brought together by the launch plan (plan.rs), so that a block stages a strip of B in
// shared memory once and keeps it for all rows of its task. A warp holds 8 rows x 256 columns of sums in registers. Sums
// run over the rank in order, one fused multiply-add each, as in cpu.rs: the bits are the same. There are no atomics, and no
// sum depends on how the batch was cut into tasks.
//
// The host has checked every index (mod.rs, check), and that rows are a multiple of 4 numbers long.
#include "../cuda/device.cuh"

constexpr unsigned EMBED_WARPS = 8;
constexpr unsigned EMBED_ROWS = 8;                            // of a warp
constexpr unsigned EMBED_GROUP = EMBED_WARPS * EMBED_ROWS;    // rows of a block at a time
constexpr unsigned EMBED_HALF = 4 * WARP;                     // columns that a warp reads with one instruction
constexpr unsigned EMBED_STRIP = 2 * EMBED_HALF;              // columns of a block at a time

// The third word of a row (rows.rs).
constexpr unsigned ROW_PROMPT = 0xffffffffu;

enum TableFormat : unsigned { TABLE_F32, TABLE_F16, TABLE_BF16, TABLE_I8 };
enum UpdateKind : unsigned { UPDATE_NONE, UPDATE_LOW_RANK, UPDATE_ADEPT };

// An adapter's tensors. Adapters of one batch differ in m, s, r, scale and kind.
struct EmbedSlot {
    Global<const float> prompt; // P (m, d)
    Global<const float> a;      // A: (s, r), or ADePT's (d, r)
    Global<const float> b;      // B (r, d)
    Global<const float> bias_a; // ADePT's a (r)
    Global<const float> bias_b; // ADePT's b (d)
    unsigned kind;              // UpdateKind
    unsigned rank;
    float scale;
    unsigned unused;
};

struct EmbedTask {
    unsigned first; // of the rows in `order`
    unsigned count;
    unsigned slot;   // whose update the rows share; NO_SLOT: they are copied
    unsigned strip;  // first strip of columns
    unsigned strips; // strips of columns
};
constexpr unsigned NO_SLOT = 0xffffffffu;

struct DeptEmbed {
    Global<const unsigned> rows;  // (rows, 3): token or prompt row, slot, delta row
    Global<const unsigned> order; // row numbers, those of a task one behind the other
    Global<const EmbedTask> tasks;
    Global<const EmbedSlot> slots;
    Global<const unsigned char> table; // E (vocab, d)
    Global<const float> table_scales;  // (vocab), in 8 bits
    Global<float> out;                 // (rows, d)
    unsigned hidden;                   // d
    unsigned table_format;             // TableFormat
    unsigned rank_chunk;               // rows of B that shared memory holds, a multiple of 4
    unsigned unused;
};

// The address of E's row `token`, column `column`, as numbers of type T.
template <typename T> DEVICE Global<const T> table_at(const DeptEmbed &args, unsigned token, unsigned column) {
#ifdef DEPT_HOST
    return {(const T *)args.table.raw + (size_t)token * args.hidden + column};
#else
    return reinterpret_cast<const T *>(args.table) + (size_t)token * args.hidden + column;
#endif
}

// E[token][column ..+ 4], widened.
DEVICE float4 embedding4(const DeptEmbed &args, unsigned token, unsigned column) {
    switch (args.table_format) {
    case TABLE_F32:
        return load4(table_at<float>(args, token, column));
    case TABLE_F16:
        return load4(table_at<F16>(args, token, column));
    case TABLE_BF16:
        return load4(table_at<Bf16>(args, token, column));
    default: {
        const float4 e = load4(table_at<signed char>(args, token, column));
        const float scale = args.table_scales[token];
        return make_float4(e.x * scale, e.y * scale, e.z * scale, e.w * scale);
    }
    }
}

// The number in the batch of row `i` of a task.
DEVICE unsigned row_of(const DeptEmbed &args, const EmbedTask &task, unsigned i) { return args.order[task.first + i]; }

// sums += x * y, each element
DEVICE void multiply_add(float4 &sums, float x, float4 y) {
    sums.x = fmaf(x, y.x, sums.x);
    sums.y = fmaf(x, y.y, sums.y);
    sums.z = fmaf(x, y.z, sums.z);
    sums.w = fmaf(x, y.w, sums.w);
}

// Prompt rows as they are, and tokens without an update: a warp a row.
DEVICE void copy_rows(const DeptEmbed &args, const EmbedTask &task) {
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    for (unsigned i = warp; i < task.count; i += EMBED_WARPS) {
        const unsigned row = row_of(args, task, i);
        const unsigned first = args.rows[3 * row];
        const bool prompt = args.rows[3 * row + 2] == ROW_PROMPT;
        const size_t out = (size_t)row * args.hidden;
        Global<const float> p = prompt ? args.slots[args.rows[3 * row + 1]].prompt : Global<const float>{};
        for (unsigned column = 4 * lane; column < args.hidden; column += EMBED_HALF)
            store_as(args.out + out + column, prompt ? load4(p + (size_t)first * args.hidden + column)
                                                     : embedding4(args, first, column));
    }
}

// B[first ..+ chunk][strip's columns] to shared memory; zeros where B has no number, which change no sum.
DEVICE void stage_b(const DeptEmbed &args, const EmbedSlot &slot, Shared<float> b, unsigned first, unsigned column) {
    const unsigned wanted = min(args.rank_chunk, (slot.rank - first + 3) / 4 * 4);
    for (unsigned i = 4 * threadIdx.x; i < wanted * EMBED_STRIP; i += 4 * EMBED_WARPS * WARP) {
        const unsigned k = first + i / EMBED_STRIP, at = column + i % EMBED_STRIP;
        const bool inside = k < slot.rank && at < args.hidden;
        store_shared4(b + i, inside ? load4(slot.b + (size_t)k * args.hidden + at) : make_float4(0, 0, 0, 0));
    }
}

// The warp's rows of A to shared memory: what multiplies B, row by row, in DePT.
DEVICE void stage_a(const DeptEmbed &args, const EmbedTask &task, const EmbedSlot &slot, Shared<float> a,
                    unsigned first, unsigned mine) {
    for (unsigned i = 0; i < EMBED_ROWS; i++) {
        const bool held = mine + i < task.count;
        const size_t delta_row = held ? args.rows[3 * row_of(args, task, mine + i) + 2] : 0;
        for (unsigned k = threadIdx.x % WARP; k < args.rank_chunk; k += WARP) {
            const bool inside = held && first + k < slot.rank;
            a[i * args.rank_chunk + k] = inside ? slot.a[delta_row * slot.rank + first + k] : 0.0f;
        }
    }
}

// What multiplies B in ADePT: ReLU(e . A + a) of the warp's rows, a unit a lane.
DEVICE void stage_units(const DeptEmbed &args, const EmbedTask &task, const EmbedSlot &slot, Shared<float> a,
                        unsigned first, unsigned mine) {
    for (unsigned i = 0; i < EMBED_ROWS; i++) {
        const bool held = mine + i < task.count;
        const unsigned token = held ? args.rows[3 * row_of(args, task, mine + i)] : 0;
        for (unsigned k = threadIdx.x % WARP; k < args.rank_chunk; k += WARP) {
            const unsigned unit = first + k;
            const bool inside = held && unit < slot.rank;
            float sum = 0.0f;
            for (unsigned column = 0; inside && column < args.hidden; column += 4) {
                const float4 e = embedding4(args, token, column);
                Global<const float> weights = slot.a + ((size_t)column * slot.rank + unit);
                sum = fmaf(e.x, weights[0], sum);
                sum = fmaf(e.y, weights[slot.rank], sum);
                sum = fmaf(e.z, weights[2 * slot.rank], sum);
                sum = fmaf(e.w, weights[3 * slot.rank], sum);
            }
            a[i * args.rank_chunk + k] = inside ? max(slot.bias_a[unit] + sum, 0.0f) : 0.0f;
        }
    }
}

// sums += (the warp's rows of A) . (the strip of B), over what is staged
DEVICE void accumulate(float4 (&sums)[EMBED_ROWS][2], Shared<const float> a, Shared<const float> b, unsigned count,
                       unsigned rank_chunk) {
    const unsigned column = 4 * (threadIdx.x % WARP);
    for (unsigned k = 0; k < count; k += 2) {
        float2 factors[EMBED_ROWS];
#pragma unroll
        for (unsigned i = 0; i < EMBED_ROWS; i++)
            factors[i] = shared_as<float2>(a + (i * rank_chunk + k));
#pragma unroll
        for (unsigned step = 0; step < 2; step++) {
            const float4 left = shared_as<float4>(b + ((k + step) * EMBED_STRIP + column));
            const float4 right = shared_as<float4>(b + ((k + step) * EMBED_STRIP + EMBED_HALF + column));
#pragma unroll
            for (unsigned i = 0; i < EMBED_ROWS; i++) {
                const float factor = step == 0 ? factors[i].x : factors[i].y;
                multiply_add(sums[i][0], factor, left);
                multiply_add(sums[i][1], factor, right);
            }
        }
    }
}

// out[row] = E[token] + scale * sums, or ADePT's (E[token] + b) + sums
DEVICE void finish(const DeptEmbed &args, const EmbedSlot &slot, unsigned row, unsigned token, unsigned column,
                   float4 sums) {
    if (column >= args.hidden)
        return;
    float4 e = embedding4(args, token, column);
    if (slot.kind == UPDATE_LOW_RANK) {
        multiply_add(e, slot.scale, sums);
    } else {
        const float4 bias = load4(slot.bias_b + column);
        e = make_float4((e.x + bias.x) + sums.x, (e.y + bias.y) + sums.y, (e.z + bias.z) + sums.z,
                        (e.w + bias.w) + sums.w);
    }
    store_as(args.out + (size_t)row * args.hidden + column, e);
}

// The rows of one slot: for each group of 64 rows and each strip of 256 columns, a product over the rank.
DEVICE void update_rows(const DeptEmbed &args, const EmbedTask &task) {
    const EmbedSlot slot = args.slots[task.slot];
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    Shared<float> b = dynamic_shared();                       // (rank_chunk, EMBED_STRIP)
    Shared<float> a = b + args.rank_chunk * (EMBED_STRIP + warp * EMBED_ROWS); // (EMBED_ROWS, rank_chunk)
    const bool one_chunk = slot.rank <= args.rank_chunk;
    for (unsigned group = 0; group < task.count; group += EMBED_GROUP) {
        const unsigned mine = group + warp * EMBED_ROWS; // the warp's first row of the task
        for (unsigned strip = task.strip; strip < task.strip + task.strips; strip++) {
            float4 sums[EMBED_ROWS][2] = {};
            for (unsigned first = 0; first < slot.rank; first += args.rank_chunk) {
                __syncthreads(); // what is staged has been read
                // What shared memory holds from the last round stays where it is the same.
                if (!one_chunk || task.strips > 1 || group == 0)
                    stage_b(args, slot, b, first, strip * EMBED_STRIP);
                if (!one_chunk || strip == task.strip) {
                    if (slot.kind == UPDATE_LOW_RANK)
                        stage_a(args, task, slot, a, first, mine);
                    else
                        stage_units(args, task, slot, a, first, mine);
                }
                __syncthreads();
                accumulate(sums, a, b, min(args.rank_chunk, slot.rank - first), args.rank_chunk);
            }
#pragma unroll
            for (unsigned i = 0; i < EMBED_ROWS; i++) {
                if (mine + i >= task.count)
                    continue;
                const unsigned row = row_of(args, task, mine + i), token = args.rows[3 * row];
                const unsigned column = strip * EMBED_STRIP + 4 * lane;
                finish(args, slot, row, token, column, sums[i][0]);
                finish(args, slot, row, token, column + EMBED_HALF, sums[i][1]);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(EMBED_WARPS *WARP, 2) dept_embed(const DeptEmbed args) {
    const EmbedTask task = args.tasks[blockIdx.x];
    if (task.slot == NO_SLOT)
        copy_rows(args, task);
    else
        update_rows(args, task);
}
