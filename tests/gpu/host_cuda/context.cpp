// The device and its contexts: initialisation, attributes, the stack of contexts that each thread has.
#include "host_cuda.hpp"

#include <cstdlib>
#include <cstring>

namespace host_cuda {

std::recursive_mutex lock;
bool initialized = false;

namespace {

uint64_t last_handle = 0x10000;
Handles<Context, CUcontext> contexts;
struct Primary {
    std::shared_ptr<Context> context;
    int uses = 0;
};

std::map<CUdevice, Primary> primaries;
thread_local std::vector<CUcontext> stack;

int device_count() { return environment_number("GAPCAM_HOST_CUDA_DEVICES", 1); }

std::shared_ptr<Context> make_context(bool is_primary, CUdevice device, unsigned flags) {
    auto context = std::make_shared<Context>();
    context->primary = is_primary;
    context->device = device;
    context->flags = flags;
    context->handle = contexts.add(context);
    return context;
}

void destroy(const std::shared_ptr<Context>& context) {
    close_streams(context);
    forget_modules_of(context);
    free_memory_of(context);
    contexts.take(context->handle);
}

}  // namespace

uint64_t new_handle() { return last_handle += 0x10; }

int environment_number(const char* name, int otherwise) {
    const char* text = std::getenv(name);
    return text && *text ? std::atoi(text) : otherwise;
}

std::shared_ptr<Context> current_context() {
    require(!stack.empty() && stack.back(), CUDA_ERROR_INVALID_CONTEXT);
    auto context = contexts.get(stack.back(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    require(context->broken == CUDA_SUCCESS, context->broken);
    return context;
}

void require_device(CUdevice device) { require(device >= 0 && device < device_count(), CUDA_ERROR_INVALID_DEVICE); }

int device_attribute(CUdevice_attribute attribute) {
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return 8;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return 0;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: return 1024;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: return 1024;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: return 64;
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return 0x7fffffff;
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
        case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return 65535;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return 49152;
        case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 1;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 2048;
        case CU_DEVICE_ATTRIBUTE_MAX_PITCH: return 0x7fffffff;
        case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
        case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: return 1000000;
        case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: return 64;
        case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
        case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
        case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
        case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
        case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
        case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: return 1;
        default: return 0;
    }
}

}  // namespace host_cuda

using namespace host_cuda;

extern "C" {

CUresult cuInit(unsigned flags) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (flags) return CUDA_ERROR_INVALID_VALUE;
    auto result = static_cast<CUresult>(environment_number("GAPCAM_HOST_CUDA_INIT", 0));
    initialized = result == CUDA_SUCCESS;
    return result;
}

CUresult cuDriverGetVersion(int* version) {
    if (!version) return CUDA_ERROR_INVALID_VALUE;
    *version = environment_number("GAPCAM_HOST_CUDA_DRIVER", 13000);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
    return call([&] { *count = device_count(); });
}

CUresult cuDeviceGet(CUdevice* device, int number) {
    return call([&] {
        require_device(number);
        *device = number;
    });
}

CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
    return call([&] {
        require_device(device);
        require(length > 0);
        std::strncpy(name, "host CPU behind a libcuda for tests (not a GPU)", length);
        name[length - 1] = 0;
    });
}

CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
    return call([&] {
        require_device(device);
        std::memcpy(uuid->bytes, "gapcam host cuda", 16);
    });
}

CUresult cuDeviceGetPCIBusId(char* id, int length, CUdevice device) {
    return call([&] {
        require_device(device);
        require(length >= 13);
        std::strcpy(id, "0000:00:00.0");
    });
}

CUresult cuDeviceTotalMem(size_t* bytes, CUdevice device) {
    return call([&] {
        require_device(device);
        *bytes = environment_number("GAPCAM_HOST_CUDA_MEMORY", 1 << 30);
    });
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
    return call([&] {
        require_device(device);
        *value = device_attribute(attribute);
    });
}

CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
    return call([&] {
        require_device(device);
        *major = device_attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
        *minor = device_attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    });
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    return call([&] {
        require_device(device);
        auto& primary = primaries[device];
        if (!primary.context) primary.context = make_context(true, device, 0);
        primary.uses++;
        *context = primary.context->handle;
    });
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    return call([&] {
        require_device(device);
        auto& primary = primaries[device];
        require(primary.uses > 0, CUDA_ERROR_INVALID_CONTEXT);
        if (--primary.uses == 0) {
            destroy(primary.context);
            primary.context = nullptr;
        }
    });
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
    return call([&] {
        require_device(device);
        *flags = 0;
        *active = primaries[device].context != nullptr;
    });
}

CUresult cuCtxCreate(CUcontext* context, CUctxCreateParams* parameters, unsigned flags, CUdevice device) {
    return call([&] {
        require_device(device);
        require(!parameters, CUDA_ERROR_NOT_SUPPORTED);
        *context = make_context(false, device, flags)->handle;
        stack.push_back(*context);
    });
}

CUresult cuCtxDestroy(CUcontext handle) {
    return call([&] {
        auto context = contexts.get(handle, CUDA_ERROR_INVALID_CONTEXT);
        require(!context->primary, CUDA_ERROR_INVALID_CONTEXT);
        destroy(context);
        if (!stack.empty() && stack.back() == handle) stack.pop_back();
    });
}

// What PyCUDA calls instead of cuCtxDestroy: of a context that was attached once.
CUresult cuCtxDetach(CUcontext handle) { return cuCtxDestroy(handle); }

CUresult cuCtxPushCurrent(CUcontext handle) {
    return call([&] {
        contexts.get(handle, CUDA_ERROR_INVALID_CONTEXT);
        stack.push_back(handle);
    });
}

CUresult cuCtxPopCurrent(CUcontext* handle) {
    return call([&] {
        require(!stack.empty(), CUDA_ERROR_INVALID_CONTEXT);
        if (handle) *handle = stack.back();
        stack.pop_back();
    });
}

CUresult cuCtxSetCurrent(CUcontext handle) {
    return call([&] {
        if (handle) contexts.get(handle, CUDA_ERROR_INVALID_CONTEXT);
        if (!stack.empty()) stack.pop_back();
        if (handle) stack.push_back(handle);
    });
}

CUresult cuCtxGetCurrent(CUcontext* handle) {
    return call([&] { *handle = stack.empty() ? nullptr : stack.back(); });
}

CUresult cuCtxGetDevice(CUdevice* device) {
    return call([&] { *device = current_context()->device; });
}

CUresult cuCtxGetId(CUcontext handle, unsigned long long* id) {
    return call([&] {
        auto context = handle ? contexts.get(handle, CUDA_ERROR_CONTEXT_IS_DESTROYED) : current_context();
        *id = reinterpret_cast<uintptr_t>(context->handle);
    });
}

CUresult cuCtxGetFlags(unsigned* flags) {
    return call([&] { *flags = current_context()->flags; });
}

CUresult cuCtxGetApiVersion(CUcontext handle, unsigned* version) {
    return call([&] {
        contexts.get(handle, CUDA_ERROR_INVALID_CONTEXT);
        *version = 3020;
    });
}

CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    return call([&] {
        current_context();
        if (least) *least = 0;
        if (greatest) *greatest = 0;
    });
}

CUresult cuCtxSynchronize(void) {
    return call([&] {
        auto context = current_context();
        refuse_in_capture();
        run_all(context);
        require(context->broken == CUDA_SUCCESS, context->broken);
    });
}

}  // extern "C"
