// A CUDA driver whose device is this process: memory is the host's, and kernels run under the shim, checked. With it the whole
// way of a step, from candle's tensors through cudarc to the kernels' arguments, runs on a machine without a GPU.
//
// Loaded in front of libcuda, cuBLAS, NVRTC and cuRAND, whose functions it has too (.ci/cuda_build says how). Of candle's
// kernels and of cuBLAS there is what the models here call, in plain loops: not theirs is tested, but that they are called as
// they ought to be. A call does its work before it returns, but for copies from pinned memory, which are put off until somebody
// waits for their stream: who overwrites the pinned memory too early copies the wrong bytes. Which operations of two streams
// are in order is known by their events (streams.hpp), and any that are not may not touch the same memory.
#include "kernels.hpp"

#include <algorithm>
#include <mutex>

#define DRIVER extern "C" __attribute__((visibility("default")))

namespace {

enum Status { SUCCESS = 0, INVALID = 1, NOT_FOUND = 500 };

// Tests run on several threads; the shim's state is the process's.
std::recursive_mutex one;
using Lock = std::lock_guard<std::recursive_mutex>;

shim::Buffer *holder(const void *at, size_t bytes) {
    for (shim::Buffer &buffer : shim::buffers)
        if ((const uint8_t *)at >= buffer.start && (const uint8_t *)at + bytes <= buffer.start + buffer.length)
            return &buffer;
    return nullptr;
}

// Calls `each` with the tracked words of device memory; ends the process where it is none.
template <typename F> void words(const void *at, size_t bytes, const char *what, F each) {
    if (bytes == 0)
        return;
    shim::Buffer *buffer = holder(at, bytes);
    if (buffer == nullptr)
        shim::fail("%s: %zu bytes at %p lie in no device memory", what, bytes, at);
    const size_t offset = (size_t)((const uint8_t *)at - buffer->start);
    for (size_t word = offset / buffer->unit; word * buffer->unit < offset + bytes; word++)
        each(buffer->words[word]);
}

void written(const void *at, size_t bytes, const char *what) {
    words(at, bytes, what, [what](shim::Word &word) {
        shim::note(word, true, what);
        word.valid = true;
    });
}

void read(const void *at, size_t bytes, const char *what) {
    words(at, bytes, what, [what](shim::Word &word) {
        shim::note(word, false, what);
        if (!word.valid)
            shim::fail("%s: memory is read that was never written", what);
    });
}

int allocate(void **to, size_t bytes) {
    Lock lock(one);
    if (bytes == 0)
        return INVALID;
    shim::Buffer buffer{};
    buffer.start = (uint8_t *)aligned_alloc(256, (bytes + 255) / 256 * 256);
    buffer.length = bytes;
    buffer.kind = shim::Kind::InOut;
    buffer.unit = 2;
    buffer.words.resize(bytes / buffer.unit + 1);
    *to = buffer.start;
    shim::buffers.push_back(std::move(buffer));
    return SUCCESS;
}

// What waits for memory may free it at once where nobody else uses it any more.
int release(const void *at) {
    for (size_t i = 0; i < shim::buffers.size(); i++)
        if (shim::buffers[i].start == at) {
            for (shim::Word &word : shim::buffers[i].words)
                shim::note(word, true, "memory is freed");
            std::free(shim::buffers[i].start);
            shim::buffers.erase(shim::buffers.begin() + (long)i);
            return SUCCESS;
        }
    return INVALID;
}

// A copy from pinned memory that is put off.
struct Copy {
    void *to;
    const void *from;
    size_t bytes;
};
struct Stream {
    uint32_t number;
    std::vector<Copy> put_off;
};
struct Event {
    shim::Clock clock;
    Stream *stream;
};
struct Pinned {
    uint8_t *start;
    size_t bytes;
};

Stream first_stream{0, {}};
std::vector<Pinned> pinned;

Stream &stream_of(void *handle) { return handle == nullptr ? first_stream : *(Stream *)handle; }

void catch_up(Stream &stream) {
    for (const Copy &copy : stream.put_off) {
        std::memcpy(copy.to, copy.from, copy.bytes);
        words(copy.to, copy.bytes, "a copy", [](shim::Word &word) { word.valid = true; });
    }
    stream.put_off.clear();
}

// Begins an operation of a stream.
void operate(void *handle) {
    Stream &stream = stream_of(handle);
    catch_up(stream);
    shim::operate(stream.number);
}

void *make_stream() {
    Lock lock(one);
    shim::clocks.emplace_back();
    return new Stream{(uint32_t)shim::clocks.size() - 1, {}};
}

int copy_down(void *to, const void *from, size_t bytes, void *handle) {
    Lock lock(one);
    operate(handle);
    const bool is_pinned = std::any_of(pinned.begin(), pinned.end(), [from](const Pinned &piece) {
        return (const uint8_t *)from >= piece.start && (const uint8_t *)from < piece.start + piece.bytes;
    });
    const char *what = "a copy to the device";
    if (!is_pinned) {
        written(to, bytes, what);
        std::memcpy(to, from, bytes);
        return SUCCESS;
    }
    words(to, bytes, what, [what](shim::Word &word) {
        shim::note(word, true, what);
        word.valid = false;
    });
    stream_of(handle).put_off.push_back({to, from, bytes});
    return SUCCESS;
}

// --- candle's kernels ----------------------------------------------------------------------------------------------

template <typename T> T argument(void **arguments, unsigned index) {
    T value;
    std::memcpy((void *)&value, arguments[index], sizeof value);
    return value;
}

// Where element `index` of a tensor lies, of which `dims` and `strides` are in device memory.
size_t place(size_t index, size_t rank, const size_t *dims, const size_t *strides) {
    size_t at = 0;
    for (size_t d = rank; d-- > 0; index /= dims[d])
        at += index % dims[d] * strides[d];
    return at;
}

template <typename T, typename F> void unary(void **a, F f) {
    const auto count = argument<size_t>(a, 0), rank = argument<size_t>(a, 1);
    const auto *info = argument<const size_t *>(a, 2);
    const auto *in = argument<const T *>(a, 3);
    auto *out = argument<T *>(a, 4);
    for (size_t i = 0; i < count; i++)
        out[i] = narrow<T>(f(widen(in[info ? place(i, rank, info, info + rank) : i])));
    written(out, count * sizeof(T), "an element-wise kernel");
}

template <typename T, typename F> void binary(void **a, F f) {
    const auto count = argument<size_t>(a, 0), rank = argument<size_t>(a, 1);
    const auto *info = argument<const size_t *>(a, 2);
    const auto *left = argument<const T *>(a, 3), *right = argument<const T *>(a, 4);
    auto *out = argument<T *>(a, 5);
    for (size_t i = 0; i < count; i++) {
        const size_t l = info ? place(i, rank, info, info + rank) : i;
        const size_t r = info ? place(i, rank, info, info + 2 * rank) : i;
        read(left + l, sizeof(T), "an element-wise kernel");
        read(right + r, sizeof(T), "an element-wise kernel");
        out[i] = narrow<T>(f(widen(left[l]), widen(right[r])));
    }
    written(out, count * sizeof(T), "an element-wise kernel");
}

template <typename T> void affine(void **a) {
    const float times = widen(argument<T>(a, 5)), plus = widen(argument<T>(a, 6));
    unary<T>(a, [=](float x) { return x * times + plus; });
}

// Candle gives it contiguous tensors only.
template <typename T> void index_select(void **a) {
    const auto count = argument<size_t>(a, 0);
    const auto *ids = argument<const uint32_t *>(a, 3);
    const auto *in = argument<const T *>(a, 4);
    auto *out = argument<T *>(a, 5);
    const auto from = argument<size_t>(a, 7), to = argument<size_t>(a, 8), right = argument<size_t>(a, 9);
    read(ids, to * sizeof *ids, "index_select");
    for (size_t i = 0; i < count; i++) {
        const size_t id = ids[i / right % to];
        if (id >= from)
            shim::fail("index_select: row %zu of %zu", id, from);
        const size_t at = i / (to * right) * from * right + id * right + i % right;
        read(in + at, sizeof(T), "index_select");
        out[i] = in[at];
    }
    written(out, count * sizeof(T), "index_select");
}

template <typename From, typename To> void cast(void **a) {
    const auto count = argument<size_t>(a, 0), rank = argument<size_t>(a, 1);
    const auto *info = argument<const size_t *>(a, 2);
    const auto *in = argument<const From *>(a, 3);
    auto *out = argument<To *>(a, 4);
    for (size_t i = 0; i < count; i++)
        out[i] = narrow<To>(widen(in[info ? place(i, rank, info, info + rank) : i]));
    written(out, count * sizeof(To), "cast");
}

float relu(float x) { return x < 0.0f ? 0.0f : x; }
float silu(float x) { return x / (1.0f + std::exp(-x)); }
float gelu(float x) { return x / 2.0f * (1.0f + std::tanh(0.79788456f * (x + 0.044715f * x * x * x))); }
float hyperbolic(float x) { return std::tanh(x); }
float same(float x) { return x; }
float sum(float x, float y) { return x + y; }
float product(float x, float y) { return x * y; }

const std::map<std::string, void (*)(void **)> CANDLE = {
    {"badd_f32", [](void **a) { binary<float>(a, sum); }},
    {"badd_bf16", [](void **a) { binary<Bf16>(a, sum); }},
    {"bmul_f32", [](void **a) { binary<float>(a, product); }},
    {"bmul_bf16", [](void **a) { binary<Bf16>(a, product); }},
    {"ucopy_f32", [](void **a) { unary<float>(a, same); }},
    {"ucopy_bf16", [](void **a) { unary<Bf16>(a, same); }},
    {"urelu_f32", [](void **a) { unary<float>(a, relu); }},
    {"urelu_bf16", [](void **a) { unary<Bf16>(a, relu); }},
    {"usilu_f32", [](void **a) { unary<float>(a, silu); }},
    {"usilu_bf16", [](void **a) { unary<Bf16>(a, silu); }},
    {"ugelu_f32", [](void **a) { unary<float>(a, gelu); }},
    {"ugelu_bf16", [](void **a) { unary<Bf16>(a, gelu); }},
    {"utanh_f32", [](void **a) { unary<float>(a, hyperbolic); }},
    {"affine_f32", affine<float>},
    {"affine_bf16", affine<Bf16>},
    {"is_u32_f32", index_select<float>},
    {"is_u32_bf16", index_select<Bf16>},
    {"cast_f32_bf16", cast<float, Bf16>},
    {"cast_bf16_f32", cast<Bf16, float>},
};

// One of ours or one of candle's; its address is a CUfunction.
struct Function {
    std::string name;
};

void run(const std::string &name, unsigned blocks, unsigned threads, size_t shared_bytes, void **arguments) {
    if (const auto candle = CANDLE.find(name); candle != CANDLE.end()) {
        candle->second(arguments);
        return;
    }
    shim::launch.before = shim::launch.block_epoch;
    shim::launch.body = KERNELS.at(name)(arguments[0], 0);
    gridDim = {blocks, 1, 1};
    blockDim = {threads, 1, 1};
    shim::launch.threads.resize(threads);
    for (auto &thread : shim::launch.threads)
        thread.stack.resize(shim::STACK);
    for (auto &half : shim::launch.exchanged)
        half.resize(threads);
    std::vector<float4> shared(shared_bytes / sizeof(float4) + 1);
    shim::shared_memory = {(uint8_t *)shared.data(), shared_bytes, shim::Kind::InOut, 4, {}};
    for (unsigned block = 0; block < blocks; block++) {
        shim::shared_memory.words.assign(shared_bytes / 4 + 1, shim::Word{});
        shim::run_block(block);
    }
}

} // namespace

