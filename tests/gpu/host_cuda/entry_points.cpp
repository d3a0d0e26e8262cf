// How callers find the entry points: cuda.bindings asks cuGetProcAddress for each by name, without its version.
#include "host_cuda.hpp"

#include <cstring>

namespace {

const std::map<std::string, void*>& entry_points() {
#define ENTRY(name) {#name, reinterpret_cast<void*>(&name)},
    // The preprocessor puts cuda.h's versions of the functions here (cuMemAlloc_v2 for cuMemAlloc); # does not.
    static const std::map<std::string, void*> found{
    ENTRY(cuCtxCreate) ENTRY(cuCtxDestroy) ENTRY(cuCtxGetApiVersion) ENTRY(cuCtxGetCurrent)
    ENTRY(cuCtxGetDevice) ENTRY(cuCtxGetFlags) ENTRY(cuCtxGetId) ENTRY(cuCtxGetStreamPriorityRange)
    ENTRY(cuCtxPopCurrent) ENTRY(cuCtxPushCurrent) ENTRY(cuCtxSetCurrent) ENTRY(cuCtxSynchronize)
    ENTRY(cuDeviceGet) ENTRY(cuDeviceGetAttribute) ENTRY(cuDeviceGetCount)
    ENTRY(cuDeviceGetDefaultMemPool) ENTRY(cuDeviceGetMemPool) ENTRY(cuDeviceGetName) ENTRY(cuDeviceGetPCIBusId)
    ENTRY(cuDeviceGetUuid) ENTRY(cuDevicePrimaryCtxGetState) ENTRY(cuDevicePrimaryCtxRelease)
    ENTRY(cuDevicePrimaryCtxRetain) ENTRY(cuDeviceTotalMem) ENTRY(cuDriverGetVersion) ENTRY(cuEventCreate)
    ENTRY(cuEventDestroy) ENTRY(cuEventElapsedTime) ENTRY(cuEventQuery) ENTRY(cuEventRecord)
    ENTRY(cuEventRecordWithFlags) ENTRY(cuEventSynchronize) ENTRY(cuFuncGetAttribute) ENTRY(cuFuncGetParamInfo)
    ENTRY(cuGraphCreate) ENTRY(cuGraphDestroy) ENTRY(cuGraphExecDestroy) ENTRY(cuGraphGetNodes)
    ENTRY(cuGraphInstantiateWithFlags) ENTRY(cuGraphInstantiateWithParams) ENTRY(cuGraphLaunch)
    ENTRY(cuGraphReleaseUserObject) ENTRY(cuGraphRetainUserObject) ENTRY(cuGraphUpload) ENTRY(cuInit)
    ENTRY(cuKernelGetAttribute) ENTRY(cuKernelGetFunction) ENTRY(cuKernelGetLibrary) ENTRY(cuKernelGetName)
    ENTRY(cuKernelGetParamInfo) ENTRY(cuLaunchKernel) ENTRY(cuLaunchKernelEx) ENTRY(cuLibraryGetKernel)
    ENTRY(cuLibraryGetKernelCount) ENTRY(cuLibraryGetModule) ENTRY(cuLibraryLoadData) ENTRY(cuLibraryUnload)
    ENTRY(cuMemAlloc) ENTRY(cuMemAllocAsync) ENTRY(cuMemAllocFromPoolAsync) ENTRY(cuMemAllocHost)
    ENTRY(cuMemAllocPitch) ENTRY(cuMemFree) ENTRY(cuMemFreeAsync) ENTRY(cuMemFreeHost) ENTRY(cuMemGetAddressRange)
    ENTRY(cuMemGetInfo) ENTRY(cuMemHostAlloc) ENTRY(cuMemHostGetDevicePointer) ENTRY(cuMemHostGetFlags)
    ENTRY(cuMemHostRegister) ENTRY(cuMemHostUnregister) ENTRY(cuMemPoolCreate) ENTRY(cuMemPoolDestroy)
    ENTRY(cuMemPoolGetAttribute) ENTRY(cuMemPoolSetAccess) ENTRY(cuMemPoolSetAttribute) ENTRY(cuMemPoolTrimTo)
    ENTRY(cuMemcpy2D) ENTRY(cuMemcpy2DAsync) ENTRY(cuMemcpy2DUnaligned) ENTRY(cuMemcpyAsync) ENTRY(cuMemcpyDtoD)
    ENTRY(cuMemcpyDtoDAsync) ENTRY(cuMemcpyDtoH) ENTRY(cuMemcpyDtoHAsync) ENTRY(cuMemcpyHtoD)
    ENTRY(cuMemcpyHtoDAsync) ENTRY(cuMemsetD16) ENTRY(cuMemsetD16Async) ENTRY(cuMemsetD32) ENTRY(cuMemsetD32Async)
    ENTRY(cuMemsetD8) ENTRY(cuMemsetD8Async) ENTRY(cuModuleGetFunction) ENTRY(cuModuleLoadData)
    ENTRY(cuModuleLoadDataEx) ENTRY(cuModuleUnload) ENTRY(cuPointerGetAttribute) ENTRY(cuPointerGetAttributes)
    ENTRY(cuStreamBeginCapture) ENTRY(cuStreamBeginCaptureToGraph) ENTRY(cuStreamCreate)
    ENTRY(cuStreamCreateWithPriority) ENTRY(cuStreamDestroy) ENTRY(cuStreamEndCapture)
    ENTRY(cuStreamGetCaptureInfo) ENTRY(cuStreamGetCtx) ENTRY(cuStreamGetDevice) ENTRY(cuStreamGetFlags)
    ENTRY(cuStreamGetId) ENTRY(cuStreamGetPriority) ENTRY(cuStreamIsCapturing) ENTRY(cuStreamQuery)
    ENTRY(cuStreamSynchronize) ENTRY(cuStreamWaitEvent) ENTRY(cuThreadExchangeStreamCaptureMode)
    ENTRY(cuUserObjectCreate) ENTRY(cuUserObjectRelease) ENTRY(cuGetErrorName) ENTRY(cuGetErrorString)
    };
#undef ENTRY
    return found;
}

const std::map<CUresult, const char*>& errors() {
#define ERROR(name) {name, #name},
    static const std::map<CUresult, const char*> names{
    ERROR(CUDA_SUCCESS) ERROR(CUDA_ERROR_INVALID_VALUE) ERROR(CUDA_ERROR_OUT_OF_MEMORY)
    ERROR(CUDA_ERROR_NOT_INITIALIZED) ERROR(CUDA_ERROR_STUB_LIBRARY) ERROR(CUDA_ERROR_NO_DEVICE)
    ERROR(CUDA_ERROR_INVALID_DEVICE) ERROR(CUDA_ERROR_INVALID_IMAGE) ERROR(CUDA_ERROR_INVALID_CONTEXT)
    ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU) ERROR(CUDA_ERROR_INVALID_HANDLE) ERROR(CUDA_ERROR_ILLEGAL_STATE)
    ERROR(CUDA_ERROR_NOT_FOUND) ERROR(CUDA_ERROR_NOT_READY) ERROR(CUDA_ERROR_ILLEGAL_ADDRESS)
    ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED) ERROR(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED)
    ERROR(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED) ERROR(CUDA_ERROR_NOT_SUPPORTED)
    ERROR(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH) ERROR(CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE)
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
    ERROR(CUDA_ERROR_STREAM_CAPTURE_MERGE) ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED)
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNJOINED) ERROR(CUDA_ERROR_STREAM_CAPTURE_ISOLATION)
    ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) ERROR(CUDA_ERROR_CAPTURED_EVENT)
    ERROR(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD) ERROR(CUDA_ERROR_UNKNOWN)
    };
