// Everything that gapcam computes on a GPU: preprocess, class activation maps, overlay.
//
// Compiled at first use by NVRTC, which brings no headers; so this file includes none. The same source compiles for the
// CPU, where the tests compare it with the NumPy reference (tests/runtime/cuda/host_shim.h). SM 75 to 120.
//
// Entry points are extern "C", for both drivers find them by name. Pointers are device addresses, sizes are arguments,
// and nothing is assumed to divide evenly. Results are the same in every run: sums are in a fixed order, and no atomic
// adds floats. They are the same on the CPU, too: NVRTC must not contract a * b + c by itself (--fmad=false), so that only
// __fmaf_rn does.

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

// Up to four bytes as a word, where they are not aligned or not all there: what is past the end is 0.
__device__ __forceinline__ unsigned load_bytes(const u8 *at, int there) {
    unsigned bytes = 0;
    for (int i = 0; i < 4; ++i)
        if (i < there) bytes |= static_cast<unsigned>(at[i]) << 8 * i;
    return bytes;
}

// ---------------------------------------------------------------------------------------------------------------------
// Preprocess: from a frame to the network's input, in one pass
//
//     out[c, y, x] = scale[c] * clamp(sum_i sum_j w_y[i] w_x[j] frame[first_y + i, first_x + j, c]) - offset[c]
//
// The tables say where and with what weights (resampling.py), so that averaging, interpolation, crop and letterbox are
// the same to the kernel.
//
// A block makes a piece of one output row, kColumns wide. Its threads first sum the rows of the source above each other:
// neighbours read neighbouring words, so that every sector that is fetched is used whole, and only the rows at the border
// of two output rows are read twice, the second time from the cache. The sums go to shared memory, where the columns of
// each output, which lie far apart in the frame, are then summed. Where a piece's source is longer than the shared
// memory it goes through it in stretches.

constexpr int kColumns = 32;              // output columns of a block: a warp for each channel
constexpr int kPreprocessThreads = 128;   // for the rows' sums; 96 of them are needed for the columns'
constexpr int kStretch = 2304;            // values at a time: a frame 4000 pixels wide shrinks to 224 in one stretch
enum OutputType { kFloat = 0, kHalf = 1, kBytes = 2 };

struct __align__(8) Window {
    int first, count;
};

// Each format is read in units; a unit's values go to shared memory as they lie in a row, kStride to a pixel, of which
// the first three are blue, green, red. A unit is read as words where planes and pitches allow.
struct BgrRows {
    static constexpr int kStride = 3, kValues = 4;  // four bytes, whichever pixels they are of
    const u8 *plane;
    int pitch, row_bytes;
    bool words;

    __device__ __forceinline__ bool in_words(int unit) const { return words && 4 * unit + 4 <= row_bytes; }

    template <bool kWords>
    __device__ __forceinline__ void load(int row, int unit, float *values) const {
        const u8 *at = plane + static_cast<long long>(row) * pitch + 4 * unit;
        const unsigned bytes =
            kWords ? *reinterpret_cast<const unsigned *>(at) : load_bytes(at, row_bytes - 4 * unit);
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] = static_cast<float>(bytes >> 8 * i & 0xFF);
    }
};

struct BgraRows : BgrRows {
    static constexpr int kStride = 4;  // alpha is summed, too, and not used
};

struct Nv12Rows {
    static constexpr int kStride = 3, kValues = 6;  // two pixels, which share their chroma
    const u8 *luma, *chroma;
    int luma_pitch, chroma_pitch;
    bool words;

    __device__ __forceinline__ bool in_words(int) const { return words; }

    template <bool kWords>
    __device__ __forceinline__ void load(int row, int unit, float *values) const {
        const u8 *y = luma + static_cast<long long>(row) * luma_pitch + 2 * unit;
        const u8 *uv = chroma + static_cast<long long>(row / 2) * chroma_pitch + 2 * unit;
        const unsigned both = kWords ? *reinterpret_cast<const unsigned short *>(y) : load_bytes(y, 2);
        const unsigned pair = kWords ? *reinterpret_cast<const unsigned short *>(uv) : load_bytes(uv, 2);
        const int u = pair & 0xFF, v = pair >> 8;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const Bgr pixel = bgr_from_yuv(both >> 8 * i & 0xFF, u, v);
            values[3 * i] = static_cast<float>(pixel.b);
            values[3 * i + 1] = static_cast<float>(pixel.g);
            values[3 * i + 2] = static_cast<float>(pixel.r);
        }
    }
};

// The weighted sum of one unit of each row.
template <bool kWords, class Rows>
__device__ __forceinline__ void sum_rows(
    const Rows &source, const Window &rows, const float *weights, int unit, float *sums
) {
#pragma unroll
    for (int k = 0; k < Rows::kValues; ++k) sums[k] = 0;
#pragma unroll(kWords ? 4 : 1)
    for (int i = 0; i < rows.count; ++i) {
        float values[Rows::kValues];
        source.template load<kWords>(rows.first + i, unit, values);
        const float weight = weights[i];
#pragma unroll
        for (int k = 0; k < Rows::kValues; ++k) sums[k] = __fmaf_rn(weight, values[k], sums[k]);
    }
}

