// Runs the very CUDA source of the project on the CPU: what CUDA C++ adds to C++, for one block at a time.
//
//     g++ -std=c++17 -O2 -shared -fPIC -include host_shim.h -x c++ kernels.cu    (host_library.py has all flags)
//
// Threads of a block are fibers, so that barriers and exchanges within a warp are real: a thread that comes to one
// rests until the others have come. A barrier to which some thread never comes is an error, as is one that two threads
// pass in different lines; so are memory accesses outside of what was allocated (host_allocate puts unmapped pages
// behind it), misaligned ones, signed overflow, and indices past an array's end (gcc's sanitizer traps). Shared memory
// is filled with 0xFF before each block. Blocks and threads run in a fixed order, ascending or descending; results that
// depend on the order have a race.
//
// The C interface, which a host stand-in of libcuda may load as well as the tests' HostDriver:
//
//     const char *host_kernels(void);
//         The names of all kernels, each followed by a newline.
//     const char *host_signature(const char *kernel);
//         One letter a parameter, as Python's struct has them: P pointer, i int, I unsigned, f float, d double,
//         q long long, Q unsigned long long, h short, H unsigned short, b signed char, B unsigned char.
//         NULL: no such kernel.
//     int host_launch(const char *kernel, void **params, unsigned gx, unsigned gy, unsigned gz,
//                     unsigned bx, unsigned by, unsigned bz, unsigned shared_bytes, char *error, unsigned error_size);
//         Runs a whole grid; params are as of cuLaunchKernel: one pointer a parameter, to its value. Returns 0, or
//         another number with a line in `error`. From several threads, one runs at a time.
//     void *host_allocate(unsigned long long nbytes, unsigned alignment);
//         Memory filled with 0xFF, ending as close to an unmapped page as the alignment (a power of two) allows.
//         NULL: there is none.
//     int host_free(void *memory);
//         Unmaps it for good; its addresses are not used again. Returns 0, or 1 where something was written between
//         it and the unmapped pages around it, or -1 where it was not allocated here.
//     void host_order(int descending);
//         The order of blocks and threads from now on; 0 at first.

#pragma once

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#define GAPCAM_HOST 1

// ---------------------------------------------------------------------------------------------------------------------
// The language

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__

#define HOST_VECTOR(type, name, alignment)                                                        \
    struct __attribute__((aligned(2 * alignment))) name##2 { type x, y; };                        \
    struct name##3 { type x, y, z; };                                                             \
    struct __attribute__((aligned(4 * alignment))) name##4 { type x, y, z, w; };                  \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                              \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                   \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
HOST_VECTOR(unsigned char, uchar, 1)
HOST_VECTOR(short, short, 2)
HOST_VECTOR(unsigned short, ushort, 2)
HOST_VECTOR(int, int, 4)
HOST_VECTOR(unsigned, uint, 4)
HOST_VECTOR(float, float, 4)
#undef HOST_VECTOR
using dim3 = uint3;

namespace host {

// What a kernel sees of itself. In a section of its own: .bss holds the kernels' shared memory, which is poisoned.
#define HOST_STATE __attribute__((section("host_state")))
inline constexpr unsigned kMostSharedBytes = 48 * 1024;

struct State;
extern State *state;

[[noreturn]] void fail(const char *format, ...);
void barrier(int line);
int barrier_count(int predicate, int line);
void *dynamic_shared();

// What the lanes of a warp brought to one exchange.
struct Exchange {
    std::uint64_t values[32];
    unsigned lanes;
};
const Exchange &exchange(unsigned mask, std::uint64_t value, int line);
unsigned lane();

}  // namespace host

HOST_STATE static uint3 threadIdx = {1, 0, 0};
HOST_STATE static uint3 blockIdx = {1, 0, 0};
HOST_STATE static dim3 blockDim = {1, 0, 0};
HOST_STATE static dim3 gridDim = {1, 0, 0};
static const int warpSize __attribute__((unused)) = 32;

// ---------------------------------------------------------------------------------------------------------------------
// Barriers, and exchanges within a warp

