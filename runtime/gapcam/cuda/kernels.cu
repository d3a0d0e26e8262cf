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

// A value that a function gets as a type, so that it is a constant there.
template <auto kValue>
struct Constant {
    static constexpr auto value = kValue;
};

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
//     out[c, y, x] = scale[c] * byte(share * sum_i sum_j w_y[i] w_x[j] image[first_y + i, first_x + j, c]) - offset[c]
//
// The image is the frame, or what is left of it after some halvings, each of which rounds to bytes, as the reference's do.
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
constexpr int kPreprocessBlocks = 8;      // at once on an SM, at least: at most 64 registers
constexpr int kMostHalvings = 2;          // MOST_HALVINGS of resampling.py
enum OutputType { kFloat = 0, kHalf = 1, kBytes = 2 };

struct __align__(8) Window {
    int first, count;
};

// Each format is read in units; a unit's values go to shared memory as they lie in a row, kStride to a pixel, of which
// the first three are blue, green, red. A unit is read as words where planes and pitches allow. Rows and units count from
// the image's first pixel.
struct BgrRows {
    static constexpr int kStride = 3, kValues = 4;  // four bytes, whichever pixels they are of
    const u8 *plane;
    int pitch, row_bytes;
    bool words;

    __device__ __forceinline__ bool in_words(int unit) const { return words && 4 * unit + 4 <= row_bytes; }

    template <bool kWords>
    __device__ __forceinline__ void load(int row, int unit, int *values) const {
        const u8 *at = plane + static_cast<long long>(row) * pitch + 4 * unit;
        const unsigned bytes =
            kWords ? *reinterpret_cast<const unsigned *>(at) : load_bytes(at, row_bytes - 4 * unit);
#pragma unroll
        for (int i = 0; i < 4; ++i) values[i] = static_cast<int>(bytes >> 8 * i & 0xFF);
    }
};

struct BgraRows : BgrRows {
    static constexpr int kStride = 4;  // alpha is summed, too, and not used
};

struct Nv12Rows {
    static constexpr int kStride = 3, kValues = 6;  // two pixels, which share their chroma if the first column is even
    const u8 *luma, *chroma;
    int luma_pitch, chroma_pitch, first_row, first_column;
    bool words;

    __device__ __forceinline__ bool in_words(int) const { return words; }

    template <bool kWords>
    __device__ __forceinline__ void load(int row, int unit, int *values) const {
        const int y = first_row + row, x = first_column + 2 * unit, first = x & ~1, second = (x + 1) & ~1;
        const u8 *luma_at = luma + static_cast<long long>(y) * luma_pitch + x;
        const u8 *chroma_row = chroma + static_cast<long long>(y / 2) * chroma_pitch;
        const unsigned both = kWords ? *reinterpret_cast<const unsigned short *>(luma_at) : load_bytes(luma_at, 2);
        unsigned pairs[2];
        pairs[0] = kWords ? *reinterpret_cast<const unsigned short *>(chroma_row + x) : load_bytes(chroma_row + first, 2);
        pairs[1] = kWords ? pairs[0] : load_bytes(chroma_row + second, 2);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const Bgr pixel = bgr_from_yuv(both >> 8 * i & 0xFF, pairs[i] & 0xFF, pairs[i] >> 8);
            values[3 * i] = pixel.b;
            values[3 * i + 1] = pixel.g;
            values[3 * i + 2] = pixel.r;
        }
    }
};

// Rows that were halved so many times, both ways: each value is the rounded mean of two by two. A unit is made of as many
// finer ones as have whole pairs of pixels.
template <int kHalvings, class Rows>
struct Halved {
    using Finer = Halved<kHalvings - 1, Rows>;
    static constexpr int kStride = Rows::kStride;
    static constexpr int kUnits = Finer::kValues % (2 * kStride) == 0     ? 1
                                  : 2 * Finer::kValues % (2 * kStride) == 0 ? 2
                                                                            : 3;
    static constexpr int kPairs = kUnits * Finer::kValues / (2 * kStride), kValues = kPairs * kStride;
    static_assert(kPairs * 2 * kStride == kUnits * Finer::kValues, "whole pairs");
    Finer finer;

    __device__ __forceinline__ bool in_words(int unit) const { return finer.in_words(kUnits * unit + kUnits - 1); }

    template <bool kWords>
    __device__ __forceinline__ void load(int row, int unit, int *values) const {
#pragma unroll
        for (int k = 0; k < kValues; ++k) values[k] = 2;
#pragma unroll(kWords ? 2 : 1)
        for (int i = 0; i < 2; ++i) {
            int pairs[kUnits * Finer::kValues];
#pragma unroll
            for (int j = 0; j < kUnits; ++j)
                finer.template load<kWords>(2 * row + i, kUnits * unit + j, pairs + j * Finer::kValues);
#pragma unroll
            for (int k = 0; k < kValues; ++k) {
                const int left = k / kStride * 2 * kStride + k % kStride;
                values[k] += pairs[left] + pairs[left + kStride];
            }
        }
#pragma unroll
        for (int k = 0; k < kValues; ++k) values[k] >>= 2;
    }
};

template <class Rows>
struct Halved<0, Rows> : Rows {};

// The weighted sum of one unit of each row.
template <bool kWords, int kUnroll, class Rows>
__device__ __forceinline__ void sum_rows(
    const Rows &source, const Window &rows, const float *weights, int unit, float *sums
) {
#pragma unroll
    for (int k = 0; k < Rows::kValues; ++k) sums[k] = 0;
#pragma unroll(kUnroll)
    for (int i = 0; i < rows.count; ++i) {
        int values[Rows::kValues];
        source.template load<kWords>(rows.first + i, unit, values);
        const float weight = weights[i];
#pragma unroll
        for (int k = 0; k < Rows::kValues; ++k) sums[k] = __fmaf_rn(weight, static_cast<float>(values[k]), sums[k]);
    }
}

// Where a value lies in shared memory: one word is left out after 32, so that outputs whose windows begin a multiple of 8
// pixels apart do not all read from the same few banks.
__device__ __forceinline__ int preprocess_slot(int value) { return value + value / 32; }

