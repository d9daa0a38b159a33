// What the kernels of this project may use, under one name on a device and on the host.
//
// nvcc and NVRTC see plain pointers here. With DEPT_HOST, shim/shim.hpp gives the same names to classes that check every
// access, so that the very same .cu files run, and are held against the Rust references, on a machine without a GPU.
// No header of the toolkit is needed: NVRTC has none. Compile with -fmad=false; a fused multiply-add is asked for by name.
#pragma once

#ifdef DEPT_HOST
#include "shim/shim.hpp"
#else

#define DEVICE __device__ __forceinline__

// A pointer to device memory.
template <typename T> using Global = T *;
// A pointer to the block's shared memory.
template <typename T> using Shared = T *;

// The shared memory that the launch asked for.
DEVICE Shared<float> dynamic_shared() {
    extern __shared__ float4 dynamic_shared_memory[];
    return reinterpret_cast<float *>(dynamic_shared_memory);
}

// Reads and writes a vector type at `p`, which is as aligned as the type is large.
template <typename V, typename T> DEVICE V load_as(const T *p) { return *reinterpret_cast<const V *>(p); }
template <typename V, typename T> DEVICE void store_as(T *p, V value) { *reinterpret_cast<V *>(p) = value; }
template <typename V> DEVICE V shared_as(const float *p) { return *reinterpret_cast<const V *>(p); }
DEVICE void store_shared4(Shared<float> p, float4 value) { *reinterpret_cast<float4 *>(p) = value; }

#endif

constexpr unsigned WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

// 16-bit floats, widened and rounded by their bits.
struct Bf16 {
    unsigned short bits;
};
struct F16 {
    unsigned short bits;
};

DEVICE float widen(float x) { return x; }
DEVICE float widen(Bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }
// The exponent's bias is corrected by a product, which takes subnormal numbers along; infinities and NaN keep all ones.
DEVICE float widen(F16 x) {
    const unsigned magnitude = (x.bits & 0x7fffu) << 13;
    const float scaled = __uint_as_float(magnitude) * __uint_as_float((127u + 112u) << 23);
    const unsigned value = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : __float_as_uint(scaled);
    return __uint_as_float(value | ((x.bits & 0x8000u) << 16));
}

// To nearest, ties to even; NaN stays NaN.
template <typename T> DEVICE T narrow(float x);
template <> DEVICE float narrow<float>(float x) { return x; }
template <> DEVICE Bf16 narrow<Bf16>(float x) {
    const unsigned bits = __float_as_uint(x);
    const unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return Bf16{(unsigned short)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded)};
}

// Four neighbouring numbers, widened to f32.
DEVICE float4 load4(Global<const float> p) { return load_as<float4>(p); }
DEVICE float4 load4(Global<const Bf16> p) {
    const uint2 two = load_as<uint2>(p);
    return make_float4(__uint_as_float(two.x << 16), __uint_as_float(two.x & 0xffff0000u),
                       __uint_as_float(two.y << 16), __uint_as_float(two.y & 0xffff0000u));
}
DEVICE float4 load4(Global<const F16> p) {
    const uint2 two = load_as<uint2>(p);
    return make_float4(widen(F16{(unsigned short)two.x}), widen(F16{(unsigned short)(two.x >> 16)}),
                       widen(F16{(unsigned short)two.y}), widen(F16{(unsigned short)(two.y >> 16)}));
}
DEVICE float4 load4(Global<const signed char> p) {
    const unsigned word = load_as<unsigned>(p);
    return make_float4((float)(signed char)word, (float)(signed char)(word >> 8),
                       (float)(signed char)(word >> 16), (float)(signed char)(word >> 24));
}

// Four neighbouring numbers, rounded from f32.
DEVICE void store4(Global<float> p, float4 value) { store_as(p, value); }
DEVICE void store4(Global<Bf16> p, float4 value) {
    store_as(p, make_uint2(narrow<Bf16>(value.x).bits | (unsigned)narrow<Bf16>(value.y).bits << 16,
                           narrow<Bf16>(value.z).bits | (unsigned)narrow<Bf16>(value.w).bits << 16));
}

// The sum and the largest of the lanes' numbers, in all lanes; pairs in a fixed order.
DEVICE float warp_sum(float x) {
    for (unsigned half = WARP / 2; half > 0; half /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, half);
    return x;
}
DEVICE float warp_max(float x) {
    for (unsigned half = WARP / 2; half > 0; half /= 2)
        x = max(x, __shfl_xor_sync(ALL_LANES, x, half));
    return x;
}
