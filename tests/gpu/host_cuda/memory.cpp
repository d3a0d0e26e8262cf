// Memory: of the device, which the host cannot touch; page-locked memory of the host; copies between them.
#include "host_cuda.hpp"

#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

namespace host_cuda {

namespace {

struct Allocation {
    uintptr_t start = 0;
    size_t nbytes = 0;
    void* mapped = nullptr;
    size_t mapped_nbytes = 0;  // what can be opened; a page that cannot follows
    std::shared_ptr<Context> context;
    bool is_freed = false;  // in the order of a stream, which may not have come there
};

struct Pool {
    int dummy = 0;
};

std::map<uintptr_t, std::shared_ptr<Allocation>> allocations;  // live ones
std::map<uintptr_t, size_t> pinned;                            // page-locked memory of the host
std::map<uintptr_t, bool> pinned_is_ours;                      // allocated, not registered
size_t used = 0;
int open_count = 0;
Handles<Pool, CUmemoryPool> pools;
CUmemoryPool default_pool = nullptr;

size_t page() { return sysconf(_SC_PAGESIZE); }

size_t total_memory() {
    size_t bytes = 0;
    cuDeviceTotalMem(&bytes, 0);
    return bytes;
}

// Ends at the page that cannot be touched, but for what is wanted for alignment to 256 bytes.
CUdeviceptr allocate(size_t nbytes) {
    auto context = current_context();
    require(nbytes > 0);
    size_t aligned = (nbytes + 255) / 256 * 256;
    require(aligned + used <= total_memory(), CUDA_ERROR_OUT_OF_MEMORY);
    auto allocation = std::make_shared<Allocation>();
    allocation->mapped_nbytes = (aligned + page() - 1) / page() * page();
    allocation->mapped = mmap(nullptr, allocation->mapped_nbytes + page(), PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    require(allocation->mapped != MAP_FAILED, CUDA_ERROR_OUT_OF_MEMORY);
    mprotect(allocation->mapped, allocation->mapped_nbytes, PROT_READ | PROT_WRITE);
    std::memset(allocation->mapped, 0xCD, allocation->mapped_nbytes);
    if (!open_count) mprotect(allocation->mapped, allocation->mapped_nbytes, PROT_NONE);
    allocation->start = reinterpret_cast<uintptr_t>(allocation->mapped) + allocation->mapped_nbytes - aligned;
    allocation->nbytes = nbytes;
    allocation->context = context;
    used += aligned;
    allocations[allocation->start] = allocation;
    return allocation->start;
}

// Gives the pages back, but keeps their addresses for ever.
void release(uintptr_t start) {
    auto found = allocations.find(start);
    require(found != allocations.end());
    auto allocation = found->second;
    used -= (allocation->nbytes + 255) / 256 * 256;
    madvise(allocation->mapped, allocation->mapped_nbytes, MADV_DONTNEED);
    mprotect(allocation->mapped, allocation->mapped_nbytes, PROT_NONE);
    allocations.erase(found);
}

std::shared_ptr<Allocation> allocation_around(uintptr_t pointer) {
    auto after = allocations.upper_bound(pointer);
    if (after == allocations.begin()) return nullptr;
    auto allocation = std::prev(after)->second;
    return pointer < allocation->start + allocation->nbytes ? allocation : nullptr;
}

bool is_pinned(const void* pointer, size_t nbytes) {
    auto at = reinterpret_cast<uintptr_t>(pointer);
    auto after = pinned.upper_bound(at);
    if (after == pinned.begin()) return false;
    auto [start, size] = *std::prev(after);
    return at + nbytes <= start + size;
}

// Rows of a copy: where each begins, and how far they are apart.
struct Rows {
    uintptr_t start;
    size_t pitch;
    size_t extent(size_t width, size_t height) const { return height ? (height - 1) * pitch + width : 0; }
};

void copy_rows(Rows to, Rows from, size_t width, size_t height) {
    for (size_t row = 0; row < height; row++)
        std::memmove(reinterpret_cast<void*>(to.start + row * to.pitch),
                     reinterpret_cast<void*>(from.start + row * from.pitch), width);
}

void check_now(uintptr_t pointer, size_t nbytes) {  // what the caller of a copy is told at once
    auto allocation = allocation_around(pointer);
    require(allocation && !allocation->is_freed && pointer + nbytes <= allocation->start + allocation->nbytes);
}

enum class Where { kHost, kDevice };

void copy(Where to_where, Rows to, Where from_where, Rows from, size_t width, size_t height, CUstream handle,
          bool wait) {
    if (wait) refuse_in_capture();
    auto stream = stream_of(handle);
    if (width == 0 || height == 0) return;
    size_t to_extent = to.extent(width, height), from_extent = from.extent(width, height);
    if (to_where == Where::kDevice) check_now(to.start, to_extent);
    if (from_where == Where::kDevice) check_now(from.start, from_extent);
    auto* to_host = reinterpret_cast<void*>(to.start);
    auto* from_host = reinterpret_cast<void*>(from.start);
    bool to_pageable = to_where == Where::kHost && !is_pinned(to_host, to_extent);
    bool from_pageable = from_where == Where::kHost && !is_pinned(from_host, from_extent);
    if ((to_pageable || from_pageable) && stream->capture) {  // stricter than CUDA: its bytes would be read later
        stream->capture->invalid = true;
        throw CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    std::shared_ptr<std::vector<unsigned char>> staged;
    if (from_pageable) {
        staged = std::make_shared<std::vector<unsigned char>>(width * height);
        auto start = reinterpret_cast<uintptr_t>(staged->data());
        copy_rows({start, width}, from, width, height);
        from = {start, width};
    }
    enqueue(stream, [=] {
        if (to_where == Where::kDevice) check_device_range(to.start, to_extent);
        if (from_where == Where::kDevice) check_device_range(from.start, from_extent);
        if (to_where == Where::kHost && !to_pageable) require(is_pinned(to_host, to_extent), CUDA_ERROR_ILLEGAL_ADDRESS);
        if (from_where == Where::kHost && !staged) require(is_pinned(from_host, from_extent), CUDA_ERROR_ILLEGAL_ADDRESS);
        copy_rows(to, from, width, height);
    });
    if (wait || to_pageable) {
        run_until(stream, stream->queued);
        require(stream->context->broken == CUDA_SUCCESS, stream->context->broken);
    }
}

void copy(Where to_where, uintptr_t to, Where from_where, uintptr_t from, size_t nbytes, CUstream stream, bool wait) {
    copy(to_where, {to, nbytes}, from_where, {from, nbytes}, nbytes, 1, stream, wait);
}

uintptr_t number(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

void copy_2d(const CUDA_MEMCPY2D& c, CUstream stream, bool wait) {
    auto side = [&](CUmemorytype type, const void* host, CUdeviceptr device, size_t x, size_t y, size_t pitch) {
        require(type == CU_MEMORYTYPE_HOST || type == CU_MEMORYTYPE_DEVICE, CUDA_ERROR_NOT_SUPPORTED);
        if (pitch == 0) pitch = c.WidthInBytes + x;
        require(c.WidthInBytes + x <= pitch);
        uintptr_t start = type == CU_MEMORYTYPE_HOST ? number(host) : device;
        return Rows{start + y * pitch + x, pitch};
    };
    auto to = side(c.dstMemoryType, c.dstHost, c.dstDevice, c.dstXInBytes, c.dstY, c.dstPitch);
    auto from = side(c.srcMemoryType, c.srcHost, c.srcDevice, c.srcXInBytes, c.srcY, c.srcPitch);
    copy(c.dstMemoryType == CU_MEMORYTYPE_HOST ? Where::kHost : Where::kDevice, to,
         c.srcMemoryType == CU_MEMORYTYPE_HOST ? Where::kHost : Where::kDevice, from, c.WidthInBytes, c.Height, stream,
         wait);
}

template <class Value>
void fill(CUdeviceptr pointer, Value value, size_t count, CUstream handle, bool wait) {
    if (wait) refuse_in_capture();
    auto stream = stream_of(handle);
    check_now(pointer, count * sizeof(Value));
    enqueue(stream, [=] {
        check_device_range(pointer, count * sizeof(Value));
        for (size_t i = 0; i < count; i++) std::memcpy(reinterpret_cast<Value*>(pointer) + i, &value, sizeof value);
    });
    if (wait) run_until(stream, stream->queued);
}

CUmemoryPool the_default_pool() {
    if (!default_pool) default_pool = pools.add(std::make_shared<Pool>());
    return default_pool;
}

void pointer_attribute(void* out, CUpointer_attribute attribute, CUdeviceptr pointer) {
    auto allocation = allocation_around(pointer);
    bool host = is_pinned(reinterpret_cast<void*>(pointer), 1);
    require(allocation || host);
    switch (attribute) {
        case CU_POINTER_ATTRIBUTE_CONTEXT:
            *static_cast<CUcontext*>(out) = allocation ? allocation->context->handle : nullptr;
            return;
        case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
            *static_cast<CUmemorytype*>(out) = allocation ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
            return;
        case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *static_cast<CUdeviceptr*>(out) = pointer; return;
        case CU_POINTER_ATTRIBUTE_HOST_POINTER:
            require(host);
            *static_cast<uintptr_t*>(out) = pointer;
            return;
        case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
            *static_cast<int*>(out) = allocation ? allocation->context->device : 0;
            return;
        case CU_POINTER_ATTRIBUTE_IS_MANAGED: *static_cast<int*>(out) = 0; return;
        default: throw CUDA_ERROR_NOT_SUPPORTED;
    }
}

}  // namespace

void check_device_range(uintptr_t pointer, size_t nbytes) {
    auto allocation = allocation_around(pointer);
    require(allocation && pointer + nbytes <= allocation->start + allocation->nbytes, CUDA_ERROR_ILLEGAL_ADDRESS);
}

void free_memory_of(const std::shared_ptr<Context>& context) {
    std::vector<uintptr_t> mine;
    for (auto& [start, allocation] : allocations)
        if (allocation->context == context) mine.push_back(start);
    for (auto start : mine) release(start);
}

DeviceMemoryIsOpen::DeviceMemoryIsOpen() {
    if (open_count++ == 0)
        for (auto& [start, each] : allocations) mprotect(each->mapped, each->mapped_nbytes, PROT_READ | PROT_WRITE);
}

DeviceMemoryIsOpen::~DeviceMemoryIsOpen() {
    if (--open_count == 0)
        for (auto& [start, each] : allocations) mprotect(each->mapped, each->mapped_nbytes, PROT_NONE);
}

}  // namespace host_cuda

using namespace host_cuda;

extern "C" {

CUresult cuMemGetInfo(size_t* free_bytes, size_t* total) {
    return call([&] {
        current_context();
        *total = total_memory();
        *free_bytes = *total - used;
    });
}

CUresult cuMemAlloc(CUdeviceptr* pointer, size_t nbytes) {
    return call([&] {
        refuse_in_capture();
        *pointer = allocate(nbytes);
    });
}

CUresult cuMemAllocPitch(CUdeviceptr* pointer, size_t* pitch, size_t width, size_t height, unsigned) {
    return call([&] {
        refuse_in_capture();
        *pitch = (width + 511) / 512 * 512;
        *pointer = allocate(*pitch * height);
    });
}

// It waits for the device, as cudaFree does.
CUresult cuMemFree(CUdeviceptr pointer) {
    return call([&] {
        auto context = current_context();
        refuse_in_capture();
        if (!pointer) return;
        auto found = allocations.find(pointer);
        require(found != allocations.end() && !found->second->is_freed);
        run_all(found->second->context);
        release(pointer);
    });
}

CUresult cuMemAllocAsync(CUdeviceptr* pointer, size_t nbytes, CUstream handle) {
    return call([&] {
        auto stream = stream_of(handle);
        require(!stream->capture, CUDA_ERROR_NOT_SUPPORTED);  // allocation nodes
        *pointer = allocate(nbytes);
        enqueue(stream, [] {});
    });
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr* pointer, size_t nbytes, CUmemoryPool pool, CUstream stream) {
    auto known = call([&] { pools.get(pool); });
    return known == CUDA_SUCCESS ? cuMemAllocAsync(pointer, nbytes, stream) : known;
}

CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream handle) {
    return call([&] {
        auto stream = stream_of(handle);
        require(!stream->capture, CUDA_ERROR_NOT_SUPPORTED);
        auto found = allocations.find(pointer);
        require(found != allocations.end() && !found->second->is_freed);
        found->second->is_freed = true;
        enqueue(stream, [pointer] { release(pointer); });
    });
}

CUresult cuMemGetAddressRange(CUdeviceptr* start, size_t* nbytes, CUdeviceptr pointer) {
    return call([&] {
        auto allocation = allocation_around(pointer);
        require(allocation != nullptr, CUDA_ERROR_NOT_FOUND);
        if (start) *start = allocation->start;
        if (nbytes) *nbytes = allocation->nbytes;
    });
}

// Pools: all memory is one.

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
    return call([&] {
        require_device(device);
        *pool = the_default_pool();
    });
}

CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) { return cuDeviceGetDefaultMemPool(pool, device); }

CUresult cuMemPoolCreate(CUmemoryPool* pool, const CUmemPoolProps*) {
    return call([&] { *pool = pools.add(std::make_shared<Pool>()); });
}

CUresult cuMemPoolDestroy(CUmemoryPool pool) {
    return call([&] {
        require(pool != default_pool);
        pools.take(pool);
    });
}

CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute, void*) {
    return call([&] { pools.get(pool); });
}

CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void* value) {
    return call([&] {
        pools.get(pool);
        if (attribute <= CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES)
            *static_cast<int*>(value) = 0;
        else
            *static_cast<cuuint64_t*>(value) = 0;
    });
}

CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc*, size_t) {
    return call([&] { pools.get(pool); });
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t) {
    return call([&] { pools.get(pool); });
}

// Page-locked memory.

CUresult cuMemHostAlloc(void** pointer, size_t nbytes, unsigned) {
    return call([&] {
        current_context();
        refuse_in_capture();
        require(nbytes > 0);
        size_t mapped = (nbytes + page() - 1) / page() * page();
        *pointer = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        require(*pointer != MAP_FAILED, CUDA_ERROR_OUT_OF_MEMORY);
        std::memset(*pointer, 0xCD, nbytes);
        pinned[number(*pointer)] = nbytes;
        pinned_is_ours[number(*pointer)] = true;
    });
}

CUresult cuMemAllocHost(void** pointer, size_t nbytes) { return cuMemHostAlloc(pointer, nbytes, 0); }

// Waits for the device, as cudaFreeHost does. Nobody can touch the memory afterwards.
CUresult cuMemFreeHost(void* pointer) {
    return call([&] {
        auto context = current_context();
        refuse_in_capture();
        require(pinned_is_ours.count(number(pointer)) && pinned_is_ours[number(pointer)]);
        run_all(context);
        mprotect(pointer, pinned[number(pointer)], PROT_NONE);
        madvise(pointer, pinned[number(pointer)], MADV_DONTNEED);
        pinned.erase(number(pointer));
        pinned_is_ours.erase(number(pointer));
    });
}