// The weighted sum of one channel's window, for each thread that has one. `shared` are the sums of a stretch's rows.
template <int kHalvings, class Rows>
__device__ __forceinline__ float sum_window(
    const Rows &frame, const Window &rows, const float *row_weights, const Window &columns, const float *column_weights,
    int width, const Window &span, int channel, float *shared
) {
    using Image = Halved<kHalvings, Rows>;
    constexpr int kValues = Image::kValues, kStride = Image::kStride, kUnroll = kHalvings == 0 ? 4 : kHalvings == 1 ? 2 : 1;
    static_assert(kStretch % kValues == 0, "a stretch is of whole units");
    const Image image = {frame};

    // In values, from the beginning of the image's row.
    const int end = ceil_div((span.first + span.count) * kStride, kValues) * kValues;
    int tap = 0, at = columns.first * kStride + channel;
    float sum = 0;
    // A row of the bars of a letterbox has no window, and nothing to sum.
    int begin = rows.count > 0 ? span.first * kStride / kValues * kValues : end;
    for (; begin < end; begin += kStretch) {
        const int length = min(end - begin, kStretch);
        for (int unit = threadIdx.x; unit < length / kValues; unit += kPreprocessThreads) {
            float of_unit[kValues];
            const int from = begin / kValues + unit;
            if (image.in_words(from))
                sum_rows<true, kUnroll>(image, rows, row_weights, from, of_unit);
            else
                sum_rows<false, 1>(image, rows, row_weights, from, of_unit);
#pragma unroll
            for (int k = 0; k < kValues; ++k) shared[preprocess_slot(unit * kValues + k)] = of_unit[k];
        }
        __syncthreads();
        for (; tap < columns.count && at < begin + length; ++tap, at += kStride)
            sum = __fmaf_rn(column_weights[tap * width], shared[preprocess_slot(at - begin)], sum);
        __syncthreads();
    }
    return sum;
}

template <class Rows>
__device__ __forceinline__ void preprocess(
    const Rows &frame, int halvings, const Window *row_windows, const float *row_weights, int row_taps,
    const Window *column_windows, const float *column_weights, float share, const Window *spans, void *out,
    int output_type, int width, int pad, int swap_red_blue, float scale0, float scale1, float scale2, float offset0,
    float offset1, float offset2
) {
    __shared__ float shared[kStretch + kStretch / 32];

    const int y = blockIdx.y, x = blockIdx.x * kColumns + threadIdx.x % kColumns, channel = threadIdx.x / kColumns;
    const Window rows = row_windows[y], span = spans[blockIdx.x];
    Window columns = {0, 0};
    if (channel < 3 && x < width) columns = column_windows[x];

    const auto sum_after = [&](auto halved) {
        return sum_window<halved.value>(
            frame, rows, row_weights + y * row_taps, columns, column_weights + x, width, span, channel, shared
        );
    };
    const float sum = halvings == 0   ? sum_after(Constant<0>())
                      : halvings == 1 ? sum_after(Constant<1>())
                                      : sum_after(Constant<kMostHalvings>());
    if (channel >= 3 || x >= width) return;

    const bool seen = rows.count > 0 && columns.count > 0;
    const int pixel = seen ? __float2int_rn(fminf(fmaxf(__fmul_rn(share, sum), 0.0f), 255.0f)) : pad;
    const int plane = swap_red_blue ? 2 - channel : channel;
    if (output_type == kBytes) {
        static_cast<u8 *>(out)[(y * width + x) * 3 + plane] = static_cast<u8>(pixel);
        return;
    }
    const float scale = plane == 0 ? scale0 : plane == 1 ? scale1 : scale2;
    const float offset = plane == 0 ? offset0 : plane == 1 ? offset1 : offset2;
    const float value = __fsub_rn(__fmul_rn(static_cast<float>(pixel), scale), offset);  // rounded twice, as NumPy does
    const int index = (plane * static_cast<int>(gridDim.y) + y) * width + x;
    if (output_type == kHalf)
        static_cast<half_bits *>(out)[index] = half_from_float(value);
    else
        static_cast<float *>(out)[index] = value;
}

// What the three entry points have in common: the grid is (width / kColumns, height) of the output. `words`: planes,
// pitches and first_column are aligned to 4 bytes, of NV12 to 2. row_weights is [height, row_taps], column_weights
// [taps, width]; windows count in pixels of the image; spans are its columns for each block, [width / kColumns].
#define PREPROCESS_PARAMETERS                                                                                          \
    int words, int halvings, int first_row, int first_column, const Window *row_windows, const float *row_weights,     \
        int row_taps, const Window *column_windows, const float *column_weights, float share, const Window *spans,     \
        void *out, int output_type, int width, int pad, int swap_red_blue, float scale0, float scale1, float scale2,   \
        float offset0, float offset1, float offset2
#define PREPROCESS_ARGUMENTS                                                                                           \
    halvings, row_windows, row_weights, row_taps, column_windows, column_weights, share, spans, out, output_type,      \
        width, pad, swap_red_blue, scale0, scale1, scale2, offset0, offset1, offset2

extern "C" __global__ void __launch_bounds__(kPreprocessThreads, kPreprocessBlocks)
    preprocess_bgr(const u8 *plane, int pitch, int row_bytes, PREPROCESS_PARAMETERS) {
    const u8 *first = plane + static_cast<long long>(first_row) * pitch + 3 * first_column;
    const BgrRows frame = {first, pitch, row_bytes - 3 * first_column, words != 0};
    preprocess(frame, PREPROCESS_ARGUMENTS);
}

extern "C" __global__ void __launch_bounds__(kPreprocessThreads, kPreprocessBlocks)
    preprocess_bgra(const u8 *plane, int pitch, int row_bytes, PREPROCESS_PARAMETERS) {
    const u8 *first = plane + static_cast<long long>(first_row) * pitch + 4 * first_column;
    const BgraRows frame = {{first, pitch, row_bytes - 4 * first_column, words != 0}};
    preprocess(frame, PREPROCESS_ARGUMENTS);
}

extern "C" __global__ void __launch_bounds__(kPreprocessThreads, kPreprocessBlocks)
    preprocess_nv12(const u8 *luma, int luma_pitch, const u8 *chroma, int chroma_pitch, PREPROCESS_PARAMETERS) {
    const Nv12Rows frame = {luma, chroma, luma_pitch, chroma_pitch, first_row, first_column, words != 0};
    preprocess(frame, PREPROCESS_ARGUMENTS);
}

// ---------------------------------------------------------------------------------------------------------------------
// Class activation maps: M[p] = sum_c row[c] f[c,p] for the best classes of each image, or those that were asked for
//
// The sum reads each feature once, which is little: 400 KB for ResNet-50, a fraction of a microsecond of bandwidth.
// What costs is waiting, so all of it is asked for at once. Blocks share out the map's pixels (tiles) and the channels
// (slices), so many that a thread has about kFeaturesAhead features; they are on their way while the block finds its
// class, which every block does for itself (the logits are a few KB, in the L2 cache). Threads lie along the pixels,
// then along the channels: as f is stored, and a 7 x 7 map fills 245 of 256 threads. The slices of a tile are added up
// by the block that finishes last, always in the same order; of the tiles, the last one finds the map's extremes. Both
// counters are 0 again then, so that the launch can be replayed.

constexpr int kCamThreads = 256;
constexpr int kFeaturesAhead = 8;

// What `status` says of a map. More than one may be true.
constexpr int kLogitsNotFinite = 1, kScaleNotPositive = 2, kRowsNotFinite = 4, kNoRow = 8, kNoClass = 16;

