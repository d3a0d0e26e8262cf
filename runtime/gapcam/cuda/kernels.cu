// Everything that gapcam computes on a GPU: preprocess, class activation maps, overlay.
//
// Compiled at first use by NVRTC, which brings no headers; so this file includes none. The same source compiles for the
// CPU, where the tests compare it with the NumPy reference (tests/runtime/cuda/host_shim.h). SM 75 to 120.
//
// Entry points are extern "C", for both drivers find them by name. Pointers are device addresses, sizes are arguments,
// and nothing is assumed to divide evenly. Results are the same in every run: sums are in a fixed order, and no atomic
// adds floats.

typedef unsigned char u8;
typedef unsigned short half_bits;  // IEEE half precision, as its bits

// ---------------------------------------------------------------------------------------------------------------------
// Common

__device__ __forceinline__ float float_from_half(half_bits bits) {
#ifdef GAPCAM_HOST
    return host_float_from_half(bits);
#else
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#endif
}

// To nearest, ties to even.
__device__ __forceinline__ half_bits half_from_float(float value) {
#ifdef GAPCAM_HOST
    return host_half_from_float(value);
#else
    half_bits bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
#endif
}

__device__ __forceinline__ float load_float(const float *at) { return *at; }
__device__ __forceinline__ float load_float(const half_bits *at) { return float_from_half(*at); }

// The block's dynamic shared memory.
template <class T>
__device__ __forceinline__ T *dynamic_shared() {
#ifdef GAPCAM_HOST
    return static_cast<T *>(host::dynamic_shared());
#else
    extern __shared__ uint4 dynamic_shared_memory[];
    return reinterpret_cast<T *>(dynamic_shared_memory);
#endif
}

// Of n >= 0 and d >= 1.
__device__ __forceinline__ int ceil_div(int n, int d) { return (n + d - 1) / d; }

struct Minimum {
    __device__ static float of(float a, float b) { return fminf(a, b); }
};
struct Maximum {
    __device__ static float of(float a, float b) { return fmaxf(a, b); }
};
struct Sum {
    __device__ static float of(float a, float b) { return a + b; }
};

// One value of all threads of a one-dimensional block of whole warps, in a fixed order; every thread gets it. All
// threads call it. It may be called again at once.
template <class Operation>
__device__ float block_reduce(float value) {
    __shared__ float of_warp[32];
    for (int lanes = 16; lanes > 0; lanes /= 2) value = Operation::of(value, __shfl_xor_sync(0xFFFFFFFFu, value, lanes));
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    float all = of_warp[0];
    for (int warp = 1; warp < static_cast<int>(blockDim.x) / 32; ++warp) all = Operation::of(all, of_warp[warp]);
    __syncthreads();
    return all;
}

// A byte of each channel: blue, green, red.
struct Bgr {
    int b, g, r;
};

__device__ __forceinline__ int clamp_byte(int value) { return min(max(value, 0), 255); }

// A pixel of NV12, limited range of BT.601, in OpenCV's integers (COLOR_YUV2BGR_NV12): 20 bits of fraction.
__device__ __forceinline__ Bgr bgr_from_yuv(int y, int u, int v) {
    const int luma = max(y - 16, 0) * 1220542, half = 1 << 19;
    u -= 128;
    v -= 128;
    return Bgr{
        clamp_byte((luma + 2116026 * u + half) >> 20),
        clamp_byte((luma - 852492 * v - 409993 * u + half) >> 20),
        clamp_byte((luma + 1673527 * v + half) >> 20),
    };
}

// Four bytes from a row. `words`: the row and its pitch are aligned to 4 bytes, and so is the offset.
// What lies past the row's end is not read, and 0.
__device__ __forceinline__ unsigned load_4_bytes(const u8 *row, int offset, int row_bytes, bool words) {
    if (words && offset + 4 <= row_bytes) return *reinterpret_cast<const unsigned *>(row + offset);
    unsigned bytes = 0;
    for (int i = 0; i < 4; ++i)
        if (offset + i < row_bytes) bytes |= static_cast<unsigned>(row[offset + i]) << 8 * i;
    return bytes;
}