#define __syncthreads() host::barrier(__LINE__)
#define __syncthreads_or(value) host::barrier_count(!!(value), __LINE__) != 0
#define __syncthreads_and(value) (host::barrier_count(!(value), __LINE__) == 0)
#define __syncthreads_count(value) host::barrier_count(!!(value), __LINE__)
#define __syncwarp(...) host::sync_warp(__LINE__, ##__VA_ARGS__)
#define __shfl_sync(mask, value, source, ...) host::shuffle<0>(mask, value, source, __LINE__, ##__VA_ARGS__)
#define __shfl_up_sync(mask, value, delta, ...) host::shuffle<1>(mask, value, delta, __LINE__, ##__VA_ARGS__)
#define __shfl_down_sync(mask, value, delta, ...) host::shuffle<2>(mask, value, delta, __LINE__, ##__VA_ARGS__)
#define __shfl_xor_sync(mask, value, lanes, ...) host::shuffle<3>(mask, value, lanes, __LINE__, ##__VA_ARGS__)
#define __ballot_sync(mask, predicate) host::ballot(mask, predicate, __LINE__)
#define __any_sync(mask, predicate) (host::ballot(mask, predicate, __LINE__) != 0)
#define __all_sync(mask, predicate) (host::ballot(mask, !(predicate), __LINE__) == 0)

namespace host {

static void sync_warp(int line, unsigned mask = 0xFFFFFFFFu) { exchange(mask, 0, line); }

template <int kKind, class T>
T shuffle(unsigned mask, T value, int argument, int line, int width = 32) {
    static_assert(sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
    const int self = static_cast<int>(lane()), first = self & ~(width - 1);
    int source = self;
    if (kKind == 0) source = first + (argument & (width - 1));
    if (kKind == 1) source = self - argument >= first ? self - argument : self;
    if (kKind == 2) source = self + argument < first + width ? self + argument : self;
    if (kKind == 3) source = (self ^ argument) < first + width ? self ^ argument : self;
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    const Exchange &exchanged = exchange(mask, bits, line);
    // Who reads from a lane that is not there gets NaN.
    bits = exchanged.lanes >> source & 1 ? exchanged.values[source] : ~std::uint64_t{0};
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

inline unsigned ballot(unsigned mask, int predicate, int line) {
    const Exchange &exchanged = exchange(mask, predicate != 0, line);
    unsigned votes = 0;
    for (unsigned source = 0; source < 32; ++source)
        if (exchanged.lanes >> source & 1 && exchanged.values[source]) votes |= 1u << source;
    return votes;
}

}  // namespace host

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// ---------------------------------------------------------------------------------------------------------------------
// Atomics: blocks run one after the other, and threads change only at barriers

template <class T>
T atomicAdd(T *at, std::common_type_t<T> value) {
    const T old = *at;
    *at = static_cast<T>(old + value);
    return old;
}
template <class T>
T atomicMax(T *at, std::common_type_t<T> value) {
    const T old = *at;
    *at = std::max(old, value);
    return old;
}
template <class T>
T atomicMin(T *at, std::common_type_t<T> value) {
    const T old = *at;
    *at = std::min(old, value);
    return old;
}
template <class T>
T atomicExch(T *at, std::common_type_t<T> value) {
    const T old = *at;
    *at = value;
    return old;
}
template <class T>
T atomicOr(T *at, std::common_type_t<T> value) {
    const T old = *at;
    *at = old | value;
    return old;
}
template <class T>
T atomicAnd(T *at, std::common_type_t<T> value) {
    const T old = *at;
    *at = old & value;
    return old;
}
template <class T>
T atomicCAS(T *at, std::common_type_t<T> expected, std::common_type_t<T> value) {
    const T old = *at;
    if (old == expected) *at = value;
    return old;
}
inline unsigned atomicInc(unsigned *at, unsigned limit) {
    const unsigned old = *at;
    *at = old >= limit ? 0 : old + 1;
    return old;
}

// ---------------------------------------------------------------------------------------------------------------------
// Arithmetic. The library is compiled without contraction, so only what says fma is one.

#define HOST_MIN_MAX(type)                                    \
    inline type min(type a, type b) { return b < a ? b : a; } \
    inline type max(type a, type b) { return a < b ? b : a; }
HOST_MIN_MAX(int)
HOST_MIN_MAX(unsigned)
HOST_MIN_MAX(long)
HOST_MIN_MAX(unsigned long)
HOST_MIN_MAX(long long)
HOST_MIN_MAX(unsigned long long)
#undef HOST_MIN_MAX
inline unsigned min(int a, unsigned b) { return min(static_cast<unsigned>(a), b); }
inline unsigned min(unsigned a, int b) { return min(a, static_cast<unsigned>(b)); }
inline unsigned max(int a, unsigned b) { return max(static_cast<unsigned>(a), b); }
inline unsigned max(unsigned a, int b) { return max(a, static_cast<unsigned>(b)); }
inline float min(float a, float b) { return fminf(a, b); }  // of a number and NaN: the number
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
using std::isfinite;
using std::isinf;
using std::isnan;

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1 / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float a) { return expf(a); }
inline float __logf(float a) { return logf(a); }
inline float rsqrtf(float a) { return 1 / sqrtf(a); }
inline float __saturatef(float a) { return isnan(a) ? 0.0f : fminf(fmaxf(a, 0.0f), 1.0f); }

namespace host {

// A GPU's conversions saturate, and NaN becomes 0.
template <class T>
T saturated(double whole) {
    if (std::isnan(whole)) return 0;
    return static_cast<T>(std::min<double>(
        std::max<double>(whole, std::numeric_limits<T>::min()), std::numeric_limits<T>::max()
    ));
}

}  // namespace host

inline int __float2int_rn(float a) { return host::saturated<int>(std::nearbyint(a)); }
inline int __float2int_rd(float a) { return host::saturated<int>(std::floor(a)); }
inline int __float2int_ru(float a) { return host::saturated<int>(std::ceil(a)); }
inline int __float2int_rz(float a) { return host::saturated<int>(std::trunc(a)); }
inline unsigned __float2uint_rn(float a) { return host::saturated<unsigned>(std::nearbyint(a)); }
inline unsigned __float2uint_rd(float a) { return host::saturated<unsigned>(std::floor(a)); }
inline unsigned __float2uint_ru(float a) { return host::saturated<unsigned>(std::ceil(a)); }
inline unsigned __float2uint_rz(float a) { return host::saturated<unsigned>(std::trunc(a)); }
inline int __double2int_rn(double a) { return host::saturated<int>(std::nearbyint(a)); }
inline int __double2int_rd(double a) { return host::saturated<int>(std::floor(a)); }
inline int __double2int_rz(double a) { return host::saturated<int>(std::trunc(a)); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }

namespace host {

template <class To, class From>
To same_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To bits;
    std::memcpy(&bits, &value, sizeof(To));
    return bits;
}

}  // namespace host

