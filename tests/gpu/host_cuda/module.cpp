// Modules: a cubin is read for its architecture, its kernels' names and the sizes of their parameters; what runs is the
// function of the same name in one of the libraries that GAPCAM_HOST_CUDA_KERNELS names, which
// tests/runtime/cuda/host_shim.h makes: their host_launch runs all threads of a kernel.
#include "host_cuda.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <sstream>

namespace host_cuda {

namespace {

struct Parameter {
    size_t offset = 0, nbytes = 0;
};

struct Kernel {
    std::string name;
    std::vector<Parameter> parameters;
    std::shared_ptr<Context> context;  // of a module's function; a library's kernel runs in the current one
    size_t shared_bytes = 0;
    size_t buffer_nbytes() const {
        return parameters.empty() ? 0 : parameters.back().offset + parameters.back().nbytes;
    }
};

struct Code {
    std::map<std::string, std::shared_ptr<Kernel>> kernels;
    std::map<std::string, CUkernel> handles;
    std::shared_ptr<Context> context;
    std::vector<CUfunction> functions;
    CUlibrary library = nullptr;
};

Handles<Code, CUmodule> modules;
Handles<Code, CUlibrary> libraries;
Handles<Kernel, CUkernel> kernels;
Handles<Kernel, CUfunction> functions;

// A cubin is an ELF file; <elf.h> has its structures. What is NVIDIA's own: the architecture is in bits 8 to 15 of the
// flags (0 to 7 before ABI version 8), and sections .nv.info.KERNEL hold attributes, one of which, 0x17, describes one
// parameter: its number, its offset, and its size in the upper 14 bits of the last word.
std::shared_ptr<Code> read_cubin(const void* image) {
    require(image != nullptr);
    auto* bytes = static_cast<const unsigned char*>(image);
    for (size_t i = 0; i < SELFMAG; i++) require(bytes[i] == ELFMAG[i], CUDA_ERROR_INVALID_IMAGE);
    auto* header = static_cast<const Elf64_Ehdr*>(image);
    constexpr int kCuda = 190;
    require(header->e_ident[EI_CLASS] == ELFCLASS64 && header->e_machine == kCuda, CUDA_ERROR_INVALID_IMAGE);
    unsigned architecture = header->e_ident[EI_ABIVERSION] >= 8 ? header->e_flags >> 8 & 0xff : header->e_flags & 0xff;
    // Code for 8.0 runs on 8.x; this device is 8.0.
    require(architecture == 80, CUDA_ERROR_NO_BINARY_FOR_GPU);

    auto* sections = reinterpret_cast<const Elf64_Shdr*>(bytes + header->e_shoff);
    auto* names = reinterpret_cast<const char*>(bytes + sections[header->e_shstrndx].sh_offset);
    auto code = std::make_shared<Code>();
    constexpr char kInfo[] = ".nv.info.", kShared[] = ".nv.shared.";
    for (int s = 0; s < header->e_shnum; s++) {
        std::string name = names + sections[s].sh_name;
        if (name.rfind(kShared, 0) == 0) {
            auto& kernel = code->kernels[name.substr(sizeof kShared - 1)];
            if (!kernel) kernel = std::make_shared<Kernel>();
            kernel->shared_bytes = sections[s].sh_size;
        }
        if (name.rfind(kInfo, 0) != 0) continue;
        auto& kernel = code->kernels[name.substr(sizeof kInfo - 1)];
        if (!kernel) kernel = std::make_shared<Kernel>();
        kernel->name = name.substr(sizeof kInfo - 1);
        auto* at = bytes + sections[s].sh_offset;
        auto* end = at + sections[s].sh_size;
        while (at + 4 <= end) {
            unsigned format = at[0], attribute = at[1], size;
            std::memcpy(&size, at + 2, 2);
            size &= 0xffff;
            at += 4;
            if (format != 4) continue;  // its value is in these four bytes
            if (attribute == 0x17) {
                uint32_t words[3];
                std::memcpy(words, at, sizeof words);
                size_t number = words[1] & 0xffff;
                if (kernel->parameters.size() <= number) kernel->parameters.resize(number + 1);
                kernel->parameters[number] = {words[1] >> 16, words[2] >> 18};
            }
            at += size;
        }
    }
    return code;
}

using Launch = int (*)(const char*, void**, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, char*,
                       unsigned);
using Signature = const char* (*)(const char*);

struct HostKernels {
    Launch launch;
    Signature signature;
};

const std::vector<HostKernels>& host_libraries() {
    static const std::vector<HostKernels> found = [] {
        std::vector<HostKernels> libraries;
        std::stringstream paths(std::getenv("GAPCAM_HOST_CUDA_KERNELS") ? std::getenv("GAPCAM_HOST_CUDA_KERNELS") : "");
        for (std::string path; std::getline(paths, path, ':');) {
            void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
            if (!library) {
                std::fprintf(stderr, "host libcuda: %s\n", dlerror());
                continue;
            }
            libraries.push_back({reinterpret_cast<Launch>(dlsym(library, "host_launch")),
                                 reinterpret_cast<Signature>(dlsym(library, "host_signature"))});
        }
        return libraries;
    }();
    return found;
}

// The library that has a kernel, with parameters of the same sizes as the cubin's.
Launch host_launch(const Kernel& kernel) {
    for (auto& library : host_libraries()) {
        const char* signature = library.signature(kernel.name.c_str());
        if (!signature) continue;
        std::vector<size_t> sizes;
        for (const char* letter = signature; *letter; letter++)
            sizes.push_back(std::strchr("PdqQ", *letter) ? 8 : std::strchr("iIf", *letter) ? 4
                            : std::strchr("hH", *letter) ? 2 : 1);
        bool same = sizes.size() == kernel.parameters.size();
        for (size_t i = 0; same && i < sizes.size(); i++) same = sizes[i] == kernel.parameters[i].nbytes;
        if (same) return library.launch;
        std::fprintf(stderr, "host libcuda: the cubin's %s is not of the host's source\n", kernel.name.c_str());
    }
    throw CUDA_ERROR_NOT_FOUND;
}

// A kernel that touches what it must not ends as on a GPU: with an error, and the context is of no more use. What the
// shim found goes to standard error, for CUDA has no words for it.
void run_kernel(const Kernel& kernel, const std::vector<unsigned>& sizes, unsigned shared,
                std::vector<unsigned char>& buffer) {
    std::vector<void*> parameters;
    for (auto& parameter : kernel.parameters) parameters.push_back(buffer.data() + parameter.offset);
    char error[512] = "";
    int result = host_launch(kernel)(kernel.name.c_str(), parameters.data(), sizes[0], sizes[1], sizes[2], sizes[3], sizes[4],
                               sizes[5], shared, error, sizeof error);
    if (result == 0) return;
    std::fprintf(stderr, "host libcuda: %s: %s\n", kernel.name.c_str(), error);
    throw CUDA_ERROR_ILLEGAL_ADDRESS;
}

std::shared_ptr<Kernel> kernel_of(CUfunction function) {
    if (auto kernel = functions.find(function)) return kernel;
    return kernels.get(reinterpret_cast<CUkernel>(function));
}

void launch(CUfunction function, const unsigned* grid, const unsigned* block, unsigned shared, CUstream handle,
            void** parameters, void** extra) {
    auto kernel = kernel_of(function);
    auto stream = stream_of(handle);
    if (kernel->context) require(kernel->context == stream->context, CUDA_ERROR_INVALID_CONTEXT);
    for (int i = 0; i < 3; i++) require(grid[i] > 0 && block[i] > 0);
    require(grid[1] <= 65535 && grid[2] <= 65535 && block[2] <= 64);
    require(block[0] <= 1024 && block[1] <= 1024 && block[0] * block[1] * block[2] <= 1024);
    require(shared + kernel->shared_bytes <= 49152);
    host_launch(*kernel);  // is there
    auto buffer = std::make_shared<std::vector<unsigned char>>(kernel->buffer_nbytes());
    if (extra) {
        require(!parameters);
        const void* packed = nullptr;
        size_t nbytes = 0;
        for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
            if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) packed = extra[1];
            if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) nbytes = *static_cast<size_t*>(extra[1]);
        }
        require(nbytes == buffer->size());
        if (nbytes) std::memcpy(buffer->data(), packed, nbytes);
    } else {
        require(parameters || kernel->parameters.empty());
        for (size_t i = 0; i < kernel->parameters.size(); i++) {
            require(parameters[i] != nullptr);
            std::memcpy(buffer->data() + kernel->parameters[i].offset, parameters[i], kernel->parameters[i].nbytes);
        }
    }
    std::vector<unsigned> sizes{grid[0], grid[1], grid[2], block[0], block[1], block[2]};
    enqueue(stream, [kernel, sizes, shared, buffer] {
        auto arguments = *buffer;  // a graph runs it again
        run_kernel(*kernel, sizes, shared, arguments);
    });
}

