// Streams, events, captures and graphs: what is queued, in what order it runs, and what may be queued when.
#include "host_cuda.hpp"

#include <algorithm>
#include <chrono>
#include <set>

namespace host_cuda {

namespace {

struct Event {
    std::shared_ptr<Context> context;
    unsigned flags = 0;
    bool recorded = false;
    Place place;                       // where it was recorded last
    uint64_t recording = 0;            // how often it was recorded
    double milliseconds = 0;           // when the device came to it
    std::shared_ptr<Capture> capture;  // if it was recorded in one
    uint64_t captured_at = 0;          // how many works the capture had
};

struct Executable {
    std::shared_ptr<GraphNodes> nodes;
};

struct UserObject {
    void* object = nullptr;
    CUhostFn destroy = nullptr;
    unsigned references = 0;
    ~UserObject() {
        if (destroy) destroy(object);
    }
};

Handles<Stream, CUstream> streams;
Handles<Event, CUevent> events;
Handles<GraphNodes, CUgraph> graphs;
Handles<Executable, CUgraphExec> executables;
Handles<UserObject, CUuserObject> user_objects;  // those that the caller holds
std::map<CUuserObject, std::weak_ptr<UserObject>> known_user_objects;  // and those that only graphs hold
std::set<Capture*> captures;
thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

double now_milliseconds() {
    using namespace std::chrono;
    return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

bool is_done(const Place& place) { return place.stream->done >= place.count; }

void run_one(const std::shared_ptr<Stream>& stream) {
    auto next = std::move(stream->queue.front());
    stream->queue.pop_front();
    for (auto& place : next.after) run_until(place.stream, place.count);
    if (stream->context->broken == CUDA_SUCCESS) {
        try {
            DeviceMemoryIsOpen open;
            next.work();
        } catch (CUresult error) {
            stream->context->broken = error;
        }
    }
    stream->done++;
}

// What a piece of work waits for besides its own stream: the legacy default stream and all blocking ones wait for
// each other.
std::vector<Place> implied(const std::shared_ptr<Stream>& stream) {
    std::vector<Place> places;
    if (stream->legacy) {
        for (auto& [handle, other] : streams.all())
            if (other->context == stream->context && !(other->flags & CU_STREAM_NON_BLOCKING))
                places.push_back({other, other->queued});
        for (auto& [thread, other] : stream->context->thread_streams) places.push_back({other, other->queued});
    } else if (!(stream->flags & CU_STREAM_NON_BLOCKING) && stream->context->legacy_stream) {
        places.push_back({stream->context->legacy_stream, stream->context->legacy_stream->queued});
    }
    return places;
}

void refuse_legacy_while_blocking_streams_capture(const Stream& stream) {
    if (!stream.legacy) return;
    for (auto& [handle, other] : streams.all()) {
        if (other->context == stream.context && other->capture && !(other->flags & CU_STREAM_NON_BLOCKING)) {
            other->capture->invalid = true;
            throw CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        }
    }
}

void queue(const std::shared_ptr<Stream>& stream, Work work, std::vector<Place> after) {
    auto more = implied(stream);
    after.insert(after.end(), more.begin(), more.end());
    stream->queue.push_back({std::move(work), std::move(after)});
    stream->queued++;
}

std::shared_ptr<UserObject> user_object_of(CUuserObject handle) {
    auto user_object = known_user_objects[handle].lock();
    require(user_object != nullptr, CUDA_ERROR_INVALID_HANDLE);
    return user_object;
}

void leave_capture(Capture& capture) {
    for (auto& [handle, stream] : streams.all())
        if (stream->capture.get() == &capture) stream->capture = nullptr;
    captures.erase(&capture);
}

}  // namespace

std::shared_ptr<Stream> stream_of(CUstream handle) {
    auto context = current_context();
    if (handle == nullptr || handle == CU_STREAM_LEGACY) {
        if (!context->legacy_stream) {
            context->legacy_stream = std::make_shared<Stream>();
            context->legacy_stream->context = context;
            context->legacy_stream->legacy = true;
        }
        return context->legacy_stream;
    }
    if (handle == CU_STREAM_PER_THREAD) {
        auto& stream = context->thread_streams[std::this_thread::get_id()];
        if (!stream) {
            stream = std::make_shared<Stream>();
            stream->context = context;
        }
        return stream;
    }
    auto stream = streams.get(handle);
    require(stream->context->broken == CUDA_SUCCESS, stream->context->broken);
    return stream;
}

void enqueue(const std::shared_ptr<Stream>& stream, Work work) {
    require(stream->context->broken == CUDA_SUCCESS, stream->context->broken);
    refuse_legacy_while_blocking_streams_capture(*stream);
    if (!stream->capture) return queue(stream, std::move(work), {});
    auto& capture = *stream->capture;
    require(!capture.invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    capture.graph->works.push_back(std::move(work));
    if (stream.get() != capture.origin) capture.unjoined[stream.get()] = capture.graph->works.size();
}

void run_until(const std::shared_ptr<Stream>& stream, uint64_t count) {
    while (stream->done < count && !stream->queue.empty()) run_one(stream);
}

void run_all(const std::shared_ptr<Context>& context) {
    std::vector<std::shared_ptr<Stream>> all;
    for (auto& [handle, stream] : streams.all()) all.push_back(stream);
    for (auto& [thread, stream] : context->thread_streams) all.push_back(stream);
    if (context->legacy_stream) all.push_back(context->legacy_stream);
    for (auto& stream : all)
        if (stream->context == context) run_until(stream, stream->queued);
}

void close_streams(const std::shared_ptr<Context>& context) {
    run_all(context);
    std::vector<CUstream> mine;
    for (auto& [handle, stream] : streams.all())
        if (stream->context == context) mine.push_back(handle);
    for (auto handle : mine) streams.take(handle);
    std::vector<CUevent> marks;
    for (auto& [handle, event] : events.all())
        if (event->context == context) marks.push_back(handle);
    for (auto handle : marks) events.take(handle);
    context->thread_streams.clear();
    context->legacy_stream = nullptr;
}

void refuse_in_capture() {
    if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return;
    bool refused = false;
    for (auto* capture : captures) {
        bool own = capture->thread == std::this_thread::get_id() && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
        bool anybodys = thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL && capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
        if (own || anybodys) refused = capture->invalid = true;
    }
    require(!refused, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

void refuse_capturing(const Stream& stream) {
    if (!stream.capture) return;
    stream.capture->invalid = true;
    throw CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

}  // namespace host_cuda

using namespace host_cuda;

extern "C" {

CUresult cuStreamCreateWithPriority(CUstream* handle, unsigned flags, int) {
    return call([&] {
        auto stream = std::make_shared<Stream>();
        stream->context = current_context();
        stream->flags = flags;
        *handle = streams.add(stream);
    });
}

CUresult cuStreamCreate(CUstream* handle, unsigned flags) { return cuStreamCreateWithPriority(handle, flags, 0); }

CUresult cuStreamDestroy(CUstream handle) {
    return call([&] {
        auto stream = streams.get(handle);
        refuse_capturing(*stream);
        run_until(stream, stream->queued);
        streams.take(handle);
    });
}

CUresult cuStreamSynchronize(CUstream handle) {
    return call([&] {
        auto stream = stream_of(handle);
        refuse_capturing(*stream);
        for (auto& place : implied(stream)) run_until(place.stream, place.count);
        run_until(stream, stream->queued);
        require(stream->context->broken == CUDA_SUCCESS, stream->context->broken);
    });
}

CUresult cuStreamQuery(CUstream handle) {
    return call([&] {
        auto stream = stream_of(handle);
        refuse_capturing(*stream);
        if (stream->queue.empty()) return;
        run_one(stream);  // who asks often enough comes to the end
        throw CUDA_ERROR_NOT_READY;
    });
}

CUresult cuStreamGetFlags(CUstream handle, unsigned* flags) {
    return call([&] { *flags = stream_of(handle)->flags; });
}

CUresult cuStreamGetPriority(CUstream handle, int* priority) {
    return call([&] {
        stream_of(handle);
        *priority = 0;
    });
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext* context) {
    return call([&] { *context = stream_of(handle)->context->handle; });
}

CUresult cuStreamGetId(CUstream handle, unsigned long long* id) {
    return call([&] { *id = reinterpret_cast<uintptr_t>(stream_of(handle).get()); });
}

CUresult cuStreamGetDevice(CUstream handle, CUdevice* device) {
    return call([&] { *device = stream_of(handle)->context->device; });
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned) {
    return call([&] {
        auto stream = stream_of(handle);
        auto event = events.get(event_handle);
        refuse_legacy_while_blocking_streams_capture(*stream);
        if (!event->recorded) return;
        if (event->capture) {
            auto capture = event->capture;
            require(captures.count(capture.get()) != 0, CUDA_ERROR_CAPTURED_EVENT);
            require(!capture->invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
            if (!stream->capture) {
                require(!stream->legacy, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
                stream->capture = capture;  // a fork
                capture->unjoined[stream.get()] = capture->graph->works.size();
            }
            require(stream->capture == capture, CUDA_ERROR_STREAM_CAPTURE_MERGE);
            auto forked = capture->unjoined.find(event->place.stream.get());
            if (forked != capture->unjoined.end() && forked->second <= event->captured_at &&
                forked->first != stream.get())
                capture->unjoined.erase(forked);
            return;
        }
        if (stream->capture) {  // work outside of a capture cannot be waited for in it
            stream->capture->invalid = true;
            throw CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
        }
        queue(stream, [] {}, {event->place});
    });
}

// Events.

CUresult cuEventCreate(CUevent* handle, unsigned flags) {
    return call([&] {
        auto event = std::make_shared<Event>();
        event->context = current_context();
        event->flags = flags;
        *handle = events.add(event);
    });
}

CUresult cuEventDestroy(CUevent handle) {
    return call([&] { events.take(handle); });
}

CUresult cuEventRecord(CUevent handle, CUstream stream_handle) {
    return call([&] {
        auto event = events.get(handle);
        auto stream = stream_of(stream_handle);
        require(event->context == stream->context);
        refuse_legacy_while_blocking_streams_capture(*stream);
        event->recorded = true;
        event->recording++;
        event->capture = stream->capture;
        if (stream->capture) {
            require(!stream->capture->invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
            event->place = {stream, 0};
            event->captured_at = stream->capture->graph->works.size();
            return;
        }
        std::weak_ptr<Event> weak = event;
        queue(stream, [weak, recording = event->recording] {
            auto mark = weak.lock();
            if (mark && mark->recording == recording) mark->milliseconds = now_milliseconds();
        }, {});
        event->place = {stream, stream->queued};
    });
}

CUresult cuEventRecordWithFlags(CUevent handle, CUstream stream, unsigned flags) {
    return flags ? CUDA_ERROR_NOT_SUPPORTED : cuEventRecord(handle, stream);
}

CUresult cuEventQuery(CUevent handle) {
    return call([&] {
        auto event = events.get(handle);
        require(!event->capture, CUDA_ERROR_CAPTURED_EVENT);
        refuse_in_capture();
        if (!event->recorded || is_done(event->place)) return;
        run_one(event->place.stream);
        throw CUDA_ERROR_NOT_READY;
    });
}

CUresult cuEventSynchronize(CUevent handle) {
    return call([&] {
        auto event = events.get(handle);
        require(!event->capture, CUDA_ERROR_CAPTURED_EVENT);
        refuse_in_capture();
        if (!event->recorded) return;
        run_until(event->place.stream, event->place.count);
        auto broken = event->place.stream->context->broken;
        require(broken == CUDA_SUCCESS, broken);
    });
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent start_handle, CUevent end_handle) {
    return call([&] {
        auto start = events.get(start_handle), end = events.get(end_handle);
        for (auto& event : {start, end})
            require(event->recorded && !event->capture && !(event->flags & CU_EVENT_DISABLE_TIMING),
                    CUDA_ERROR_INVALID_HANDLE);
        require(is_done(start->place) && is_done(end->place), CUDA_ERROR_NOT_READY);
        *milliseconds = static_cast<float>(end->milliseconds - start->milliseconds);
    });
}

// Captures.

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
    return call([&] { std::swap(*mode, thread_mode); });
}

static void begin_capture(CUstream handle, CUgraph graph_handle, CUstreamCaptureMode mode) {
    auto stream = stream_of(handle);
    require(handle && handle != CU_STREAM_LEGACY && handle != CU_STREAM_PER_THREAD,
            CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    require(!stream->capture, CUDA_ERROR_ILLEGAL_STATE);
    auto capture = std::make_shared<Capture>();
    capture->id = new_handle();
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->origin = stream.get();
    capture->graph_handle = graph_handle ? graph_handle : graphs.add(std::make_shared<GraphNodes>());
    capture->graph = graphs.get(capture->graph_handle);
    stream->capture = capture;
    captures.insert(capture.get());
}

CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
    return call([&] { begin_capture(handle, nullptr, mode); });
}

CUresult cuStreamBeginCaptureToGraph(CUstream handle, CUgraph graph, const CUgraphNode*, const CUgraphEdgeData*,
                                     size_t dependencies, CUstreamCaptureMode mode) {
    return call([&] {
        require(dependencies == 0, CUDA_ERROR_NOT_SUPPORTED);
        graphs.get(graph);
        begin_capture(handle, graph, mode);
    });
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
    return call([&] {
        *graph = nullptr;
        auto stream = stream_of(handle);
        require(stream->capture != nullptr, CUDA_ERROR_ILLEGAL_STATE);
        auto capture = stream->capture;
        require(capture->origin == stream.get(), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
        require(capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED || capture->thread == std::this_thread::get_id(),
                CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
        leave_capture(*capture);
        require(!capture->invalid, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        require(capture->unjoined.empty(), CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
        *graph = capture->graph_handle;
    });
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
    return call([&] {
        auto stream = stream_of(handle);
        *status = !stream->capture            ? CU_STREAM_CAPTURE_STATUS_NONE
                  : stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                             : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    });
}

CUresult cuStreamGetCaptureInfo(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                const CUgraphNode** dependencies, const CUgraphEdgeData** edges, size_t* count) {
    return call([&] {
        auto stream = stream_of(handle);
        auto capture = stream->capture;
        *status = !capture           ? CU_STREAM_CAPTURE_STATUS_NONE
                  : capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                     : CU_STREAM_CAPTURE_STATUS_ACTIVE;
        if (id) *id = capture ? capture->id : 0;
        if (graph) *graph = capture ? capture->graph_handle : nullptr;
        if (dependencies) *dependencies = nullptr;
        if (edges) *edges = nullptr;
        if (count) *count = 0;
    });
}

// Graphs. Their works are in the order in which they were captured, which is one of those that are right.

CUresult cuGraphCreate(CUgraph* handle, unsigned flags) {
    return call([&] {
        require(flags == 0);
        *handle = graphs.add(std::make_shared<GraphNodes>());
    });
}

CUresult cuGraphDestroy(CUgraph handle) {
    return call([&] { graphs.take(handle); });
}

CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
    return call([&] {
        auto graph = graphs.get(handle);
        require(!nodes, CUDA_ERROR_NOT_SUPPORTED);
        *count = graph->works.size();
    });
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* handle, CUgraph graph, unsigned long long) {
    return call([&] {
        auto executable = std::make_shared<Executable>();
        executable->nodes = std::make_shared<GraphNodes>(*graphs.get(graph));
        *handle = executables.add(executable);
    });
}

CUresult cuGraphInstantiateWithParams(CUgraphExec* handle, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS* parameters) {
    auto result = cuGraphInstantiateWithFlags(handle, graph, 0);
    parameters->result_out = result == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS : CUDA_GRAPH_INSTANTIATE_ERROR;
    parameters->hErrNode_out = nullptr;
    return result;
}

CUresult cuGraphUpload(CUgraphExec handle, CUstream stream) {
    return call([&] {
        executables.get(handle);
        stream_of(stream);
    });
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
    return call([&] {
        auto nodes = executables.get(handle)->nodes;
        auto stream = stream_of(stream_handle);
        for (size_t i = 0; i < nodes->works.size(); i++) enqueue(stream, [nodes, i] { nodes->works[i](); });
    });
}

CUresult cuGraphExecDestroy(CUgraphExec handle) {
    return call([&] { executables.take(handle); });
}

CUresult cuUserObjectCreate(CUuserObject* handle, void* object, CUhostFn destroy, unsigned references, unsigned) {
    return call([&] {
        require(references > 0);
        auto user_object = std::make_shared<UserObject>();
        user_object->object = object;
        user_object->destroy = destroy;
        user_object->references = references;
        *handle = user_objects.add(user_object);
        known_user_objects[*handle] = user_object;
    });
}

CUresult cuUserObjectRelease(CUuserObject handle, unsigned count) {
    return call([&] {
        auto user_object = user_objects.get(handle);
        require(count > 0 && count <= user_object->references);
        if ((user_object->references -= count) == 0) user_objects.take(handle);
    });
}

CUresult cuGraphRetainUserObject(CUgraph graph, CUuserObject handle, unsigned count, unsigned flags) {
    return call([&] {
        auto user_object = user_object_of(handle);
        graphs.get(graph)->keeps.push_back(user_object);
        if (flags & CU_GRAPH_USER_OBJECT_MOVE) {
            require(count <= user_object->references);
            if ((user_object->references -= count) == 0) user_objects.take(handle);
        }
    });
}

CUresult cuGraphReleaseUserObject(CUgraph graph, CUuserObject handle, unsigned) {
    return call([&] {
        auto user_object = user_object_of(handle);
        auto& keeps = graphs.get(graph)->keeps;
        auto found = std::find(keeps.begin(), keeps.end(), std::shared_ptr<void>(user_object));
        require(found != keeps.end());
        keeps.erase(found);
    });
}

}  // extern "C"
