"""The kernels compile for every GPU that gapcam names, and stay within what a small one has."""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from host_driver import HostDriver

from gapcam.cuda.kernel_cache import kernel_source, load_kernels
from gapcam.cuda.nvrtc import CompiledKernels, compile_kernels, nvrtc_version
from gapcam.errors import BackendError, MissingExtraError

# The oldest, Jetson Orin's and the newest, and those between, which `make test-slow` compiles for.
ARCHITECTURES = [
    *("sm_75", "sm_87", "sm_120"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("sm_80", "sm_86", "sm_89", "sm_90", "sm_110")),
]

pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed")


@lru_cache(maxsize=1)
def compiled(architecture: str) -> CompiledKernels:
    return compile_kernels(kernel_source(), architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_stays_in_registers_and_48_kib_of_shared_memory(architecture: str) -> None:
    result = compiled(architecture)
    assert result.cubin.startswith(b"\x7fELF")
    names = re.findall(r"__global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(", kernel_source())
    assert [kernel.name for kernel in result.kernels] == sorted(names)
    for kernel in result.kernels:
        assert 1 <= kernel.registers <= 80, kernel
        assert kernel.spilled_bytes == 0, kernel
        assert kernel.stack_bytes == 0, kernel
        assert kernel.shared_bytes <= 48 * 1024, kernel
    warnings = [line for line in result.log.splitlines() if "warning" in line]
    # A launch bound that asks for more threads a multiprocessor than SM 75 has holds for the others.
    assert [line for line in warnings if not line.endswith(".minnctapersm will be ignored")] == []


def ptx(source: str, architecture: str) -> str:
    from cuda.bindings import nvrtc

    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17", b"--fmad=false", b"-default-device"]
    error, program = nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", 0, [], [])
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS
    assert nvrtc.nvrtcCompileProgram(program, len(options), options)[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS
    text = bytearray(nvrtc.nvrtcGetPTXSize(program)[1])
    assert nvrtc.nvrtcGetPTX(program, text)[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS
    nvrtc.nvrtcDestroyProgram(program)
    return text.decode()


STEPS = {
    "fence ": r"membar\.gl|fence\.\S+\.gpu",
    "barrier ": r"bar\.sync|barrier\.\S*sync",
    "count ": r"atom\.(?:\S+\.)?add",
    "read ": r"ld\.volatile\.global",
}


@pytest.mark.parametrize("architecture", ["compute_75", "compute_90"])
def test_what_other_blocks_wrote_is_fenced_and_read_past_the_l1_cache(architecture: str) -> None:
    """The host, where blocks run one after the other, cannot tell."""
    code = ptx(kernel_source(), architecture).split(".entry cam(")[1].split(".entry")[0]
    found = "".join(
        next((step for step, pattern in STEPS.items() if re.match(rf"\s*(?:@\S+\s+)?(?:{pattern})", line)), "")
        for line in code.splitlines()
    )
    # A tile's last slice and a map's last tile, for features of either type.
    assert found.count("count ") == 4
    assert len(re.findall("fence (?:barrier )+count (?:barrier )+fence (?:barrier )+read ", found)) == 4


def test_the_code_has_the_kernels_under_their_names(
    host: HostDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GAPCAM_CACHE_DIR", str(tmp_path))
    module = load_kernels(host)
    assert module.function("preprocess_bgr") is not None
    with pytest.raises(KeyError):
        module.function("no_such_kernel")


def test_usage_is_what_ptxas_says_of_each_kernel() -> None:
    source = """
        __device__ __noinline__ float helper(const float *in) {
            float values[64];
            for (int i = 0; i < 64; ++i) values[i] = 2 * in[i];
            float sum = 0;
            for (int i = 0; i < 64; ++i) sum += values[static_cast<int>(in[i]) & 63];
            return sum;
        }
        extern "C" __global__ void with_stack(float *a) { a[0] = helper(a); }
        extern "C" __global__ void with_shared(float *a) {
            __shared__ float values[100];
            values[threadIdx.x] = a[threadIdx.x];
            __syncthreads();
            a[threadIdx.x] = values[99 - threadIdx.x];
        }
        extern "C" __global__ void __launch_bounds__(1024, 2) with_spills(float *a) {
            float values[64];
            for (int i = 0; i < 64; ++i) values[i] = a[i * 1024 + threadIdx.x];
            __syncthreads();
            for (int i = 0; i < 64; ++i) a[i * 1024 + threadIdx.x] = values[63 - i] * values[i];
        }
    """
    result = compile_kernels(source, "sm_80")
    kernels = {kernel.name: kernel for kernel in result.kernels}
    assert list(kernels) == ["with_shared", "with_spills", "with_stack"]
    assert kernels["with_stack"].stack_bytes == 256
    assert kernels["with_shared"].shared_bytes == 400
    assert kernels["with_shared"].stack_bytes == kernels["with_shared"].spilled_bytes == 0
    assert kernels["with_spills"].spilled_bytes > 0
    assert kernels["with_spills"].registers <= 32


def test_an_error_is_one_line_with_what_the_compiler_says() -> None:
    source = 'extern "C" __global__ void f(int *a) {\n  *a = nowhere + nothing + no_one + never;\n}\n'
    with pytest.raises(BackendError) as caught:
        compile_kernels(source, "sm_87")
    message = str(caught.value)
    assert re.match(r"NVRTC \d+\.\d+ does not compile kernels.cu for sm_87: kernels.cu\(2\): error: ", message)
    assert '"nowhere" is undefined' in message
    assert message.endswith("and 1 more")
    assert "\n" not in message


def test_an_architecture_that_the_compiler_does_not_know_is_refused_with_what_to_do() -> None:
    with pytest.raises(BackendError, match=r"does not compile for sm_37; install one that does .*gapcam doctor"):
        compile_kernels("", "sm_37")


@pytest.mark.parametrize("package", ["cuda.bindings", "cuda.core"])
def test_without_the_packages_the_message_says_how_to_install_them(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what `import` finds of a package that is not there
    with pytest.raises(MissingExtraError, match=r"pip install 'gapcam\[cuda\]'"):
        compile_kernels("", "sm_87")


def test_the_version_is_nvrtcs() -> None:
    major, minor = nvrtc_version()
    assert major >= 12
    assert minor >= 0