// Where a bilinear function takes its extremes along one side, between two cells: gapcam.cuda.bilinear.spans.
struct Span {
    int cell, next;
    float first, last;
};

// A tensor of float or half.
struct Floats {
    const void *data;
    int is_half;

    __device__ float at(int index) const {
        return is_half ? float_from_half(static_cast<const half_bits *>(data)[index])
                       : static_cast<const float *>(data)[index];
    }
    __device__ Floats from(long long index) const {
        return Floats{static_cast<const u8 *>(data) + index * (is_half ? 2 : 4), is_half};
    }
};

// What one launch is about; the same in gapcam.cuda.cam.
struct CamSizes {
    int classes, channels, pixels, width;
    int tiles, slices;
};

__device__ __forceinline__ bool is_finite(float value) { return fabsf(value) <= 3.402823466e38f; }
__device__ __forceinline__ bool is_nan(float value) { return value != value; }
__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7FC00000); }

// Orders logits: the greater first, among equals the lower index first, NaN last.
__device__ __forceinline__ unsigned long long rank_key(float logit, int index) {
    unsigned bits = __float_as_uint(logit + 0.0f);  // -0 equals 0
    bits = is_nan(logit) ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return static_cast<unsigned long long>(bits) << 32 | (0xFFFFFFFFu - static_cast<unsigned>(index));
}

__device__ unsigned long long block_greatest(unsigned long long value) {
    __shared__ unsigned long long of_warp[kCamThreads / 32];
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        const unsigned long long other = __shfl_xor_sync(0xFFFFFFFFu, value, lanes);
        value = max(value, other);
    }
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    for (int warp = 0; warp < kCamThreads / 32; ++warp) value = max(value, of_warp[warp]);
    __syncthreads();
    return value;
}

// The class with the rank-th greatest logit, from 0.
__device__ int class_of_rank(Floats logits, int classes, int rank) {
    unsigned long long key = ~0ull;
    for (; rank >= 0; --rank) {
        unsigned long long best = 0;
        for (int i = threadIdx.x; i < classes; i += kCamThreads) {
            const unsigned long long other = rank_key(logits.at(i), i);
            if (other < key) best = max(best, other);
        }
        key = block_greatest(best);
    }
    return static_cast<int>(0xFFFFFFFFu - static_cast<unsigned>(key));
}

// The place of a class among those that have a row of their own, [places] of 1 or 2 ints each; -1: it has none.
__device__ int place_of_class(const int *listed, int ints_each, int places, int wanted) {
    float found = -1;
    for (int i = threadIdx.x; i < places; i += kCamThreads)
        if (listed[i * ints_each] == wanted) found = static_cast<float>(i);
    return static_cast<int>(block_reduce<Maximum>(found));
}

// Of one of several blocks that write what the last one reads: whether this is the last one. What it read is then to be
// read past the L1 cache, as volatile.
__device__ bool is_last_block(unsigned *finished, int blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(finished, 1u) == static_cast<unsigned>(blocks) - 1;
        if (last) *finished = 0;
    }
    __syncthreads();
    const bool is_last = last;
    __threadfence();
    __syncthreads();
    return is_last;
}

// The least and the greatest value that the map takes where the network saw the frame, or NaN twice.
__device__ void write_extremes(
    const volatile float *map, int width, const Span *columns, int column_count, const Span *rows, int row_count,
    float *extremes
) {
    float low = __int_as_float(0x7F800000), high = -low, bad = 0;
    for (int r = threadIdx.x / 32; r < row_count; r += kCamThreads / 32) {
        const Span row = rows[r];
        for (int c = threadIdx.x % 32; c < column_count; c += 32) {
            const Span column = columns[c];
            const float a = map[row.cell * width + column.cell], b = map[row.cell * width + column.next];
            const float d = map[row.next * width + column.cell], e = map[row.next * width + column.next];
            const float fractions[2] = {column.first, column.last};
            for (int i = 0; i < 2; ++i) {
                const float above = a * (1 - fractions[i]) + b * fractions[i];
                const float below = d * (1 - fractions[i]) + e * fractions[i];
                const float first = above * (1 - row.first) + below * row.first;
                const float last = above * (1 - row.last) + below * row.last;
                low = fminf(low, fminf(first, last));
                high = fmaxf(high, fmaxf(first, last));
                if (!is_finite(first) || !is_finite(last)) bad = 1;
            }
        }
    }
    low = block_reduce<Minimum>(low);
    high = block_reduce<Maximum>(high);
    bad = block_reduce<Maximum>(bad);
    if (threadIdx.x == 0) {
        extremes[0] = bad > 0 ? not_a_number() : low;
        extremes[1] = bad > 0 ? not_a_number() : high;
    }
}

// One (rank, image): its class, logit, score and status.
__device__ void write_class(
    Floats logits, int classes, bool sigmoid, Floats scale, Floats rows, int row_floats, int chosen, int status,
    int *out_class, float *out_logit, float *out_score, int *out_status
) {
    float greatest = -__int_as_float(0x7F800000), sum = 0, bad = 0;
    for (int i = threadIdx.x; i < classes; i += kCamThreads) {
        const float logit = logits.at(i);
        greatest = fmaxf(greatest, logit);
        if (!is_finite(logit)) bad = 1;
    }
    bad = block_reduce<Maximum>(bad);
    if (!sigmoid) {
        greatest = block_reduce<Maximum>(greatest);
        for (int i = threadIdx.x; i < classes; i += kCamThreads) sum += expf(logits.at(i) - greatest);
        sum = block_reduce<Sum>(sum);
    }
    float bad_row = 0;
    for (int i = threadIdx.x; i < row_floats; i += kCamThreads)
        if (!is_finite(rows.at(i))) bad_row = 1;
    bad_row = block_reduce<Maximum>(bad_row);
    if (threadIdx.x == 0) {
        const float logit = status & kNoClass ? not_a_number() : logits.at(chosen);
        const float small = expf(-fabsf(logit));  // never overflows
        const float factor = scale.data ? scale.at(0) : 1;
        *out_class = chosen;
        *out_logit = logit;
        // Both divisors are far from where the fast division ends.
        *out_score = sigmoid ? __fdividef(logit < 0 ? small : 1, 1 + small) : __fdividef(expf(logit - greatest), sum);
        *out_status = status | (bad > 0 ? kLogitsNotFinite : 0) | (bad_row > 0 ? kRowsNotFinite : 0) |
                      (is_finite(factor) && factor > 0 ? 0 : kScaleNotPositive);
    }
}