int function_attribute(CUfunction_attribute attribute, const Kernel& kernel) {
    switch (attribute) {
        case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: return 1024;
        case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: return static_cast<int>(kernel.shared_bytes);
        case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: return 49152 - static_cast<int>(kernel.shared_bytes);
        case CU_FUNC_ATTRIBUTE_PTX_VERSION:
        case CU_FUNC_ATTRIBUTE_BINARY_VERSION: return 80;
        default: return 0;
    }
}

CUfunction add_function(Code& code, const std::string& name, const std::shared_ptr<Context>& context) {
    auto found = code.kernels.find(name);
    require(found != code.kernels.end(), CUDA_ERROR_NOT_FOUND);
    auto kernel = std::make_shared<Kernel>(*found->second);
    kernel->context = context;
    code.functions.push_back(functions.add(kernel));
    return code.functions.back();
}

void parameter_info(const Kernel& kernel, size_t number, size_t* offset, size_t* nbytes) {
    require(number < kernel.parameters.size());
    *offset = kernel.parameters[number].offset;
    if (nbytes) *nbytes = kernel.parameters[number].nbytes;
}

}  // namespace

void forget_modules_of(const std::shared_ptr<Context>& context) {
    std::vector<CUmodule> mine;
    for (auto& [handle, code] : modules.all())
        if (code->context == context) mine.push_back(handle);
    for (auto handle : mine) {
        auto code = modules.take(handle);
        for (auto function : code->functions) functions.take(function);
    }
}

}  // namespace host_cuda