// --- the driver ----------------------------------------------------------------------------------------------------

using Handle = void *;

DRIVER int cuInit(unsigned) { return SUCCESS; }
DRIVER int cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
DRIVER int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal == 0 ? SUCCESS : 101; }
DRIVER int cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 16: *value = 4; break;  // multiprocessors
    case 75: *value = 9; break;  // compute capability, major
    case 115: *value = 1; break; // memory pools
    default: *value = 0;
    }
    return SUCCESS;
}
DRIVER int cuDevicePrimaryCtxRetain(Handle *context, int) { return *context = &one, SUCCESS; }
DRIVER int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
DRIVER int cuCtxGetCurrent(Handle *context) { return *context = &one, SUCCESS; }
DRIVER int cuCtxSetCurrent(Handle) { return SUCCESS; }
DRIVER int cuCtxSynchronize() { return SUCCESS; }
DRIVER int cuMemGetInfo_v2(size_t *left, size_t *all) { return *left = *all = (size_t)1 << 30, SUCCESS; }

DRIVER int cuStreamCreate(Handle *stream, unsigned) { return *stream = make_stream(), SUCCESS; }
DRIVER int cuStreamCreateWithPriority(Handle *stream, unsigned, int) { return *stream = make_stream(), SUCCESS; }
// Its events may outlive it.
DRIVER int cuStreamDestroy_v2(Handle stream) {
    Lock lock(one);
    return catch_up(stream_of(stream)), SUCCESS;
}
DRIVER int cuStreamSynchronize(Handle stream) {
    Lock lock(one);
    catch_up(stream_of(stream));
    shim::host_clock.join(shim::clocks[stream_of(stream).number]);
    return SUCCESS;
}
DRIVER int cuStreamWaitEvent(Handle stream, const Event *event, unsigned) {
    Lock lock(one);
    if (event->stream != nullptr)
        catch_up(*event->stream);
    shim::clocks[stream_of(stream).number].join(event->clock);
    return SUCCESS;
}
DRIVER int cuStreamIsCapturing(Handle, int *status) { return *status = 0, SUCCESS; }
DRIVER int cuEventCreate(Event **event, unsigned) { return *event = new Event{}, SUCCESS; }
DRIVER int cuEventDestroy_v2(Event *event) { return delete event, SUCCESS; }
DRIVER int cuEventRecord(Event *event, Handle stream) {
    Lock lock(one);
    event->stream = &stream_of(stream);
    event->clock = shim::clocks[event->stream->number];
    return SUCCESS;
}
DRIVER int cuEventSynchronize(const Event *event) {
    Lock lock(one);
    if (event->stream != nullptr)
        catch_up(*event->stream);
    shim::host_clock.join(event->clock);
    return SUCCESS;
}
DRIVER int cuEventQuery(Handle) { return SUCCESS; }