// A grid of (tiles * slices + 1, k, images): the one more block writes class, logit, score and status.
template <class Feature>
__device__ __forceinline__ void class_activation_maps(
    const Feature *features,                           // [images,C,pixels]
    Floats logits,                                     // [images,K]
    Floats rows,                                       // [K,C], [images,places,C], or null: features are the maps
    Floats scales,                                     // [images], or null
    const int *row_classes, int ints_each, int places, // [images,places], the rows' classes, or null: row c is class c
    const int *targets,                                // [images,k], or null for the k best
    CamSizes sizes, bool clamp_negative, bool sigmoid, const Span *columns, int column_count, const Span *spanned_rows,
    int row_count,
    float *partial_maps,  // [images,k,tiles,slices,tile's pixels]
    unsigned *finished,   // [images,k,tiles], then [images,k], all 0
    int *out_classes, float *out_logits, float *out_scores, float *out_maps, float *out_extremes, int *out_status
) {
    __shared__ float sums[kCamThreads];
    const int self = threadIdx.x, rank = blockIdx.y, image = blockIdx.z, count = gridDim.y;
    const int each = image * count + rank, slice = blockIdx.x % sizes.slices, tile = blockIdx.x / sizes.slices;
    const bool for_class = tile == sizes.tiles, maps_given = rows.data == nullptr;

    // Which pixel and channels: thread = group * tile_pixels + pixel, and a group has every groups-th channel.
    const int tile_pixels = ceil_div(sizes.pixels, sizes.tiles), groups = kCamThreads / tile_pixels;
    const int group = self / tile_pixels, in_tile = self - group * tile_pixels, pixel = tile * tile_pixels + in_tile;
    const int of_slice = ceil_div(sizes.channels, sizes.slices), end = min((slice + 1) * of_slice, sizes.channels);
    const bool has_pixel = group < groups && pixel < sizes.pixels && !for_class;
    int channel = has_pixel && !maps_given ? slice * of_slice + group : end;
    features += static_cast<long long>(image) * sizes.channels * sizes.pixels + (has_pixel ? pixel : 0);
    const auto feature = [&](int i) {
        const int c = channel + i * groups;
        return c < end ? load_float(features + c * sizes.pixels) : 0.0f;
    };
    float ahead[kFeaturesAhead];
#pragma unroll
    for (int i = 0; i < kFeaturesAhead; ++i)
        ahead[i] = feature(i);

    // The class, and its row.
    logits = logits.from(static_cast<long long>(image) * sizes.classes);
    int chosen = targets ? targets[each] : class_of_rank(logits, sizes.classes, rank), status = 0;
    if (chosen < 0 || chosen >= sizes.classes) status = kNoClass;
    int row = status ? 0 : chosen;
    if (row_classes) {
        rows = rows.from(static_cast<long long>(image) * places * sizes.channels);
        row = place_of_class(row_classes + image * places * ints_each, ints_each, places, chosen);
        if (row < 0) row = 0, status |= kNoRow;
    }
    if (scales.data) scales = scales.from(image);
    if (for_class) {
        write_class(
            logits, sizes.classes, sigmoid, scales, rows, row_classes ? places * sizes.channels : 0, chosen, status,
            out_classes + each, out_logits + each, out_scores + each, out_status + each
        );
        return;
    }

    // This thread's sum, the block's, the tile's.
    float sum = 0;
    if (maps_given) {
        if (has_pixel && group == 0) sum = status ? not_a_number() : load_float(features + row * sizes.pixels);
    } else {
        const float factor = status ? not_a_number() : scales.data ? scales.at(0) : 1;
        const Floats weights = rows.from(static_cast<long long>(row) * sizes.channels);
        while (channel < end) {
#pragma unroll
            for (int i = 0; i < kFeaturesAhead; ++i) {
                const int c = channel + i * groups;
                if (c >= end) break;
                float weight = weights.at(c) * factor;
                if (clamp_negative && weight < 0) weight = 0;
                sum = __fmaf_rn(weight, ahead[i], sum);
            }
            channel += kFeaturesAhead * groups;
#pragma unroll
            for (int i = 0; i < kFeaturesAhead; ++i)
                ahead[i] = feature(i);
        }
    }
    sums[self] = sum;
    __syncthreads();
    if (group == 0)
        for (int i = 1; i < groups; ++i) sum += sums[i * tile_pixels + in_tile];
    if (sizes.slices > 1) {
        volatile float *partial = partial_maps + (each * sizes.tiles + tile) * sizes.slices * tile_pixels;
        if (group == 0) partial[slice * tile_pixels + in_tile] = sum;
        if (!is_last_block(finished + each * sizes.tiles + tile, sizes.slices)) return;
        sum = 0;
        if (group < groups)
            for (int i = group; i < sizes.slices; i += groups) sum += partial[i * tile_pixels + in_tile];
        sums[self] = sum;
        __syncthreads();
        if (group == 0)
            for (int i = 1; i < groups; ++i) sum += sums[i * tile_pixels + in_tile];
    }

    float *map = out_maps + each * sizes.pixels;
    if (group == 0 && has_pixel) map[pixel] = sum;
    if (sizes.tiles > 1) {
        if (!is_last_block(finished + gridDim.z * count * sizes.tiles + each, sizes.tiles)) return;
        write_extremes(map, sizes.width, columns, column_count, spanned_rows, row_count, out_extremes + 2 * each);
    } else {
        __syncthreads();  // all have read their sums
        if (group == 0) sums[in_tile] = sum;
        __syncthreads();
        write_extremes(sums, sizes.width, columns, column_count, spanned_rows, row_count, out_extremes + 2 * each);
    }
}

extern "C" __global__ void __launch_bounds__(kCamThreads, 4) cam(
    const void *features, int features_are_half, const void *logits, int logits_are_half, const void *rows,
    int rows_are_half, const void *scales, int scales_are_half, const int *row_classes, int ints_each, int places,
    const int *targets, int classes, int channels, int pixels, int width, int tiles, int slices, int clamp_negative,
    int sigmoid, const Span *columns, int column_count, const Span *spanned_rows, int row_count, float *partial_maps,
    unsigned *finished, int *out_classes, float *out_logits, float *out_scores, float *out_maps, float *out_extremes,
    int *out_status
) {
    const auto compute = [&](auto typed_features) {
        class_activation_maps(
            typed_features, Floats{logits, logits_are_half}, Floats{rows, rows_are_half},
            Floats{scales, scales_are_half}, row_classes, ints_each, places, targets,
            CamSizes{classes, channels, pixels, width, tiles, slices}, clamp_negative != 0, sigmoid != 0, columns,
            column_count, spanned_rows, row_count, partial_maps, finished, out_classes, out_logits, out_scores,
            out_maps, out_extremes, out_status
        );
    };
    if (features_are_half)
        compute(static_cast<const half_bits *>(features));
    else
        compute(static_cast<const float *>(features));
}

