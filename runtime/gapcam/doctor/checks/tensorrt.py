"""TensorRT and TensorRT-RTX: for engine files."""

from __future__ import annotations

from collections.abc import Iterator

from gapcam.doctor.facts import Distribution, Facts
from gapcam.doctor.findings import Finding, Level, driver_major, gpu_works
from gapcam.doctor.fits import (
    OLDEST_TENSORRT,
    TENSORRT_RTX_CAPABILITIES,
    TENSORRT_RTX_PLUGIN,
    TENSORRT_RTX_PLUGIN_CAPABILITIES,
    jetpack_of,
    text,
)

_TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings")
_APT = "sudo apt install python3-libnvinfer"
_VENV = "python3 -m venv --system-site-packages --upgrade .venv"


def check_tensorrt(facts: Facts) -> Iterator[Finding]:
    """Whether engine files of TensorRT can be built and run."""
    answer, installed = facts.answers["tensorrt"], _installed(facts.distributions)
    hidden = _installed(facts.hidden)
    if answer.absent and installed is None:
        if hidden is not None:
            yield _hidden(facts, hidden)
        elif gpu_works(facts):
            yield Finding(
                level=Level.NOTE,
                subject="TensorRT",
                found="not installed",
                expected="TensorRT 10 or newer: the fastest way to run a model on this GPU",
                command=_APT if facts.jetson else f"pip install {_package(facts)}",
                devices=("tensorrt",),
            )
        return
    version = str(answer.values.get("version") or (installed.version if installed else ""))
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < OLDEST_TENSORRT:
        yield Finding(
            level=Level.PROBLEM,
            subject="TensorRT",
            found=f"{version}, which gapcam does not use",
            expected="TensorRT 10 or newer: 8 cannot take a network's types from the model (strong typing); "
            "JetPack 5 and 6.0 have 8",
            command="flash JetPack 6.2 or 7.2" if facts.jetson else f"pip install --upgrade {_package(facts)}",
            devices=("tensorrt",),
        )
    elif answer.error is not None:
        yield Finding(
            level=Level.PROBLEM if gpu_works(facts) else Level.NOTE,
            subject="TensorRT",
            found=f"{version} does not load: {answer.error}".lstrip(),
            expected="bindings and libraries of one version, for this Python and this CUDA",
            command=_APT
            if facts.jetson
            else f"pip install --force-reinstall {_package(facts)}" + (f"=={version}" if version else ""),
            devices=("tensorrt",),
        )
    elif facts.jetson and installed and not installed.folder.endswith("dist-packages"):
        yield Finding(
            level=Level.NOTE,
            subject="TensorRT",
            found=f"{version} from pip, on a Jetson",
            expected="JetPack's own, which its GPU and its DLAs are tested with",
            command=f"pip uninstall -y tensorrt && {_APT}",
        )
    else:
        yield _ready("TensorRT", version, facts, "tensorrt")


def _hidden(facts: Facts, hidden: Distribution) -> Finding:
    python = facts.platform.python
    release = jetpack_of(facts.jetson.l4t) if facts.jetson and facts.jetson.l4t else None
    if release and python[:2] != release.python:
        expected = f"Python {text(release.python)}, which JetPack's TensorRT is built for; this is {text(python)}"
        command = f"python{text(release.python)} -m venv --clear --system-site-packages .venv"
    else:
        expected, command = "a virtual environment that sees the system's packages", _VENV
    return Finding(
        level=Level.PROBLEM if gpu_works(facts) else Level.NOTE,
        subject="TensorRT",
        found=f"{hidden.version} in {hidden.folder}, which this Python does not see",
        expected=expected,
        command=command,
        devices=("tensorrt",),
    )


