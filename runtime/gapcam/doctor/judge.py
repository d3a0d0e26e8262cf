"""From facts to findings, and to which devices work. Pure functions: the same facts give the same answer anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gapcam.doctor.checks.cuda import check_cuda
from gapcam.doctor.checks.driver import check_driver
from gapcam.doctor.checks.frames import check_numpy, check_opencv
from gapcam.doctor.checks.onnxruntime import check_onnxruntime
from gapcam.doctor.checks.room import check_cache, check_memory
from gapcam.doctor.checks.tensorrt import check_tensorrt, check_tensorrt_rtx
from gapcam.doctor.facts import Facts
from gapcam.doctor.findings import DEVICES, Device, DeviceName, Finding, Level, driver_too_old, gpu_works

_CHECKS = (
    check_driver,
    check_cuda,
    check_onnxruntime,
    check_tensorrt,
    check_tensorrt_rtx,
    check_numpy,
    check_opencv,
    check_cache,
    check_memory,
)
_ORDER = (Level.PROBLEM, Level.NOTE, Level.OK)
_FOR_GPUS = ("kernels", "PyCUDA", "TensorRT", "TensorRT-RTX")
_ENGINES: dict[DeviceName, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


def judge(facts: Facts) -> list[Finding]:
    """All findings: problems first, of these what no device works without, then from the driver up.

    Where one thing spoils others, its command alone is given: theirs would mend nothing before.
    """
    found = [_behind_its_cause(facts, finding) for check in _CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: (_ORDER.index(finding.level), finding.devices != DEVICES))


def _behind_its_cause(facts: Facts, finding: Finding) -> Finding:
    if finding.level is Level.OK:
        return finding
    numpy = facts.answers["numpy"].error
    if numpy and finding.subject != "NumPy" and (numpy in finding.found or "import numpy" in finding.found):
        return msgspec.structs.replace(finding, expected="NumPy that loads, first", command=None)
    of_a_gpu = finding.subject in _FOR_GPUS or (finding.subject == "ONNX Runtime" and "cuda" in finding.devices)
    if driver_too_old(facts) and of_a_gpu and "cpu" not in finding.devices:
        return msgspec.structs.replace(finding, expected="a newer driver, first", command=None)
    return finding


def devices(facts: Facts, findings: Sequence[Finding]) -> list[Device]:
    """Each of `gapcam.doctor.findings.DEVICES`, and whether it works.

    The CPU works where a small model ran on it. A GPU's device works where gapcam's kernels load and a small model ran
    through ONNX Runtime, or, for the two TensorRTs, where their runtime for engine files is ready. Why one does not is
    what the first finding says that has to do with it.
    """
    return [_device(name, facts, findings) for name in DEVICES]


def _device(name: DeviceName, facts: Facts, findings: Sequence[Finding]) -> Device:
    trial = facts.answers[f"device {name}"]
    ready = name == "cpu" or facts.answers["kernels"].error is None
    runs = [str(trial.values["engine"])] if ready and trial.error is None else []
    if name in _ENGINES:
        engines = facts.answers[name]
        if ready and engines.error is None and engines.values.get("loads") and gpu_works(facts):
            runs.append(f"engine files: {_ENGINES[name]} {engines.values['version']}")
    if runs:
        return Device(name=name, works=True, says="; ".join(runs))
    reasons = [finding for finding in findings if name in finding.devices]
    error = trial.error or facts.answers["kernels"].error
    says = f"{reasons[0].subject}: {reasons[0].found}" if reasons else error or "nothing runs on it"
    return Device(name=name, works=False, says=says)