// ---------------------------------------------------------------------------------------------------------------------
// Overlay: the map's levels in colour over the frame
//
// Bound by memory: each byte of the frame is read once and written once. A block has a tile of the frame: kTileLanes
// pieces of each of up to kTileRows rows. A thread has kRowsEach pieces one below the other, which it asks for first.
// While they are on their way, the block computes the levels that the tile lies over, a few rows of a few columns, and
// blends two of those rows for each of the tile's, in steps of 1/256. Both go to shared memory; each pixel then blends
// two neighbours of its row and looks its colour up.
//
// A piece of BGR or BGRA is 16 bytes, whichever pixels they are of, so that a warp reads and writes 512 contiguous
// bytes at once, and in few instructions: on the largest GPUs it is they that limit. 16 bytes of BGR are of 6 pixels;
// their colours are put into the words' order by byte permutations. A piece of NV12 is a word in two rows, and the word
// of their chroma.

constexpr int kTileLanes = 32, kTileThreadRows = 4, kRowsEach = 4, kTileRows = kTileThreadRows * kRowsEach;
constexpr int kTileThreads = kTileLanes * kTileThreadRows;
constexpr int kTileBlocks = 7;  // on a multiprocessor at a time: 72 registers
constexpr unsigned kLevelSteps = 256;

// Where a level lies in the map along one side: the cell before it, and the next one's weight. There is a table for the
// rows and one for the columns of the part of the input that holds the frame, with the last entry twice.
struct Place {
    int cell;
    float fraction;
};

struct Range {
    int first, count;

    __device__ bool has(int index) const { return index >= first && index - first < count; }
};

// How a value of the map becomes a heat in [0, 1]: gapcam.cam.normalize in float. `unit` is a power of two that
// keeps the difference of huge values finite and that of tiny ones exact; `low` is in two parts: limits are doubles.
struct Normalizer {
    float unit, low, low_rest, span, inverse;  // low, its rest and span times unit; 1 / span

    __device__ static Normalizer of_span(float unit, float low, float span) {
        const float inverse = __fdividef(1.0f, span);  // and corrected, to half a unit in the last place
        return Normalizer{unit, low, 0, span, __fmaf_rn(inverse, __fmaf_rn(-span, inverse, 1.0f), inverse)};
    }
    __device__ static Normalizer nothing() { return Normalizer{0, 0, 0, 1, 1}; }

    __device__ float operator()(float value) const {
        float above = __fsub_rn(__fmaf_rn(value, unit, -low), low_rest);
        above = fminf(fmaxf(above, 0.0f), span);
        const float quotient = above * inverse;  // and corrected by its remainder: as if divided
        return __fmaf_rn(__fmaf_rn(-quotient, span, above), inverse, quotient);
    }
};

enum Method { kMinMax, kMax, kFixed };

__device__ Normalizer normalizer(const float *extremes, int method, Normalizer fixed) {
    float low = extremes[0], high = extremes[1];
    if (!is_finite(low) || !is_finite(high)) return Normalizer::nothing();
    if (method == kFixed) return fixed;
    const float size = fmaxf(fabsf(low), fabsf(high));
    const float unit = size > 1e18f ? 0x1p-64f : size < 1e-18f ? 0x1p64f : 1.0f;
    low *= unit;
    high *= unit;
    if (high - low <= 1e-6f * (size * unit)) return Normalizer::nothing();  // gapcam.cam.is_flat
    if (method == kMax) low = 0;
    return high > low ? Normalizer::of_span(unit, low, high - low) : Normalizer::nothing();
}

// What both outputs need of the map.
struct MapView {
    const float *map;
    int width, height;
    Normalizer normalize;

    // Bilinear.
    __device__ float heat(Place row, Place column) const {
        const float *above = map + row.cell * width, *below = map + min(row.cell + 1, height - 1) * width;
        const int next = min(column.cell + 1, width - 1);
        const float f = column.fraction, g = row.fraction;
        const float first = above[column.cell] * (1 - f) + above[next] * f;
        const float second = below[column.cell] * (1 - f) + below[next] * f;
        return normalize(first * (1 - g) + second * g);
    }
};

typedef unsigned short StagedLevel;  // 0 to 255, or two of them blended, 0 to 255 * 256

// A heat as it is, or as a level: uint8(heat * 255 + 0.5) of float32 numbers.
__device__ __forceinline__ void put_heat(float *at, float heat) { *at = heat; }
__device__ __forceinline__ void put_heat(StagedLevel *at, float heat) {
    *at = static_cast<StagedLevel>(__fadd_rn(__fmul_rn(heat, 255.0f), 0.5f));
}

// The rows or columns of levels that the pixels from the first to the last lie over. `levels` holds for each pixel the
// level before it, above its lowest `shift` bits.
__device__ Range levels_under(int first, int last, const int *levels, int shift) {
    const int start = levels[first] >> shift;
    return Range{start, (levels[last] >> shift) + 2 - start};
}

// Heats or levels of some rows and columns into shared memory, [rows][stride]. 2^lanes threads lie along the columns.
template <class Value>
__device__ __forceinline__ void stage_heats(
    const MapView &view, Range rows, Range columns, const Place *row_places, const Place *column_places, int lanes,
    int stride, Value *out
) {
    const int self = threadIdx.y * kTileLanes + threadIdx.x;
    for (int i = self & ((1 << lanes) - 1); i < columns.count; i += 1 << lanes) {
        const Place column = column_places[columns.first + i];
#pragma unroll 1
        for (int row = self >> lanes; row < rows.count; row += kTileThreads >> lanes)
            put_heat(out + row * stride + i, view.heat(row_places[rows.first + row], column));
    }
}

// Which two of the staged levels a pixel lies between along one side, and what the second weighs, of 256.
struct Taps {
    unsigned place, step;
};

// `levels` holds 512 times the level before each pixel plus the step.
__device__ __forceinline__ Taps taps_of_pixel(int pixel, const int *levels, Range staged) {
    const unsigned packed = levels[pixel];
    return Taps{packed / 512 - staged.first, packed & 511};
}

__device__ __forceinline__ unsigned level_of_pixel(const StagedLevel *row, Taps taps) {
    const unsigned first = row[taps.place], second = row[taps.place + 1];
    return (first * (kLevelSteps - taps.step) + second * taps.step + (1u << 15)) >> 16;
}

// A constant that the compiler takes for a variable: a byte permutation then has it in a register, and its selector, of
// which there are four, in the instruction.
__device__ __forceinline__ unsigned in_register(unsigned value) {
#ifndef GAPCAM_HOST
    asm("" : "+r"(value));
#endif
    return value;
}

// Four times alpha * colour + (1 - alpha) * frame, in float and rounded to nearest even as cv2.addWeighted does. Bytes
// become floats, and the results bytes, as the low bits of a float between 2^23 and 2^24: a permutation and an
// addition, where conversions have a quarter of the rate or less.
__device__ __forceinline__ unsigned blend_4_bytes(unsigned frame, unsigned colors, float alpha, float beta) {
    constexpr float kBase = 8388608.0f;
    const unsigned base = in_register(0x4B000000u);
    unsigned bytes[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float of_frame = __uint_as_float(__byte_perm(frame, base, 0x7540u + i));
        const float of_color = __uint_as_float(__byte_perm(colors, base, 0x7540u + i));
        const float kept = __fmaf_rn(of_frame, beta, -kBase * beta);  // the product alone, rounded once
        bytes[i] = __float_as_uint(__fadd_rn(__fmaf_rn(__fsub_rn(of_color, kBase), alpha, kept), kBase));
    }
    return __byte_perm(__byte_perm(bytes[0], bytes[1], 0x0040), __byte_perm(bytes[2], bytes[3], 0x0040), 0x5410);
}