DRIVER int cuMemAlloc_v2(void **at, size_t bytes) { return allocate(at, bytes); }
DRIVER int cuMemAllocAsync(void **at, size_t bytes, Handle) { return allocate(at, bytes); }
DRIVER int cuMemFree_v2(void *at) {
    Lock lock(one);
    // It waits for the whole device.
    for (const shim::Clock &clock : shim::clocks)
        shim::host_clock.join(clock);
    operate(nullptr);
    return release(at);
}
DRIVER int cuMemFreeAsync(void *at, Handle stream) {
    Lock lock(one);
    operate(stream);
    return release(at);
}
DRIVER int cuMemHostAlloc(void **at, size_t bytes, unsigned) {
    Lock lock(one);
    *at = std::malloc(bytes);
    pinned.push_back({(uint8_t *)*at, bytes});
    return SUCCESS;
}
DRIVER int cuMemFreeHost(void *at) {
    Lock lock(one);
    const auto is_it = [at](const Pinned &piece) { return piece.start == at; };
    pinned.erase(std::remove_if(pinned.begin(), pinned.end(), is_it), pinned.end());
    return std::free(at), SUCCESS;
}
DRIVER int cuMemsetD8Async(void *at, uint8_t value, size_t bytes, Handle stream) {
    Lock lock(one);
    operate(stream);
    written(at, bytes, "memset");
    return std::memset(at, value, bytes), SUCCESS;
}
DRIVER int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, Handle stream) {
    return copy_down(to, from, bytes, stream);
}
DRIVER int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, Handle stream) {
    Lock lock(one);
    operate(stream);
    read(from, bytes, "a copy from the device");
    return std::memcpy(to, from, bytes), SUCCESS;
}
DRIVER int cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, Handle stream) {
    Lock lock(one);
    operate(stream);
    // Blocks of K/V slabs are copied whole, rows that nobody has written among them.
    words(from, bytes, "a copy on the device", [](shim::Word &word) { shim::note(word, false, "a copy on the device"); });
    written(to, bytes, "a copy on the device");
    return std::memcpy(to, from, bytes), SUCCESS;
}