// Where a value lies in shared memory: one word is left out after 32, so that outputs whose windows begin a multiple of 8
// pixels apart do not all read from the same few banks.
__device__ __forceinline__ int preprocess_slot(int value) { return value + value / 32; }

template <class Rows>
__device__ __forceinline__ void preprocess(
    const Rows &source, const Window *row_windows, const float *row_weights, int row_taps, const Window *column_windows,
    const float *column_weights, const Window *spans, void *out, int output_type, int width, int pad, int swap_red_blue,
    float scale0, float scale1, float scale2, float offset0, float offset1, float offset2
) {
    constexpr int kValues = Rows::kValues, kStride = Rows::kStride;
    static_assert(kStretch % kValues == 0, "a stretch is of whole units");
    __shared__ float sums[kStretch + kStretch / 32];

    const int y = blockIdx.y, thread = threadIdx.x;
    const Window rows = row_windows[y], span = spans[blockIdx.x];
    const float *weights_of_rows = row_weights + y * row_taps;

    const int x = blockIdx.x * kColumns + thread % kColumns, channel = thread / kColumns;
    Window columns = {0, 0};
    if (channel < 3 && x < width) columns = column_windows[x];

    // In values, from the beginning of a source row.
    const int end = ceil_div((span.first + span.count) * kStride, kValues) * kValues;
    int tap = 0, at = columns.first * kStride + channel;
    float sum = 0;
    // A row of the bars of a letterbox has no window, and nothing to sum.
    int begin = rows.count > 0 ? span.first * kStride / kValues * kValues : end;
    for (; begin < end; begin += kStretch) {
        const int length = min(end - begin, kStretch);
        for (int unit = thread; unit < length / kValues; unit += kPreprocessThreads) {
            float of_unit[kValues];
            const int from = begin / kValues + unit;
            if (source.in_words(from))
                sum_rows<true>(source, rows, weights_of_rows, from, of_unit);
            else
                sum_rows<false>(source, rows, weights_of_rows, from, of_unit);
#pragma unroll
            for (int k = 0; k < kValues; ++k) sums[preprocess_slot(unit * kValues + k)] = of_unit[k];
        }
        __syncthreads();
        for (; tap < columns.count && at < begin + length; ++tap, at += kStride)
            sum = __fmaf_rn(column_weights[tap * width + x], sums[preprocess_slot(at - begin)], sum);
        __syncthreads();
    }
    if (channel >= 3 || x >= width) return;

    const bool seen = rows.count > 0 && columns.count > 0;
    const float pixel = seen ? fminf(fmaxf(sum, 0.0f), 255.0f) : static_cast<float>(pad);
    const int plane = swap_red_blue ? 2 - channel : channel;
    if (output_type == kBytes) {
        static_cast<u8 *>(out)[(y * width + x) * 3 + plane] = static_cast<u8>(__float2int_rn(pixel));
        return;
    }
    const float scale = plane == 0 ? scale0 : plane == 1 ? scale1 : scale2;
    const float offset = plane == 0 ? offset0 : plane == 1 ? offset1 : offset2;
    const float value = __fsub_rn(__fmul_rn(pixel, scale), offset);  // rounded twice, as NumPy does
    const int index = (plane * static_cast<int>(gridDim.y) + y) * width + x;
    if (output_type == kHalf)
        static_cast<half_bits *>(out)[index] = half_from_float(value);
    else
        static_cast<float *>(out)[index] = value;
}

// What the three entry points have in common: the grid is (width / kColumns, height) of the output. `words`: planes and
// pitches are aligned to 4 bytes, of NV12 to 2. row_weights is [height, row_taps], column_weights [taps, width]; spans are
// the source columns of each block, [width / kColumns].
#define PREPROCESS_PARAMETERS                                                                                          \
    const Window *row_windows, const float *row_weights, int row_taps, const Window *column_windows,                   \
        const float *column_weights, const Window *spans, void *out, int output_type, int width, int pad,              \
        int swap_red_blue, float scale0, float scale1, float scale2, float offset0, float offset1, float offset2
#define PREPROCESS_ARGUMENTS                                                                                           \
    row_windows, row_weights, row_taps, column_windows, column_weights, spans, out, output_type, width, pad,           \
        swap_red_blue, scale0, scale1, scale2, offset0, offset1, offset2

extern "C" __global__ void __launch_bounds__(kPreprocessThreads)
    preprocess_bgr(const u8 *plane, int pitch, int row_bytes, int words, PREPROCESS_PARAMETERS) {
    const BgrRows rows = {plane, pitch, row_bytes, words != 0};
    preprocess(rows, PREPROCESS_ARGUMENTS);
}

extern "C" __global__ void __launch_bounds__(kPreprocessThreads)
    preprocess_bgra(const u8 *plane, int pitch, int row_bytes, int words, PREPROCESS_PARAMETERS) {
    const BgraRows rows = {{plane, pitch, row_bytes, words != 0}};
    preprocess(rows, PREPROCESS_ARGUMENTS);
}

extern "C" __global__ void __launch_bounds__(kPreprocessThreads) preprocess_nv12(
    const u8 *luma, int luma_pitch, const u8 *chroma, int chroma_pitch, int words, PREPROCESS_PARAMETERS
) {
    const Nv12Rows rows = {luma, chroma, luma_pitch, chroma_pitch, words != 0};
    preprocess(rows, PREPROCESS_ARGUMENTS);
}