// Four times colour + keep * frame / 255, each rounded: gapcam.overlay.colors_by_heat.
__device__ __forceinline__ unsigned blend_4_bytes_by_heat(unsigned frame, unsigned colors, unsigned keeps) {
    unsigned blended = colors;  // no byte's sum exceeds 255
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const unsigned product = (frame >> 8 * i & 255) * (keeps >> 8 * i & 255) + 128;
        blended += (product + (product >> 8)) >> 8 << 8 * i;
    }
    return blended;
}

// What a kernel gets of a plane.
struct Plane {
    const u8 *frame;  // or null: the colours stand alone, with alpha 1 and beta 0; may be `out`
    int frame_pitch;
    u8 *out;
    int out_pitch;
};

template <int kWords>
struct __align__(4 * kWords) Words {
    unsigned at[kWords];
};

// A thread's pieces of a plane's rows, kWords long. What lies past the row's end is not touched, and read as 0.
template <int kWords>
struct Column {
    const u8 *frame;
    u8 *out;
    int frame_pitch, out_pitch;
    int bytes;     // of the piece, less at the row's end
    bool whole;    // it is read and written at once
    bool by_word;  // or else word by word

    // `alignment`: what divides pointers and pitches.
    __device__ __forceinline__ static Column of_plane(const Plane &plane, int offset, int row_bytes, int alignment) {
        const int bytes = min(row_bytes - offset, 4 * kWords);
        return Column{
            plane.frame ? plane.frame + offset : nullptr, plane.out + offset, plane.frame_pitch, plane.out_pitch,
            bytes, alignment % (4 * kWords) == 0 && bytes == 4 * kWords, alignment % 4 == 0
        };
    }

    // Of rows top + first, top + first + step and so on, as far as they lie before top + rows.
    template <int kCount>
    __device__ __forceinline__ void load(
        int top, int rows, int first, int step, Words<kWords> (&loaded)[kCount]
    ) const {
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            const int row = first + i * step;
            if (row < rows && whole)
                loaded[i] = *reinterpret_cast<const Words<kWords> *>(frame + offset_of(top + row, frame_pitch));
            else if (row < rows)
                load_part(frame + offset_of(top + row, frame_pitch), loaded[i]);
        }
    }
    template <bool kWhole>
    __device__ __forceinline__ void store(int row, const Words<kWords> &words) const {
        u8 *at = out + offset_of(row, out_pitch);
        if constexpr (kWhole)
            *reinterpret_cast<Words<kWords> *>(at) = words;
        else
            store_part(at, words);
    }

  private:
    __device__ __forceinline__ static long long offset_of(int row, int pitch) {
        return static_cast<long long>(row) * pitch;
    }
    __device__ __forceinline__ void load_part(const u8 *at, Words<kWords> &words) const {
#pragma unroll
        for (int i = 0; i < kWords; ++i)
            words.at[i] = by_word && 4 * i + 4 <= bytes ? *reinterpret_cast<const unsigned *>(at + 4 * i)
                                                        : load_bytes(at + 4 * i, bytes - 4 * i);
    }
    __device__ __forceinline__ void store_part(u8 *at, const Words<kWords> &words) const {
#pragma unroll
        for (int i = 0; i < kWords; ++i) {
            if (by_word && 4 * i + 4 <= bytes) {
                *reinterpret_cast<unsigned *>(at + 4 * i) = words.at[i];
                continue;
            }
            for (int j = 0; j < 4; ++j)
                if (4 * i + j < bytes) at[4 * i + j] = static_cast<u8>(words.at[i] >> 8 * j);
        }
    }
};

// Everything a launch is told.
struct OverlayWork {
    const float *map, *extremes;
    int map_width, map_height, method;
    Normalizer fixed;  // of kFixed
    const unsigned *palette;
    float alpha, beta;
    bool by_heat;
    const int *rows, *columns;  // of the frame: 512 times the level before, plus the step; those not seen as the next
    const Place *row_places, *column_places;
    Range seen_rows, seen_columns;
    int width, height, tile_rows;
    int level_rows, stride, lanes;  // the shared memory's: see stage_levels
    int alignment;                  // of pointers and pitches: 16, 4 or 1
    Plane plane, chroma;            // the second one of NV12 only

    // `keeps` is used by heat only.
    template <bool kByHeat>
    __device__ __forceinline__ unsigned cover(unsigned frame, unsigned colors, unsigned keeps) const {
        return kByHeat ? blend_4_bytes_by_heat(frame, colors, keeps) : blend_4_bytes(frame, colors, alpha, beta);
    }
};

// Of two words, the first one's bytes where the bit of four is set, and the second one's elsewhere.
__device__ __forceinline__ unsigned bytes_where(unsigned bits, unsigned first, unsigned second) {
    const unsigned mask = ((bits & 15) * 0x204081u & 0x01010101u) * 255u;
    return (first & mask) | (second & ~mask);
}

// A bit for each of `count` bytes from `offset` on that lies in a range.
__device__ __forceinline__ unsigned bits_in(Range range, int offset, int count) {
    const int first = min(max(range.first - offset, 0), count), end = range.first + range.count - offset;
    return (1u << min(max(end, 0), count)) - (1u << first);
}

// Calls draw(whole, by_heat) with both as constants, so that the rows are drawn without asking.
template <class Draw>
__device__ __forceinline__ void with_constants(bool whole, bool by_heat, Draw draw) {
    if (whole && by_heat)
        draw(Constant<true>(), Constant<true>());
    else if (whole)
        draw(Constant<true>(), Constant<false>());
    else if (by_heat)
        draw(Constant<false>(), Constant<true>());
    else
        draw(Constant<false>(), Constant<false>());
}

// The palette and the tile's levels go to shared memory, [level_rows][stride], and behind them for each of its rows the
// two rows of levels that its pixels lie between, blended, [tile_rows][stride]. Lanes lie along the rows there, so that
// a row's taps are read once. Gives the second.
__device__ __forceinline__ const StagedLevel *stage_levels(
    const OverlayWork &work, int top, int rows, Range columns, StagedLevel *shared, unsigned *palette
) {
    const int self = threadIdx.y * kTileLanes + threadIdx.x;
    for (int i = self; i < 256; i += kTileThreads) palette[i] = work.palette[i];
    const MapView view{work.map, work.map_width, work.map_height, normalizer(work.extremes, work.method, work.fixed)};
    const Range staged = levels_under(top, top + rows - 1, work.rows, 9);
    stage_heats(view, staged, columns, work.row_places, work.column_places, work.lanes, work.stride, shared);
    __syncthreads();
    StagedLevel *blended = shared + work.level_rows * work.stride;
    const int row = self % kTileRows;
    if (row < rows) {
        const Taps taps = taps_of_pixel(top + row, work.rows, staged);
        const StagedLevel *above = shared + taps.place * work.stride, *below = above + work.stride;
        for (int i = self / kTileRows; i < columns.count; i += kTileThreads / kTileRows)
            blended[row * work.stride + i] =
                static_cast<StagedLevel>(above[i] * (kLevelSteps - taps.step) + below[i] * taps.step);
    }
    __syncthreads();
    return blended;
}

