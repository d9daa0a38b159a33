// y = x W^T, every number of y summed by one thread: k in order, one fused multiply-add each, from zero.
//
// A block makes a tile of y. Chunks of k of the rows of x and W that it needs come to shared memory, widened to f32, while
// the threads work on the chunk before. How large tiles and chunks are changes no sum, so three cuts of the work give the
// same bits: `few` for up to 8 rows, where W is all that matters and is read once; `small` where large tiles would leave
// most of a card without work; `large` else. The sums run on the f32 units: tensor cores add in an order of their own.
#include "../cuda/device.cuh"

constexpr unsigned MATMUL_THREADS = 128;

template <typename T> struct MatmulArgs {
    Global<const T> x;      // (rows, k)
    Global<const T> weight; // W (n, k)
    Global<T> out;          // (rows, n)
    unsigned rows;
    unsigned n;
    unsigned k;
    unsigned vectors; // 1: x, W and every row of them start at a boundary of four numbers
};

// A thread holds ROWS x COLUMNS numbers of y, every DOWN-th row and every ACROSS-th column of the block's tile.
template <unsigned ROWS_, unsigned COLUMNS_, unsigned DEPTH_> struct MatmulCut {
    static constexpr unsigned ROWS = ROWS_, COLUMNS = COLUMNS_, DEPTH = DEPTH_;
    static constexpr unsigned ACROSS = 16, DOWN = MATMUL_THREADS / ACROSS;
    static constexpr unsigned TILE_ROWS = DOWN * ROWS, TILE_COLUMNS = ACROSS * COLUMNS;
    // Four numbers of neighbouring rows lie in different banks of shared memory.
    static constexpr unsigned STRIDE = DEPTH + 4;
    static constexpr unsigned QUADS = DEPTH / 4;
    static constexpr unsigned ROW_QUADS = TILE_ROWS * QUADS / MATMUL_THREADS; // of x, a thread
    static constexpr unsigned COLUMN_QUADS = TILE_COLUMNS * QUADS / MATMUL_THREADS; // of W, a thread
    // Where a thread has few sums, several steps of k at once hide the way from shared memory.
    static constexpr unsigned UNROLL = ROWS * COLUMNS < 8 ? 4 : 1;
};
using MatmulFew = MatmulCut<1, 2, 128>;  //  8 x  32
using MatmulSmall = MatmulCut<4, 2, 32>; // 32 x  32
using MatmulLarge = MatmulCut<8, 4, 16>; // 64 x 64

// Four numbers of row `row` from column `column` on; `beyond` where the matrix (rows, k) has none.
template <typename T>
DEVICE float4 matmul_load(const MatmulArgs<T> &args, Global<const T> matrix, unsigned rows, unsigned row, unsigned column,
                          float beyond) {
    float4 value = make_float4(beyond, beyond, beyond, beyond);
    if (row >= rows || column >= args.k)
        return value;
    Global<const T> from = matrix + ((size_t)row * args.k + column);
    if (args.vectors)
        return load4(from);
    value.x = widen(from[0]);
    if (column + 1 < args.k)
        value.y = widen(from[1]);
    if (column + 2 < args.k)
        value.z = widen(from[2]);
    if (column + 3 < args.k)
        value.w = widen(from[3]);
    return value;
}

// This thread's part of a chunk: the columns from `column` on of the rows from `first` on.
template <typename Cut, typename T, unsigned HELD>
DEVICE void matmul_fetch(const MatmulArgs<T> &args, Global<const T> matrix, unsigned rows, unsigned first, unsigned column,
                         float beyond, float4 (&held)[HELD]) {
#pragma unroll
    for (unsigned i = 0; i < HELD; i++) {
        const unsigned quad = threadIdx.x + i * MATMUL_THREADS;
        held[i] = matmul_load(args, matrix, rows, first + quad / Cut::QUADS, column + quad % Cut::QUADS * 4, beyond);
    }
}

template <typename Cut, unsigned HELD> DEVICE void matmul_stage(Shared<float> tile, const float4 (&held)[HELD]) {
#pragma unroll
    for (unsigned i = 0; i < HELD; i++) {
        const unsigned quad = threadIdx.x + i * MATMUL_THREADS;
        store_shared4(tile + (quad / Cut::QUADS * Cut::STRIDE + quad % Cut::QUADS * 4), held[i]);
    }
}

