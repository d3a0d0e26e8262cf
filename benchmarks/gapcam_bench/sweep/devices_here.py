"""Which devices a sweep can use on this machine, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from gapcam.cuda.presence import presence
from gapcam.devices import parse_device
from gapcam.errors import BackendError, MissingExtraError
from gapcam_bench.sweep.axes import ALL, AUTO

_FASTEST_FIRST = ("tensorrt-rtx", "tensorrt", "cuda", "cpu")


def resolve_devices(
    asked: Sequence[str], runtimes: Sequence[str] = (), *, say: Callable[[str], None] = lambda _: None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The devices that were asked for, "auto" and "all" resolved, and why each that does not work here does not.

    Args:
        asked: at least one.
        runtimes: of engine files among the models: what "auto" and "all" mean for them.
        say: is called with what is being done where it takes a while.

    Returns:
        The devices, and reasons by device.

    Raises:
        BackendError: none of them works here.
        MissingExtraError: likewise, since ONNX Runtime is not installed.
    """
    why = _why_not(asked, say)
    working = [kind for kind in _FASTEST_FIRST if why[kind] is None]
    devices: dict[str, None] = {}
    refused: dict[str, str] = {}
    for text in asked:
        if text in (AUTO, ALL) or text.startswith(f"{AUTO}:"):
            number = text.removeprefix(AUTO) if text != ALL else ""
            chosen = working if text == ALL else working[:1]
            devices.update(dict.fromkeys(kind + (number if kind != "cpu" else "") for kind in (*chosen, *runtimes)))
        else:
            devices[text] = None
    for device in devices:
        parsed = parse_device(device)
        reason = why[parsed.kind]
        if reason is None and parsed.kind != "cpu" and parsed.number >= presence().devices:
            reason = f"there are {presence().devices} GPUs here, from number 0"
        if reason is not None:
            refused[device] = f"device {device} does not work here: {reason}"
    if all(device in refused for device in devices):
        if not working and find_spec("onnxruntime") is None:
            raise MissingExtraError("onnxruntime", "cpu")
        what = f"What works here: {', '.join(working)}." if working else "No device works here."
        reasons = "; ".join(refused.values()) or "there is none"
        raise BackendError(f"{reasons}. {what} gapcam doctor tells more")
    return tuple(devices), refused


def _why_not(asked: Sequence[str], say: Callable[[str], None]) -> dict[str, str | None]:
    """By kind of device, why it does not work; None for one that does."""
    found: dict[str, str | None] = {"cpu": None if find_spec("onnxruntime") else "ONNX Runtime is not installed"}
    if presence().problem:
        return found | dict.fromkeys(("cuda", "tensorrt", "tensorrt-rtx"), presence().problem)
    if ALL not in asked and all(parse_device(text).kind == "cpu" for text in asked):
        return found | dict.fromkeys(("cuda", "tensorrt", "tensorrt-rtx"), "it was not looked at")
    say("asking which devices work here")
    from gapcam.doctor.gather import gather
    from gapcam.doctor.judge import devices, judge
    from gapcam.doctor.machine import ThisMachine

    facts = gather(ThisMachine())
    for device in devices(facts, judge(facts)):
        found[device.name] = None if device.works else device.says
    return found