// BGR and BGRA. 16 bytes of BGR begin at a pixel's byte `skipped`, and are of 6 pixels; of BGRA, of 4.
template <bool kHasAlpha>
__device__ __forceinline__ void overlay_packed(const OverlayWork &work, StagedLevel *shared, unsigned *palette) {
    constexpr int kBytes = kHasAlpha ? 4 : 3, kPixels = kHasAlpha ? 4 : 6;
    constexpr int kPiece = 16, kTileBytes = kPiece * kTileLanes;
    const int first_byte = static_cast<int>(blockIdx.x) * kTileBytes, row_bytes = work.width * kBytes;
    const int offset = first_byte + threadIdx.x * kPiece, pixel = offset / kBytes, skipped = offset - pixel * kBytes;
    const int top = static_cast<int>(blockIdx.y) * work.tile_rows, rows = min(work.tile_rows, work.height - top);
    const int row_of_thread = threadIdx.y;
    const auto pieces = Column<4>::of_plane(work.plane, offset, row_bytes, work.alignment);
    Words<4> frame[kRowsEach];
    if (work.plane.frame && pieces.bytes > 0) pieces.load(top, rows, row_of_thread, kTileThreadRows, frame);

    const Range columns = levels_under(first_byte / kBytes, (first_byte + kTileBytes - 1) / kBytes, work.columns, 9);
    Taps taps[kPixels];
#pragma unroll
    for (int i = 0; i < kPixels; ++i) taps[i] = taps_of_pixel(pixel + i, work.columns, columns);
    const StagedLevel *levels = stage_levels(work, top, rows, columns, shared, palette);
    if (pieces.bytes <= 0) return;

    // Word i begins at a pixel's byte (skipped + i) % 3. Of the colours of two pixels, these are its bytes, and the
    // bytes of what they keep.
    const auto in_order = [&](int i, unsigned first, unsigned second) {
        const int begin = (skipped + i) % 3;
        return __byte_perm(first, second, kHasAlpha ? 0x3210 : begin == 0 ? 0x4210 : begin == 1 ? 0x5421 : 0x6542);
    };
    const auto keeps_in_order = [&](int i, unsigned first, unsigned second) {
        const int begin = (skipped + i) % 3;
        return __byte_perm(first, second, kHasAlpha ? 0x3333 : begin == 0 ? 0x7333 : begin == 1 ? 0x7733 : 0x7773);
    };
    if (!work.plane.frame) {
        const unsigned lowest = palette[0];
#pragma unroll
        for (int i = 0; i < kRowsEach; ++i)
            for (int j = 0; j < 4; ++j) frame[i].at[j] = in_order(j, lowest, lowest);
    }
    const Range seen_bytes = {work.seen_columns.first * kBytes, work.seen_columns.count * kBytes};
    const unsigned seen_bits = bits_in(seen_bytes, offset, kPiece);

    with_constants(pieces.whole, work.by_heat, [&](auto whole, auto by_heat) {
#pragma unroll
        for (int i = 0; i < kRowsEach; ++i) {
            const int row = row_of_thread + i * kTileThreadRows;
            if (row >= rows) return;
            const StagedLevel *level_row = levels + row * work.stride;
            unsigned colors[kPixels];
#pragma unroll
            for (int j = 0; j < kPixels; ++j) colors[j] = palette[level_of_pixel(level_row, taps[j])];
            Words<4> words;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                // Of BGR, word j begins at its pixel (4 j + skipped) / 3.
                unsigned first = colors[j], second = 0;
                if constexpr (!kHasAlpha) {
                    const bool later = j == 3 || (j == 1 && skipped == 2) || (j == 2 && skipped != 0);
                    first = later ? colors[j + 1] : colors[j];
                    second = later ? colors[j + 2 < kPixels ? j + 2 : j] : colors[j + 1];
                }
                const unsigned keeps = by_heat.value ? keeps_in_order(j, first, second) : 0;
                words.at[j] = work.cover<by_heat.value>(frame[i].at[j], in_order(j, first, second), keeps);
                if (kHasAlpha) words.at[j] = __byte_perm(words.at[j], frame[i].at[j], 0x7210);  // alpha stays
            }
            const unsigned bits = work.seen_rows.has(top + row) ? seen_bits : 0;
            if (bits != 0xFFFF)
#pragma unroll
                for (int j = 0; j < 4; ++j) words.at[j] = bytes_where(bits >> 4 * j, words.at[j], frame[i].at[j]);
            pieces.store<whole.value>(top + row, words);
        }
    });
}