inline int __float_as_int(float a) { return host::same_bits<int>(a); }
inline unsigned __float_as_uint(float a) { return host::same_bits<unsigned>(a); }
inline float __int_as_float(int a) { return host::same_bits<float>(a); }
inline float __uint_as_float(unsigned a) { return host::same_bits<float>(a); }
inline long long __double_as_longlong(double a) { return host::same_bits<long long>(a); }
inline double __longlong_as_double(long long a) { return host::same_bits<double>(a); }

template <class T>
T __ldg(const T *at) {
    return *at;
}
inline int __clz(int a) { return a == 0 ? 32 : __builtin_clz(static_cast<unsigned>(a)); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(std::uint64_t{a} * b >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>(std::int64_t{a} * b >> 32); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned nibble = selector >> 4 * i & 0xF;
        unsigned byte = static_cast<unsigned>(bytes >> 8 * (nibble & 7)) & 0xFF;
        if (nibble & 8) byte = byte & 0x80 ? 0xFF : 0;  // its sign, repeated
        result |= byte << 8 * i;
    }
    return result;
}

// IEEE 754 half precision, round to nearest even, as cvt.f32.f16 and cvt.rn.f16.f32.
inline float host_float_from_half(unsigned short bits) {
    const int exponent = bits >> 10 & 0x1F, fraction = bits & 0x3FF;
    float value;
    if (exponent == 0)
        value = std::ldexp(static_cast<float>(fraction), -24);
    else if (exponent == 31)
        value = fraction ? NAN : INFINITY;
    else
        value = std::ldexp(static_cast<float>(fraction | 0x400), exponent - 25);
    return bits & 0x8000 ? -value : value;
}
inline unsigned short host_half_from_float(float value) {
    const unsigned sign = host::same_bits<unsigned>(value) >> 16 & 0x8000;
    if (std::isnan(value)) return 0x7FFF;
    const double size = std::fabs(static_cast<double>(value));
    if (size >= 65520) return static_cast<unsigned short>(sign | 0x7C00);
    // Units in the last place: 2^-24 below 2^-14, and 2^(exponent - 10) from there.
    const int exponent = size < std::ldexp(1.0, -14) ? -14 : std::ilogb(size);
    const auto units = static_cast<unsigned>(std::nearbyint(std::ldexp(size, 10 - exponent)));
    // The leading bit of a normal number's units, and a fraction that rounds up to 2^11, carry into the exponent.
    return static_cast<unsigned short>(sign | ((static_cast<unsigned>(exponent + 14) << 10) + units));
}

