// Runs one kernel of this project on the host, as stdin says, and writes what it left in memory to stdout.
//
// All numbers are little-endian. In: the kernel's name (u32 length, bytes); grid, block, dynamic shared bytes (u32 each); the
// number of buffers (u32), and each one's kind (u32), unit (u32), address (u64), length (u64) and, unless it is an output,
// bytes; the argument's length (u32) and bytes. Out: bytes loaded, stored, and loaded at least once (u64 each), then the
// buffers that the kernel may write. Kernels take one structure of arguments.
#include "kernels.hpp"

#include <sys/mman.h>

static void read_all(void *to, size_t length) {
    if (std::fread(to, 1, length, stdin) != length) {
        std::fputs("the job ends early\n", stderr);
        std::exit(2);
    }
}

template <typename T> static T read_number() {
    T value;
    read_all(&value, sizeof value);
    return value;
}

static shim::Buffer read_buffer() {
    shim::Buffer buffer{};
    buffer.kind = (shim::Kind)read_number<uint32_t>();
    buffer.unit = read_number<uint32_t>();
    const auto address = read_number<uint64_t>();
    buffer.length = read_number<uint64_t>();
    // At the address that the other side chose, so that addresses inside of buffers mean the same to both.
    void *at = mmap((void *)address, buffer.length + 1, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (at != (void *)address) {
        std::fprintf(stderr, "no memory at %#llx\n", (unsigned long long)address);
        std::exit(2);
    }
    buffer.start = (uint8_t *)at;
    const bool given = buffer.kind != shim::Kind::Output;
    if (given)
        read_all(at, buffer.length);
    buffer.words.resize(buffer.length / buffer.unit + 1);
    for (shim::Word &word : buffer.words)
        word.valid = given;
    return buffer;
}

int main() {
    std::string name(read_number<uint32_t>(), ' ');
    read_all(name.data(), name.size());
    gridDim = {read_number<uint32_t>(), 1, 1};
    blockDim = {read_number<uint32_t>(), 1, 1};
    const size_t shared_bytes = read_number<uint32_t>();
    const auto count = read_number<uint32_t>();
    for (uint32_t i = 0; i < count; i++)
        shim::buffers.push_back(read_buffer());
    std::vector<uint8_t> arguments(read_number<uint32_t>());
    read_all(arguments.data(), arguments.size());
    const auto kernel = KERNELS.find(name);
    if (kernel == KERNELS.end() || blockDim.x % shim::LANES != 0) {
        std::fprintf(stderr, "no kernel '%s', or a block of %u threads\n", name.c_str(), blockDim.x);
        return 2;
    }

    shim::launch.body = kernel->second(arguments.data(), arguments.size());
    shim::launch.threads.resize(blockDim.x);
    for (auto &thread : shim::launch.threads)
        thread.stack.resize(shim::STACK);
    for (auto &half : shim::launch.exchanged)
        half.resize(blockDim.x);
    std::vector<float4> shared(shared_bytes / sizeof(float4) + 1);
    shim::shared_memory = {(uint8_t *)shared.data(), shared_bytes, shim::Kind::InOut, 4, {}};
    for (unsigned block = 0; block < gridDim.x; block++) {
        shim::shared_memory.words.assign(shared_bytes / 4 + 1, shim::Word{}); // nothing outlives a block
        shim::run_block(block);
    }

    std::fwrite(&shim::counts, sizeof shim::counts, 1, stdout);
    for (const shim::Buffer &buffer : shim::buffers)
        if (buffer.kind != shim::Kind::ReadOnly)
            std::fwrite(buffer.start, 1, buffer.length, stdout);
    return std::fflush(stdout) == 0 ? 0 : 1;
}