#undef ERROR
    return names;
}

}  // namespace

extern "C" {

CUresult cuGetErrorName(CUresult error, const char** name) {
    auto found = errors().find(error);
    *name = found == errors().end() ? nullptr : found->second;
    return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// PyCUDA gives these texts instead of names.
CUresult cuGetErrorString(CUresult error, const char** text) {
    switch (error) {
        case CUDA_ERROR_OUT_OF_MEMORY: *text = "out of memory"; break;
        case CUDA_ERROR_INVALID_IMAGE: *text = "device kernel image is invalid"; break;
        case CUDA_ERROR_NO_BINARY_FOR_GPU:
            *text = "no kernel image is available for execution on the device";
            break;
        case CUDA_ERROR_ILLEGAL_ADDRESS: *text = "an illegal memory access was encountered"; break;
        case CUDA_ERROR_INVALID_CONTEXT: *text = "invalid device context"; break;
        default: return cuGetErrorName(error, text);
    }
    return CUDA_SUCCESS;
}

CUresult cuGetProcAddress(const char* name, void** function, int, cuuint64_t, CUdriverProcAddressQueryResult* status) {
    std::string wanted = name;
    *function = nullptr;
    if (wanted == "cuGetProcAddress") *function = reinterpret_cast<void*>(&cuGetProcAddress);
    auto found = entry_points().find(wanted);
    if (found != entry_points().end()) *function = found->second;
    if (status) *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

// NVRTC asks, and does without.
CUresult cuGetExportTable(const void** table, const CUuuid*) {
    *table = nullptr;
    return CUDA_ERROR_NOT_FOUND;
}

}  // extern "C"