using namespace host_cuda;

extern "C" {

CUresult cuModuleLoadData(CUmodule* handle, const void* image) {
    return call([&] {
        auto context = current_context();
        refuse_in_capture();
        auto code = read_cubin(image);
        code->context = context;
        *handle = modules.add(code);
    });
}

CUresult cuModuleLoadDataEx(CUmodule* handle, const void* image, unsigned, CUjit_option*, void**) {
    return cuModuleLoadData(handle, image);
}

CUresult cuModuleUnload(CUmodule handle) {
    return call([&] {
        auto context = current_context();
        refuse_in_capture();
        run_all(context);
        auto code = modules.take(handle);
        for (auto function : code->functions) functions.take(function);
    });
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule handle, const char* name) {
    return call([&] {
        auto code = modules.get(handle);
        *function = add_function(*code, name, code->context);
    });
}

CUresult cuLibraryLoadData(CUlibrary* handle, const void* image, CUjit_option*, void**, unsigned, CUlibraryOption*,
                           void**, unsigned) {
    return call([&] {
        auto code = read_cubin(image);
        *handle = code->library = libraries.add(code);
        for (auto& [name, kernel] : code->kernels) code->handles[name] = kernels.add(kernel);
    });
}

CUresult cuLibraryUnload(CUlibrary handle) {
    return call([&] {
        auto code = libraries.take(handle);
        for (auto& [name, kernel] : code->handles) kernels.take(kernel);
        for (auto function : code->functions) functions.take(function);
    });
}

CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary handle, const char* name) {
    return call([&] {
        auto code = libraries.get(handle);
        auto found = code->handles.find(name);
        require(found != code->handles.end(), CUDA_ERROR_NOT_FOUND);
        *kernel = found->second;
    });
}

CUresult cuLibraryGetKernelCount(unsigned* count, CUlibrary handle) {
    return call([&] { *count = static_cast<unsigned>(libraries.get(handle)->handles.size()); });
}

CUresult cuLibraryGetModule(CUmodule* module, CUlibrary handle) {
    return call([&] {
        auto code = std::make_shared<Code>(*libraries.get(handle));
        code->context = current_context();
        *module = modules.add(code);
    });
}

CUresult cuKernelGetFunction(CUfunction* function, CUkernel handle) {
    return call([&] {
        auto kernel = std::make_shared<Kernel>(*kernels.get(handle));
        kernel->context = current_context();
        *function = functions.add(kernel);
    });
}

CUresult cuKernelGetLibrary(CUlibrary* library, CUkernel handle) {
    return call([&] {
        kernels.get(handle);
        for (auto& [candidate, code] : libraries.all())
            for (auto& [name, kernel] : code->handles)
                if (kernel == handle) *library = candidate;
    });
}

CUresult cuKernelGetName(const char** name, CUkernel handle) {
    return call([&] { *name = kernels.get(handle)->name.c_str(); });
}

CUresult cuKernelGetAttribute(int* value, CUfunction_attribute attribute, CUkernel handle, CUdevice device) {
    return call([&] {
        require_device(device);
        *value = function_attribute(attribute, *kernels.get(handle));
    });
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
    return call([&] { *value = function_attribute(attribute, *kernel_of(function)); });
}

// PyCUDA calls it before it launches with the same shape.
CUresult cuFuncSetBlockShape(CUfunction function, int x, int y, int z) {
    return call([&] {
        kernel_of(function);
        require(x > 0 && y > 0 && z > 0 && z <= 64 && x * y * z <= 1024);
    });
}

CUresult cuKernelGetParamInfo(CUkernel handle, size_t number, size_t* offset, size_t* nbytes) {
    return call([&] { parameter_info(*kernels.get(handle), number, offset, nbytes); });
}

CUresult cuFuncGetParamInfo(CUfunction function, size_t number, size_t* offset, size_t* nbytes) {
    return call([&] { parameter_info(*kernel_of(function), number, offset, nbytes); });
}

CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                        unsigned bz, unsigned shared, CUstream stream, void** parameters, void** extra) {
    return call([&] {
        unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
        launch(function, grid, block, shared, stream, parameters, extra);
    });
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** parameters, void** extra) {
    return call([&] {
        require(config->numAttrs == 0, CUDA_ERROR_NOT_SUPPORTED);
        unsigned grid[3] = {config->gridDimX, config->gridDimY, config->gridDimZ};
        unsigned block[3] = {config->blockDimX, config->blockDimY, config->blockDimZ};
        launch(function, grid, block, config->sharedMemBytes, config->hStream, parameters, extra);
    });
}

}  // extern "C"
