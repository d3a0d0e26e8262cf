// A libcuda.so.1 without a GPU: the part of CUDA's driver API that cuda.core, cuda.bindings and PyCUDA call for gapcam,
// on host memory. THIS IS NOT A GPU: it says that the drivers' Python code makes the right calls in a right order, and
// nothing about speed or about what a GPU computes. Kernels run as they were compiled for the host.
//
// It is stricter than CUDA, so that mistakes show:
// - What is queued runs only when somebody waits for it (or asks whether it is done), in the order that streams and
//   events give. Who reads a result or reuses a buffer too early gets wrong bytes every time.
// - Device memory cannot be touched by the host (PROT_NONE) but while queued work runs; it ends at a page that never
//   can be, and is full of 0xCD at first. Freed memory is never given out again.
// - Handles are never reused. Wrong, freed and foreign ones are refused; so are calls without a context, calls that a
//   capture does not allow, kernels for another architecture, and launches with a wrong size of arguments.
//
// Read from the environment:
//   GAPCAM_HOST_CUDA_KERNELS  libraries with the kernels (module.cpp says what they export), with colons between them
//   GAPCAM_HOST_CUDA_INIT     a CUresult that cuInit gives instead of 0, such as 100 for "no device"
//   GAPCAM_HOST_CUDA_DRIVER   what cuDriverGetVersion says, such as 12060; 13000 unless set
//   GAPCAM_HOST_CUDA_MEMORY   the devices' memory in bytes, of all together; 1 GiB unless set
//   GAPCAM_HOST_CUDA_DEVICES  how many devices there are; 1 unless set
#pragma once

#include <cuda.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace host_cuda {

// All calls are made one after the other. It is recursive: a callback may call CUDA.
extern std::recursive_mutex lock;
extern bool initialized;

// The body of an entry point: errors are thrown as CUresult.
template <class Body>
CUresult call(Body body) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!initialized) return CUDA_ERROR_NOT_INITIALIZED;
    try {
        body();
        return CUDA_SUCCESS;
    } catch (CUresult error) {
        return error;
    }
}

inline void require(bool condition, CUresult error = CUDA_ERROR_INVALID_VALUE) {
    if (!condition) throw error;
}

// Objects by their handles, which are numbers that never come back.
uint64_t new_handle();

template <class Object, class Handle>
class Handles {
  public:
    Handle add(std::shared_ptr<Object> object) {
        auto handle = reinterpret_cast<Handle>(new_handle());
        objects_[handle] = std::move(object);
        return handle;
    }
    std::shared_ptr<Object> find(Handle handle) const {
        auto found = objects_.find(handle);
        return found == objects_.end() ? nullptr : found->second;
    }
    std::shared_ptr<Object> get(Handle handle, CUresult error = CUDA_ERROR_INVALID_HANDLE) const {
        auto object = find(handle);
        require(object != nullptr, error);
        return object;
    }
    std::shared_ptr<Object> take(Handle handle) {
        auto object = get(handle);
        objects_.erase(handle);
        return object;
    }
    const std::unordered_map<Handle, std::shared_ptr<Object>>& all() const { return objects_; }

  private:
    std::unordered_map<Handle, std::shared_ptr<Object>> objects_;
};

// context.cpp

struct Stream;

struct Context {
    CUcontext handle = nullptr;
    CUdevice device = 0;
    bool primary = false;
    unsigned flags = 0;
    CUresult broken = CUDA_SUCCESS;  // an error from which a context does not recover
    std::shared_ptr<Stream> legacy_stream;
    std::map<std::thread::id, std::shared_ptr<Stream>> thread_streams;
};

std::shared_ptr<Context> current_context();     // throws CUDA_ERROR_INVALID_CONTEXT; or what broke it
void require_device(CUdevice device);
int device_attribute(CUdevice_attribute attribute);
int environment_number(const char* name, int otherwise);

// stream.cpp

using Work = std::function<void()>;

struct Place {  // behind the first `count` pieces of work of a stream
    std::shared_ptr<Stream> stream;
    uint64_t count = 0;
};

struct Queued {
    Work work;
    std::vector<Place> after;
};

struct GraphNodes {
    std::vector<Work> works;
    std::vector<std::shared_ptr<void>> keeps;  // user objects
};

struct Capture {
    uint64_t id = 0;
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    std::thread::id thread;
    bool invalid = false;
    Stream* origin = nullptr;
    CUgraph graph_handle = nullptr;
    std::shared_ptr<GraphNodes> graph;
    std::map<Stream*, uint64_t> unjoined;  // forked streams whose last work nobody waits for yet, and its number
};

struct Stream {
    std::shared_ptr<Context> context;
    unsigned flags = 0;
    bool legacy = false;
    std::deque<Queued> queue;
    uint64_t queued = 0, done = 0;
    std::shared_ptr<Capture> capture;
};

std::shared_ptr<Stream> stream_of(CUstream handle);  // of the current context; NULL, 1 and 2 are the default streams
void enqueue(const std::shared_ptr<Stream>& stream, Work work);
void run_until(const std::shared_ptr<Stream>& stream, uint64_t count);
void run_all(const std::shared_ptr<Context>& context);
void close_streams(const std::shared_ptr<Context>& context);
void refuse_in_capture();               // for calls that a capture of this thread forbids
void refuse_capturing(const Stream& stream);  // for waiting on a stream that is capturing

// memory.cpp

void check_device_range(uintptr_t pointer, size_t nbytes);  // throws CUDA_ERROR_ILLEGAL_ADDRESS
void free_memory_of(const std::shared_ptr<Context>& context);

class DeviceMemoryIsOpen {  // while it lives, the host can touch device memory
  public:
    DeviceMemoryIsOpen();
    ~DeviceMemoryIsOpen();
};

// module.cpp

void forget_modules_of(const std::shared_ptr<Context>& context);

}  // namespace host_cuda