// NV12. Of two rows, a thread has a word each, four pixels, and the word of their chroma. A pair of chroma has the mean
// level of its four pixels, and is blended where the network saw all four.
__device__ __forceinline__ void overlay_planes(const OverlayWork &work, StagedLevel *shared, unsigned *palette) {
    constexpr int kTileBytes = 4 * kTileLanes, kPairs = kRowsEach / 2;
    const int first_byte = static_cast<int>(blockIdx.x) * kTileBytes, offset = first_byte + threadIdx.x * 4;
    const int top = static_cast<int>(blockIdx.y) * work.tile_rows, rows = min(work.tile_rows, work.height - top);
    const int row_of_thread = 2 * threadIdx.y;
    const auto luma = Column<1>::of_plane(work.plane, offset, work.width, work.alignment);
    const auto chroma = Column<1>::of_plane(work.chroma, offset, work.width, work.alignment);
    Words<1> frame[2][kPairs], frame_chroma[kPairs];  // of the upper rows, of the lower rows
    if (work.plane.frame && luma.bytes > 0) {
        luma.load(top, rows, row_of_thread, 2 * kTileThreadRows, frame[0]);
        luma.load(top, rows, row_of_thread + 1, 2 * kTileThreadRows, frame[1]);
        chroma.load(top / 2, rows / 2, threadIdx.y, kTileThreadRows, frame_chroma);
    }
    const Range columns = levels_under(first_byte, first_byte + kTileBytes - 1, work.columns, 9);
    Taps taps[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) taps[i] = taps_of_pixel(offset + i, work.columns, columns);
    const StagedLevel *levels = stage_levels(work, top, rows, columns, shared, palette);
    if (luma.bytes <= 0) return;

    if (!work.plane.frame) {
        const unsigned lowest = palette[0];
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
            frame[0][i].at[0] = frame[1][i].at[0] = __byte_perm(lowest, 0, 0x0000);
            frame_chroma[i].at[0] = __byte_perm(lowest, 0, 0x2121);
        }
    }
    const unsigned seen_bits = bits_in(work.seen_columns, offset, 4);
    const unsigned pairs = seen_bits & seen_bits >> 1 & 5, chroma_bits = pairs | pairs << 1;

    with_constants(luma.whole, work.by_heat, [&](auto whole, auto by_heat) {
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
            const int upper = row_of_thread + 2 * i * kTileThreadRows;
            if (upper >= rows) return;
            unsigned left = 2, right = 2;  // sums of four levels, to be rounded
            Words<1> words;
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const StagedLevel *level_row = levels + (upper + j) * work.stride;
                unsigned colors[4];
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    const unsigned level = level_of_pixel(level_row, taps[k]);
                    colors[k] = palette[level];
                    (k < 2 ? left : right) += level;
                }
                const unsigned first = __byte_perm(colors[0], colors[1], 0x7340);  // Y, Y, keep, keep
                const unsigned second = __byte_perm(colors[2], colors[3], 0x7340);
                const unsigned given = frame[j][i].at[0];
                const unsigned covered = work.cover<by_heat.value>(
                    given, __byte_perm(first, second, 0x5410), __byte_perm(first, second, 0x7632)
                );
                words.at[0] = bytes_where(work.seen_rows.has(top + upper + j) ? seen_bits : 0, covered, given);
                luma.store<whole.value>(top + upper + j, words);
            }
            const unsigned first = palette[left / 4], second = palette[right / 4], given = frame_chroma[i].at[0];
            const unsigned covered = work.cover<by_heat.value>(
                given, __byte_perm(first, second, 0x6521), __byte_perm(first, second, 0x7733)
            );
            const bool both = work.seen_rows.has(top + upper) && work.seen_rows.has(top + upper + 1);
            words.at[0] = bytes_where(both ? chroma_bits : 0, covered, given);
            chroma.store<whole.value>((top + upper) / 2, words);
        }
    });
}

// A grid of (pieces of a row / kTileLanes, height / tile_rows) blocks of (kTileLanes, kTileThreadRows) threads, with
// shared memory of (level_rows + tile_rows) * stride StagedLevels. tile_rows is even, of NV12. `columns` is as long as
// the tiles, and 6 more. The same parameters for each format.
#define OVERLAY_PARAMETERS                                                                                             \
    const float *map, const float *extremes, int map_width, int map_height, int method, float fixed_unit,              \
        float fixed_low, float fixed_low_rest, float fixed_span, float fixed_inverse, const unsigned *palette,         \
        float alpha, float beta, int by_heat, const int *rows, const int *columns, const Place *row_places,            \
        const Place *column_places, int seen_x, int seen_y, int seen_width, int seen_height, int width, int height,    \
        int tile_rows, int level_rows, int stride, int lanes, int alignment, const u8 *frame,                          \
        int frame_pitch, u8 *out, int out_pitch, const u8 *frame_chroma, int frame_chroma_pitch, u8 *out_chroma,       \
        int out_chroma_pitch
#define OVERLAY_WORK                                                                                                   \
    OverlayWork {                                                                                                      \
        map, extremes, map_width, map_height, method,                                                                  \
            Normalizer{fixed_unit, fixed_low, fixed_low_rest, fixed_span, fixed_inverse}, palette, alpha, beta,        \
            by_heat != 0, rows, columns, row_places, column_places, Range{seen_y, seen_height},                        \
            Range{seen_x, seen_width}, width, height, tile_rows, level_rows, stride, lanes, alignment,                 \
            Plane{frame, frame_pitch, out, out_pitch}, Plane {                                                         \
            frame_chroma, frame_chroma_pitch, out_chroma, out_chroma_pitch                                             \
        }                                                                                                              \
    }

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks) overlay_bgr(OVERLAY_PARAMETERS) {
    __shared__ unsigned staged_palette[256];
    overlay_packed<false>(OVERLAY_WORK, dynamic_shared<StagedLevel>(), staged_palette);
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks) overlay_bgra(OVERLAY_PARAMETERS) {
    __shared__ unsigned staged_palette[256];
    overlay_packed<true>(OVERLAY_WORK, dynamic_shared<StagedLevel>(), staged_palette);
}

extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks) overlay_nv12(OVERLAY_PARAMETERS) {
    __shared__ unsigned staged_palette[256];
    overlay_planes(OVERLAY_WORK, dynamic_shared<StagedLevel>(), staged_palette);
}

// The normalised map over the whole frame in float, [height,width]; 0 where the network did not look. As the overlay,
// of one tile a block, with a float a thread and row, and weights in float as cv2.INTER_LINEAR has them.
extern "C" __global__ void __launch_bounds__(kTileThreads, kTileBlocks) heat_map(
    const float *map, const float *extremes, int map_width, int map_height, int method, float fixed_unit,
    float fixed_low, float fixed_low_rest, float fixed_span, float fixed_inverse, const int *rows, const int *columns,
    const float *row_fractions, const float *column_fractions, const Place *row_places, const Place *column_places,
    int seen_x, int seen_y, int seen_width, int seen_height, int width, int height, int tile_rows, int stride,
    int lanes, float *out
) {
    float *heats = dynamic_shared<float>();
    const Range seen_rows{seen_y, seen_height}, seen_columns{seen_x, seen_width};
    const int left = static_cast<int>(blockIdx.x) * kTileLanes, column = left + threadIdx.x;
    const int top = static_cast<int>(blockIdx.y) * tile_rows, end = min(top + tile_rows, height);
    const Range staged_rows = levels_under(top, end - 1, rows, 0);
    const Range staged_columns = levels_under(left, left + kTileLanes - 1, columns, 0);
    const Normalizer fixed{fixed_unit, fixed_low, fixed_low_rest, fixed_span, fixed_inverse};
    const MapView view{map, map_width, map_height, normalizer(extremes, method, fixed)};
    stage_heats(view, staged_rows, staged_columns, row_places, column_places, lanes, stride, heats);
    __syncthreads();
    if (column >= width) return;

    const bool has_column = seen_columns.has(column);
    const float f = column_fractions[column];
    heats += columns[column] - staged_columns.first;
    for (int row = top + threadIdx.y; row < end; row += kTileThreadRows) {
        float heat = 0;
        if (has_column && seen_rows.has(row)) {
            const float *above = heats + (rows[row] - staged_rows.first) * stride, *below = above + stride;
            const float g = row_fractions[row];
            const float first = above[0] * (1 - f) + above[1] * f, second = below[0] * (1 - f) + below[1] * f;
            heat = fminf(first * (1 - g) + second * g, 1.0f);
        }
        out[static_cast<long long>(row) * width + column] = heat;
    }
}