DRIVER int cuModuleLoadData(Handle *module, const void *) { return *module = new char, SUCCESS; }
DRIVER int cuModuleUnload(Handle module) { return delete (char *)module, SUCCESS; }
DRIVER int cuModuleGetFunction(Handle *function, Handle, const char *name) {
    if (KERNELS.find(name) == KERNELS.end() && CANDLE.find(name) == CANDLE.end()) {
        std::fprintf(stderr, "host_driver.cpp has no kernel '%s'\n", name);
        return NOT_FOUND;
    }
    return *function = new Function{name}, SUCCESS;
}
DRIVER int cuFuncSetAttribute(Handle, int, int) { return SUCCESS; }
DRIVER int cuLaunchKernel(const Function *function, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned,
                          unsigned shared_bytes, Handle stream, void **arguments, void **) {
    Lock lock(one);
    operate(stream);
    run(function->name, blocks, threads, shared_bytes, arguments);
    return SUCCESS;
}
DRIVER int cuGetErrorName(int, const char **name) { return *name = "HOST_DRIVER", SUCCESS; }
DRIVER int cuGetErrorString(int, const char **text) { return *text = "an error of host_driver.cpp", SUCCESS; }

// --- NVRTC, cuRAND and cuBLAS --------------------------------------------------------------------------------------