def check_tensorrt_rtx(facts: Facts) -> Iterator[Finding]:
    """Whether engine files of TensorRT-RTX can be built and run."""
    yield from _plugin(facts)
    answer = facts.answers["tensorrt-rtx"]
    bindings = facts.distributions.get("tensorrt-rtx-cu13-bindings")
    if answer.absent and bindings is None:
        if gpu_works(facts) and facts.platform.machine == "x86_64":
            yield Finding(
                level=Level.NOTE,
                subject="TensorRT-RTX",
                found="not installed",
                expected="for GeForce and RTX cards: engines that are built ahead of time and fit several cards",
                command="pip install 'gapcam[tensorrt-rtx]'",
                devices=("tensorrt-rtx",),
            )
        return
    version = str(answer.values.get("version") or (bindings.version if bindings else ""))
    if answer.error is not None:
        yield Finding(
            level=Level.PROBLEM,
            subject="TensorRT-RTX",
            found=f"{version} does not load: {answer.error}".lstrip(),
            expected="tensorrt-rtx-cu13-bindings and tensorrt-rtx-cu13-libs of one version",
            command="pip install --force-reinstall 'gapcam[tensorrt-rtx]'",
            devices=("tensorrt-rtx",),
        )
        return
    other = [gpu for gpu in facts.driver.gpus if gpu.capability not in TENSORRT_RTX_CAPABILITIES]
    if other and len(other) == len(facts.driver.gpus):
        yield Finding(
            level=Level.NOTE,
            subject="TensorRT-RTX",
            found=f"{version}, which does not run on {other[0].name} (SM {text(other[0].capability)})",
            expected=f"SM {', '.join(map(text, TENSORRT_RTX_CAPABILITIES))}; TensorRT runs on others",
            devices=("tensorrt-rtx",),
        )
    else:
        yield _ready("TensorRT-RTX", version, facts, "tensorrt-rtx")


def _plugin(facts: Facts) -> Iterator[Finding]:
    """ONNX Runtime's provider is a package of its own, with its own TensorRT-RTX: for .onnx models, not for engines."""
    plugin = facts.distributions.get(TENSORRT_RTX_PLUGIN)
    runs = [gpu for gpu in facts.driver.gpus if gpu.capability in TENSORRT_RTX_PLUGIN_CAPABILITIES]
    if plugin is not None:
        yield Finding(level=Level.OK, subject="TensorRT-RTX", found=f"ONNX Runtime's provider for it, {plugin.version}")
    elif runs and facts.platform.machine == "x86_64" and (driver_major(facts) or 0) >= 13:
        yield Finding(
            level=Level.NOTE,
            subject="TensorRT-RTX",
            found="ONNX Runtime's provider for it is not installed",
            expected="for .onnx models on device tensorrt-rtx, beside onnxruntime or onnxruntime-gpu",
            command=f"pip install {TENSORRT_RTX_PLUGIN}",
            devices=("tensorrt-rtx",),
        )


def _ready(title: str, version: str, facts: Facts, question: str) -> Finding:
    if not gpu_works(facts):
        ahead = "; engines can be built ahead of time" if question == "tensorrt-rtx" else ""
        return Finding(level=Level.OK, subject=title, found=f"{version}, and no GPU to run on{ahead}")
    values = facts.answers[question].values
    if not values.get("loads"):
        return Finding(
            level=Level.PROBLEM,
            subject=title,
            found=f"{version} loads and makes no runtime: {values.get('why') or 'it gives no reason'}",
            expected="a driver that is new enough for it",
            command="gapcam doctor --json",
            devices=("tensorrt",) if question == "tensorrt" else ("tensorrt-rtx",),
        )
    return Finding(level=Level.OK, subject=title, found=version)


def _installed(distributions: dict[str, Distribution]) -> Distribution | None:
    return next((distributions[name] for name in _TENSORRT if name in distributions), None)


def _package(facts: Facts) -> str:
    """TensorRT from pip: the one that is installed, or the one for the driver's CUDA."""
    cuda = min(max(driver_major(facts) or 13, 12), 13)
    return next(
        (name.removesuffix("-bindings") for name in _TENSORRT if name in facts.distributions), f"tensorrt-cu{cuda}"
    )