// ---------------------------------------------------------------------------------------------------------------------
// The scheduler

extern "C" char __bss_start[] __attribute__((visibility("hidden")));
extern "C" char _end[] __attribute__((visibility("hidden")));

namespace host {

inline constexpr std::size_t kStackBytes = 64 * 1024;

struct Fiber {
    char *stack = nullptr;
    ucontext_t context;
    jmp_buf jump;
    bool entered = false;
    unsigned thread = 0;
};

struct Warp {
    Exchange exchanges[2];  // a lane may be at the next while another still reads the last
    unsigned arrived = 0, mask = 0, generation = 0;
    int line = 0;
    std::vector<Fiber *> waiting;
};

struct State {
    // of a launch
    const char *kernel = "";
    void (*invoke)(void **) = nullptr;
    void **params = nullptr;
    unsigned threads = 0;
    bool descending = false;
    std::vector<std::uint64_t> shared;
    unsigned shared_bytes = 0;
    // of a block
    std::vector<Fiber *> fibers, idle, ready, waiting;
    std::vector<Warp> warps;
    Fiber *running = nullptr;
    unsigned started = 0, finished = 0;
    int barrier_line = 0;
    int predicates[2] = {0, 0};
    unsigned generation = 0;
    // ways out
    jmp_buf scheduler;
    sigjmp_buf recover;
    char message[512];
    std::thread::id launcher;
    struct sigaction before[4];
    bool in_kernel = false;
};

HOST_STATE State *state = new State;

inline void yield() {
    Fiber *self = state->running;
    if (_setjmp(self->jump) == 0) _longjmp(state->scheduler, 1);
}

// Of a thread in the kernel, until the scheduler resumes it.
inline void rest() {
    state->in_kernel = false;
    yield();
    state->in_kernel = true;
}

[[noreturn]] inline void fail(const char *format, ...) {
    char what[320];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    std::snprintf(
        state->message, sizeof state->message, "%s: thread (%u, %u, %u) of block (%u, %u, %u): %s", state->kernel,
        threadIdx.x, threadIdx.y, threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z, what
    );
    siglongjmp(state->recover, 1);
}

inline void select_thread(unsigned thread) {
    threadIdx.x = thread % blockDim.x;
    threadIdx.y = thread / blockDim.x % blockDim.y;
    threadIdx.z = thread / blockDim.x / blockDim.y;
}

inline unsigned linear_thread() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

inline unsigned lane() { return linear_thread() % 32; }

inline void *dynamic_shared() { return state->shared.data(); }

// A fiber runs threads of the block one after the other; when one waits, the next is another fiber's.
inline void fiber_main() {
    for (;;) {
        Fiber *self = state->running;
        while (state->started < state->threads) {
            const unsigned index = state->started++;
            self->thread = state->descending ? state->threads - 1 - index : index;
            select_thread(self->thread);
            state->in_kernel = true;
            state->invoke(state->params);
            state->in_kernel = false;
            ++state->finished;
        }
        state->idle.push_back(self);
        yield();
    }
}

inline void resume(Fiber *fiber) {
    state->running = fiber;
    select_thread(fiber->thread);
    if (_setjmp(state->scheduler) == 0) {
        if (fiber->entered) _longjmp(fiber->jump, 1);
        fiber->entered = true;
        setcontext(&fiber->context);
    }
}

inline void barrier(int line) {
    State &s = *state;
    if (s.waiting.empty()) s.barrier_line = line;
    if (s.barrier_line != line) fail("it is at the barrier of line %d, another one at that of line %d", line, s.barrier_line);
    s.waiting.push_back(s.running);
    if (s.waiting.size() == s.threads) {
        ++s.generation;
        s.ready.insert(s.ready.end(), s.waiting.begin(), s.waiting.end());
        s.waiting.clear();
    }
    rest();
}

inline int barrier_count(int predicate, int line) {
    State &s = *state;
    const unsigned slot = s.generation & 1;
    if (s.waiting.empty()) s.predicates[slot] = 0;
    s.predicates[slot] += predicate;
    barrier(line);
    return s.predicates[slot];
}

inline const Exchange &exchange(unsigned mask, std::uint64_t value, int line) {
    State &s = *state;
    const unsigned thread = linear_thread(), self = thread % 32, first = thread - self;
    const unsigned existing = s.threads - first >= 32 ? 0xFFFFFFFFu : (1u << (s.threads - first)) - 1;
    Warp &warp = s.warps[thread / 32];
    if (!(mask >> self & 1)) fail("line %d: its lane %u is not in the mask %08x", line, self, mask);
    if (warp.arrived == 0) warp.line = line, warp.mask = mask;
    if (warp.line != line || warp.mask != mask)
        fail("it exchanges in line %d (mask %08x), its warp in line %d (%08x)", line, mask, warp.line, warp.mask);
    Exchange &here = warp.exchanges[warp.generation & 1];
    here.values[self] = value;
    warp.arrived |= 1u << self;
    if (warp.arrived == (mask & existing)) {
        here.lanes = warp.arrived;
        warp.arrived = 0;
        ++warp.generation;
        s.ready.insert(s.ready.end(), warp.waiting.begin(), warp.waiting.end());
        warp.waiting.clear();
    } else {
        warp.waiting.push_back(s.running);
        rest();
    }
    return here;
}

inline void run_block() {
    State &s = *state;
    s.started = s.finished = 0;
    for (Warp &warp : s.warps) warp = Warp{};
    std::memset(__bss_start, 0xFF, static_cast<std::size_t>(_end - __bss_start));
    std::fill(s.shared.begin(), s.shared.end(), ~std::uint64_t{0});
    std::vector<Fiber *> turn;
    while (s.finished < s.threads) {
        if (s.started < s.threads) {
            if (s.idle.empty()) {
                auto *fiber = new Fiber;
                void *stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                if (stack == MAP_FAILED) fail("no memory for its stack");
                fiber->stack = static_cast<char *>(stack);
                mprotect(stack, 4096, PROT_NONE);
                s.fibers.push_back(fiber);
                s.idle.push_back(fiber);
            }
            Fiber *fiber = s.idle.back();
            s.idle.pop_back();
            if (!fiber->entered) {
                getcontext(&fiber->context);
                fiber->context.uc_stack.ss_sp = fiber->stack;
                fiber->context.uc_stack.ss_size = kStackBytes;
                fiber->context.uc_link = nullptr;
                makecontext(&fiber->context, fiber_main, 0);
            }
            resume(fiber);
        } else if (!s.ready.empty()) {
            turn.swap(s.ready);
            for (Fiber *fiber : turn) resume(fiber);
            turn.clear();
        } else if (!s.waiting.empty()) {
            fail(
                "the barrier of line %d was reached by %zu of %u threads", s.barrier_line, s.waiting.size(), s.threads
            );
        } else {
            for (const Warp &warp : s.warps)
                if (!warp.waiting.empty())
                    fail("line %d: of mask %08x only the lanes %08x came to exchange", warp.line, warp.mask, warp.arrived);
            fail("its block cannot go on");
        }
    }
}

inline void on_signal(int signal, siginfo_t *info, void *context) {
    if (!state->in_kernel || std::this_thread::get_id() != state->launcher) {
        // Not the kernel's: whoever was there before handles it when the instruction runs again.
        const int index = signal == SIGSEGV ? 0 : signal == SIGBUS ? 1 : signal == SIGILL ? 2 : 3;
        sigaction(signal, &state->before[index], nullptr);
        return;
    }
    std::uintptr_t at = 0;
#if defined(__x86_64__)
    at = static_cast<std::uintptr_t>(static_cast<ucontext_t *>(context)->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
    at = static_cast<std::uintptr_t>(static_cast<ucontext_t *>(context)->uc_mcontext.pc);
#else
    (void)context;
#endif
    extern char __executable_or_library[] __asm__("__ehdr_start") __attribute__((visibility("hidden")));
    const auto offset = static_cast<unsigned long long>(at - reinterpret_cast<std::uintptr_t>(__executable_or_library));
    if (signal == SIGSEGV || signal == SIGBUS)
        fail("access to %p, which is not allocated, at +0x%llx", info->si_addr, offset);
    fail("undefined: a misaligned access, an index past an array, or an overflow, at +0x%llx", offset);
}

template <class T>
constexpr char letter() {
    if (std::is_pointer_v<T>) return 'P';
    if (std::is_same_v<T, int>) return 'i';
    if (std::is_same_v<T, unsigned>) return 'I';
    if (std::is_same_v<T, float>) return 'f';
    if (std::is_same_v<T, double>) return 'd';
    if (std::is_same_v<T, long long>) return 'q';
    if (std::is_same_v<T, unsigned long long>) return 'Q';
    if (std::is_same_v<T, short>) return 'h';
    if (std::is_same_v<T, unsigned short>) return 'H';
    if (std::is_same_v<T, signed char>) return 'b';
    if (std::is_same_v<T, unsigned char>) return 'B';
    return '?';
}

template <auto kFunction>
struct Kernel;

template <class... A, void (*kFunction)(A...)>
struct Kernel<kFunction> {
    static constexpr char signature[] = {letter<std::remove_cv_t<A>>()..., '\0'};
    template <std::size_t... kIndex>
    static void call(void **params, std::index_sequence<kIndex...>) {
        kFunction(*static_cast<std::remove_cv_t<A> *>(params[kIndex])...);
    }
    static void invoke(void **params) { call(params, std::index_sequence_for<A...>{}); }
};

struct Entry {
    const char *name, *signature;
    void (*invoke)(void **);
};

// host_library.py writes it, with a HOST_KERNEL(name) for each __global__ function of the source.
extern const Entry entries[];

#define HOST_KERNEL(name) {#name, host::Kernel<name>::signature, host::Kernel<name>::invoke},

inline const Entry *find(const char *name) {
    for (const Entry *entry = entries; entry->name; ++entry)
        if (std::strcmp(entry->name, name) == 0) return entry;
    return nullptr;
}

inline constexpr std::size_t kGuard = 1 << 20;  // unmapped bytes on either side of an allocation

struct Allocation {
    char *start;  // of the mapping
    std::size_t mapped, before, bytes, after;  // before and after: what may not be written, though it is mapped
};

struct Heap {
    std::mutex mutex;
    std::map<void *, Allocation> live;
};

HOST_STATE static Heap *heap = new Heap;
HOST_STATE static std::mutex *launches = new std::mutex;
HOST_STATE static int descending = 0;

}  // namespace host

extern "C" {

const char *host_signature(const char *kernel) {
    const host::Entry *entry = host::find(kernel);
    return entry ? entry->signature : nullptr;
}

const char *host_kernels(void) {
    HOST_STATE static char names[16384] = "";
    if (!names[0])
        for (const host::Entry *entry = host::entries; entry->name; ++entry) {
            std::strncat(names, entry->name, sizeof names - std::strlen(names) - 2);
            std::strcat(names, "\n");
        }
    return names;
}

void host_order(int descending) { host::descending = descending; }

int host_launch(
    const char *kernel, void **params, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared_bytes, char *error, unsigned error_size
) {
    const host::Entry *entry = host::find(kernel);
    if (!entry) {
        std::snprintf(error, error_size, "there is no kernel %s", kernel);
        return 2;
    }
    const std::uint64_t threads = std::uint64_t{bx} * by * bz;
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || gx > 0x7FFFFFFF || !threads || threads > 1024 || bz > 64) {
        std::snprintf(
            error, error_size, "%s: a grid of (%u, %u, %u) blocks of (%u, %u, %u) threads cannot be launched", kernel, gx,
            gy, gz, bx, by, bz
        );
        return 3;
    }
    if (shared_bytes > host::kMostSharedBytes) {
        std::snprintf(error, error_size, "%s: %u bytes of dynamic shared memory are too many", kernel, shared_bytes);
        return 3;
    }
    const std::lock_guard<std::mutex> lock(*host::launches);
    host::State &s = *host::state;
    s.kernel = entry->name;
    s.invoke = entry->invoke;
    s.params = params;
    s.threads = static_cast<unsigned>(threads);
    s.descending = host::descending != 0;
    s.shared.assign((shared_bytes + 7) / 8, 0);
    s.warps.assign((threads + 31) / 32, host::Warp{});
    s.launcher = std::this_thread::get_id();
    blockDim = {bx, by, bz};
    gridDim = {gx, gy, gz};
    blockIdx = threadIdx = {0, 0, 0};

    // A fault is handled on a stack of its own: the fiber's may be what overflowed.
    constexpr std::size_t signal_stack_bytes = 64 * 1024;
    std::vector<char> signal_stack(signal_stack_bytes);
    stack_t stack_now{}, stack_before{};
    stack_now.ss_sp = signal_stack.data();
    stack_now.ss_size = signal_stack_bytes;
    sigaltstack(&stack_now, &stack_before);
    struct sigaction action {};
    action.sa_sigaction = host::on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    const int signals[4] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    for (int i = 0; i < 4; ++i) sigaction(signals[i], &action, &s.before[i]);

    int result = 0;
    if (sigsetjmp(s.recover, 1) == 0) {
        const std::uint64_t blocks = std::uint64_t{gx} * gy * gz;
        for (std::uint64_t i = 0; i < blocks; ++i) {
            const std::uint64_t block = s.descending ? blocks - 1 - i : i;
            blockIdx.x = static_cast<unsigned>(block % gx);
            blockIdx.y = static_cast<unsigned>(block / gx % gy);
            blockIdx.z = static_cast<unsigned>(block / gx / gy);
            host::run_block();
        }
    } else {
        result = 1;
        std::snprintf(error, error_size, "%s", s.message);
        // Its fibers rest in the middle of the kernel; let them begin anew.
        s.in_kernel = false;
        s.ready.clear();
        s.waiting.clear();
        s.idle = s.fibers;
        for (host::Fiber *fiber : s.fibers) fiber->entered = false;
    }
    for (int i = 0; i < 4; ++i) sigaction(signals[i], &s.before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
    return result;
}

void *host_allocate(unsigned long long nbytes, unsigned alignment) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t bytes = nbytes ? nbytes : 1, rounded = (bytes + alignment - 1) / alignment * alignment;
    const std::size_t usable = (rounded + page - 1) / page * page;
    void *mapped = mmap(nullptr, usable + 2 * host::kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    char *start = static_cast<char *>(mapped);
    if (mprotect(start + host::kGuard, usable, PROT_READ | PROT_WRITE) != 0) {
        munmap(mapped, usable + 2 * host::kGuard);
        return nullptr;
    }
    char *memory = start + host::kGuard + usable - rounded;
    std::memset(memory, 0xFF, rounded);
    host::Heap &heap = *host::heap;
    const std::lock_guard<std::mutex> lock(heap.mutex);
    heap.live[memory] = {start, usable + 2 * host::kGuard, usable - rounded, bytes, rounded - bytes};
    return memory;
}

int host_free(void *memory) {
    host::Heap &heap = *host::heap;
    const std::lock_guard<std::mutex> lock(heap.mutex);
    const auto found = heap.live.find(memory);
    if (found == heap.live.end()) return -1;
    const host::Allocation allocation = found->second;
    heap.live.erase(found);
    int spoiled = 0;
    const auto *content = static_cast<unsigned char *>(memory);
    for (std::size_t i = 0; i < allocation.after; ++i) spoiled |= content[allocation.bytes + i] != 0xFF;
    for (std::size_t i = 1; i <= allocation.before; ++i) spoiled |= *(content - i) != 0;
    // Mapped anew without rights: the memory goes back, the addresses stay taken.
    mmap(allocation.start, allocation.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return spoiled;
}

}  // extern "C"