DRIVER int nvrtcCreateProgram(Handle *program, const char *, const char *, int, const char *const *, const char *const *) {
    return *program = new char, SUCCESS;
}
DRIVER int nvrtcCompileProgram(Handle, int, const char *const *) { return SUCCESS; }
DRIVER int nvrtcDestroyProgram(Handle *program) { return delete (char *)*program, SUCCESS; }
DRIVER int nvrtcGetPTXSize(Handle, size_t *size) { return *size = 5, SUCCESS; }
DRIVER int nvrtcGetPTX(Handle, char *ptx) { return std::memcpy(ptx, "host", 5), SUCCESS; }

DRIVER int curandCreateGenerator(Handle *generator, int) { return *generator = new char, SUCCESS; }
DRIVER int curandDestroyGenerator(Handle generator) { return delete (char *)generator, SUCCESS; }
DRIVER int curandSetPseudoRandomGeneratorSeed(Handle, unsigned long long) { return SUCCESS; }
DRIVER int curandSetStream(Handle, Handle) { return SUCCESS; }

// Its state is the stream that it works on.
DRIVER int cublasCreate_v2(Handle **handle) { return *handle = new Handle{}, SUCCESS; }
DRIVER int cublasDestroy_v2(Handle *handle) { return delete handle, SUCCESS; }
DRIVER int cublasSetStream_v2(Handle *handle, Handle stream) { return *handle = stream, SUCCESS; }

// c (m, n) = a (m, k) b (k, n), columns behind one another; 1 as operation is a transpose.
template <typename T>
static void product_of(bool a_turned, bool b_turned, size_t m, size_t n, size_t k, const T *a, size_t lda, const T *b,
                       size_t ldb, T *c, size_t ldc) {
    for (size_t column = 0; column < n; column++)
        for (size_t row = 0; row < m; row++) {
            float sum = 0.0f;
            for (size_t i = 0; i < k; i++) {
                const T *left = a + (a_turned ? row * lda + i : i * lda + row);
                const T *right = b + (b_turned ? i * ldb + column : column * ldb + i);
                sum += widen(*left) * widen(*right);
            }
            c[column * ldc + row] = narrow<T>(sum);
        }
    const auto last = [](size_t rows, size_t columns, size_t stride) { return ((columns - 1) * stride + rows) * sizeof(T); };
    read(a, a_turned ? last(k, m, lda) : last(m, k, lda), "a product");
    read(b, b_turned ? last(n, k, ldb) : last(k, n, ldb), "a product");
    written(c, last(m, n, ldc), "a product");
}

DRIVER int cublasGemmStridedBatchedEx(const Handle *handle, int turn_a, int turn_b, int m, int n, int k, const void *alpha, const void *a,
                                      int type_a, int lda, long long stride_a, const void *b, int type_b, int ldb,
                                      long long stride_b, const void *beta, void *c, int type_c, int ldc, long long stride_c,
                                      int batch, int, int) {
    Lock lock(one);
    operate(*handle);
    // 0 is CUDA_R_32F, 14 CUDA_R_16BF; the factors are in f32 with both.
    const bool known = type_a == type_b && type_b == type_c && (type_a == 0 || type_a == 14);
    if (!known || *(const float *)alpha != 1.0f || *(const float *)beta != 0.0f)
        shim::fail("a product of types %d, %d, %d, or scaled", type_a, type_b, type_c);
    const auto each = [&](auto *left, auto *right, auto *out) {
        for (int i = 0; i < batch; i++)
            product_of(turn_a == 1, turn_b == 1, m, n, k, left + i * stride_a, lda, right + i * stride_b, ldb,
                       out + i * stride_c, ldc);
    };
    if (type_a == 0)
        each((const float *)a, (const float *)b, (float *)c);
    else
        each((const Bf16 *)a, (const Bf16 *)b, (Bf16 *)c);
    return SUCCESS;
}