CUresult cuMemHostRegister(void* pointer, size_t nbytes, unsigned) {
    return call([&] {
        current_context();
        refuse_in_capture();
        require(pointer && nbytes > 0);
        require(!is_pinned(pointer, 1), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
        pinned[number(pointer)] = nbytes;
        pinned_is_ours[number(pointer)] = false;
    });
}

CUresult cuMemHostUnregister(void* pointer) {
    return call([&] {
        auto context = current_context();
        refuse_in_capture();
        require(pinned_is_ours.count(number(pointer)) && !pinned_is_ours[number(pointer)],
                CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
        run_all(context);
        pinned.erase(number(pointer));
        pinned_is_ours.erase(number(pointer));
    });
}

CUresult cuMemHostGetDevicePointer(CUdeviceptr* device, void* pointer, unsigned) {
    return call([&] {
        require(is_pinned(pointer, 1));
        *device = number(pointer);
    });
}

CUresult cuMemHostGetFlags(unsigned* flags, void* pointer) {
    return call([&] {
        require(is_pinned(pointer, 1));
        *flags = 0;
    });
}

CUresult cuPointerGetAttribute(void* out, CUpointer_attribute attribute, CUdeviceptr pointer) {
    return call([&] { pointer_attribute(out, attribute, pointer); });
}

CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute* attributes, void** outs, CUdeviceptr pointer) {
    return call([&] {
        bool known = allocation_around(pointer) || is_pinned(reinterpret_cast<void*>(pointer), 1);
        for (unsigned i = 0; i < count; i++) {
            if (known)
                pointer_attribute(outs[i], attributes[i], pointer);
            else
                *static_cast<int*>(outs[i]) = 0;
        }
    });
}

// Copies.

CUresult cuMemcpyHtoD(CUdeviceptr to, const void* from, size_t n) {
    return call([&] { copy(Where::kDevice, to, Where::kHost, number(from), n, nullptr, true); });
}
CUresult cuMemcpyDtoH(void* to, CUdeviceptr from, size_t n) {
    return call([&] { copy(Where::kHost, number(to), Where::kDevice, from, n, nullptr, true); });
}
CUresult cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t n) {
    return call([&] { copy(Where::kDevice, to, Where::kDevice, from, n, nullptr, true); });
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t n, CUstream stream) {
    return call([&] { copy(Where::kDevice, to, Where::kHost, number(from), n, stream, false); });
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t n, CUstream stream) {
    return call([&] { copy(Where::kHost, number(to), Where::kDevice, from, n, stream, false); });
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream stream) {
    return call([&] { copy(Where::kDevice, to, Where::kDevice, from, n, stream, false); });
}
CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream stream) {
    return call([&] {
        auto where = [](uintptr_t pointer) { return allocation_around(pointer) ? Where::kDevice : Where::kHost; };
        copy(where(to), to, where(from), from, n, stream, false);
    });
}
CUresult cuMemcpy2D(const CUDA_MEMCPY2D* parameters) {
    return call([&] { copy_2d(*parameters, nullptr, true); });
}
CUresult cuMemcpy2DUnaligned(const CUDA_MEMCPY2D* parameters) { return cuMemcpy2D(parameters); }
CUresult cuMemcpy2DAsync(const CUDA_MEMCPY2D* parameters, CUstream stream) {
    return call([&] { copy_2d(*parameters, stream, false); });
}

CUresult cuMemsetD8(CUdeviceptr p, unsigned char v, size_t n) {
    return call([&] { fill(p, v, n, nullptr, true); });
}
CUresult cuMemsetD16(CUdeviceptr p, unsigned short v, size_t n) {
    return call([&] { fill(p, v, n, nullptr, true); });
}
CUresult cuMemsetD32(CUdeviceptr p, unsigned v, size_t n) {
    return call([&] { fill(p, v, n, nullptr, true); });
}
CUresult cuMemsetD8Async(CUdeviceptr p, unsigned char v, size_t n, CUstream stream) {
    return call([&] { fill(p, v, n, stream, false); });
}
CUresult cuMemsetD16Async(CUdeviceptr p, unsigned short v, size_t n, CUstream stream) {
    return call([&] { fill(p, v, n, stream, false); });
}
CUresult cuMemsetD32Async(CUdeviceptr p, unsigned v, size_t n, CUstream stream) {
    return call([&] { fill(p, v, n, stream, false); });
}

}  // extern "C"