// sums += x . W over `depth` staged columns, a multiple of four, in order.
template <typename Cut>
DEVICE void matmul_accumulate(float (&sums)[Cut::ROWS][Cut::COLUMNS], Shared<const float> x, Shared<const float> weight,
                              unsigned depth) {
#pragma unroll Cut::UNROLL
    for (unsigned at = 0; at < depth; at += 4) {
        float4 columns[Cut::COLUMNS];
#pragma unroll
        for (unsigned c = 0; c < Cut::COLUMNS; c++)
            columns[c] = shared_as<float4>(weight + (c * Cut::ACROSS * Cut::STRIDE + at));
#pragma unroll
        for (unsigned r = 0; r < Cut::ROWS; r++) {
            const float4 row = shared_as<float4>(x + (r * Cut::DOWN * Cut::STRIDE + at));
#pragma unroll
            for (unsigned c = 0; c < Cut::COLUMNS; c++) {
                const float4 column = columns[c];
                const float sum = fmaf(row.y, column.y, fmaf(row.x, column.x, sums[r][c]));
                sums[r][c] = fmaf(row.w, column.w, fmaf(row.z, column.z, sum));
            }
        }
    }
}

template <typename Cut, typename T> DEVICE void matmul(const MatmulArgs<T> &args) {
    Shared<float> x = dynamic_shared();                       // (TILE_ROWS, STRIDE)
    Shared<float> weight = x + Cut::TILE_ROWS * Cut::STRIDE;  // (TILE_COLUMNS, STRIDE)
    // Blocks of the same columns stand side by side, so that W comes from memory once while the rows are many.
    const unsigned row_tiles = (args.rows + Cut::TILE_ROWS - 1) / Cut::TILE_ROWS;
    const unsigned first_row = blockIdx.x % row_tiles * Cut::TILE_ROWS;
    const unsigned first_column = blockIdx.x / row_tiles * Cut::TILE_COLUMNS;
    const unsigned down = threadIdx.x / Cut::ACROSS, across = threadIdx.x % Cut::ACROSS;
    float4 rows[Cut::ROW_QUADS], columns[Cut::COLUMN_QUADS];
    float sums[Cut::ROWS][Cut::COLUMNS] = {};
    // Behind the last column of a row x has minus zeros and W zeros: adding their product changes no sum, not even -0.
    const auto fetch = [&](unsigned column) {
        matmul_fetch<Cut>(args, args.x, args.rows, first_row, column, -0.0f, rows);
        matmul_fetch<Cut>(args, args.weight, args.n, first_column, column, 0.0f, columns);
    };
    fetch(0);
    for (unsigned chunk = 0; chunk < args.k; chunk += Cut::DEPTH) {
        __syncthreads(); // what is staged has been read
        matmul_stage<Cut>(x, rows);
        matmul_stage<Cut>(weight, columns);
        __syncthreads();
        const unsigned left = args.k - chunk;
        if (left > Cut::DEPTH)
            fetch(chunk + Cut::DEPTH);
        if (first_row + down < args.rows)
            matmul_accumulate<Cut>(sums, x + down * Cut::STRIDE, weight + across * Cut::STRIDE,
                                   left < Cut::DEPTH ? (left + 3) / 4 * 4 : Cut::DEPTH);
    }
#pragma unroll
    for (unsigned r = 0; r < Cut::ROWS; r++) {
        const unsigned row = first_row + down + r * Cut::DOWN;
#pragma unroll
        for (unsigned c = 0; c < Cut::COLUMNS; c++) {
            const unsigned column = first_column + across + c * Cut::ACROSS;
            if (row < args.rows && column < args.n)
                args.out[(size_t)row * args.n + column] = narrow<T>(sums[r][c]);
        }
    }
}

// Kernels of each cut and format; registers for so many blocks a multiprocessor.
#define MATMUL(name, Cut, T, BLOCKS)                                                                                   \
    extern "C" __global__ void __launch_bounds__(MATMUL_THREADS, BLOCKS) name(const MatmulArgs<T> args) {                 \
        matmul<Cut>(args);                                                                                             \
    }
MATMUL(matmul_few_f32, MatmulFew, float, 4)
MATMUL(matmul_few_bf16, MatmulFew, Bf16, 4)
MATMUL(matmul_small_f32, MatmulSmall, float, 6)
MATMUL(matmul_small_bf16, MatmulSmall, Bf16, 6)
MATMUL(matmul_large_f32, MatmulLarge, float, 4)
MATMUL(matmul_large_bf16, MatmulLarge, Bf16, 4)
