// Every kernel of this project, compiled for the host, by name. A kernel takes one structure of arguments.
#pragma once
#define DEPT_HOST
#include "../device.cuh"

#include "../../best/best.cu"
#include "../../dept_embed/dept_embed.cu"
#include "../../matmul/matmul.cu"
#include "../../norm/norm.cu"
#include "../../ragged_attention/key_values.cu"
#include "../../ragged_attention/ragged_attention.cu"
#include "../../rope/rope.cu"
#include "faults.cu"

#include <map>
#include <string>

// A kernel bound to a copy of its structure of arguments, which lies at `arguments` and has `bytes`; 0: nobody knows.
template <typename A> static std::function<void()> bind(void (*kernel)(A), const void *arguments, size_t bytes) {
    if (bytes != 0 && bytes != sizeof(A)) {
        std::fprintf(stderr, "the arguments have %zu bytes, the kernel's structure %zu\n", bytes, sizeof(A));
        std::exit(2);
    }
    A copy;
    std::memcpy((void *)&copy, arguments, sizeof(A));
    return [=] { kernel(copy); };
}

#define KERNEL(name) {#name, [](const void *arguments, size_t bytes) { return bind(name, arguments, bytes); }}

static const std::map<std::string, std::function<void()> (*)(const void *, size_t)> KERNELS = {
    KERNEL(best_f32),
    KERNEL(best_bf16),
    KERNEL(dept_embed),
    KERNEL(matmul_few_f32),
    KERNEL(matmul_few_bf16),
    KERNEL(matmul_small_f32),
    KERNEL(matmul_small_bf16),
    KERNEL(matmul_large_f32),
    KERNEL(matmul_large_bf16),
    KERNEL(norm_f32),
    KERNEL(norm_bf16),
    KERNEL(prepare_heads_f32),
    KERNEL(prepare_heads_bf16),
    KERNEL(write_key_values),
    KERNEL(attend_rows_f32_64),
    KERNEL(attend_rows_f32_128),
    KERNEL(attend_rows_f32_256),
    KERNEL(attend_rows_bf16_64),
    KERNEL(attend_rows_bf16_128),
    KERNEL(attend_rows_bf16_256),
    KERNEL(attend_split_f32_64),
    KERNEL(attend_split_f32_128),
    KERNEL(attend_split_f32_256),
    KERNEL(attend_split_bf16_64),
    KERNEL(attend_split_bf16_128),
    KERNEL(attend_split_bf16_256),
    KERNEL(fault),
};
