"""What CUDA's errors mean to somebody who has to do something about them."""

from __future__ import annotations

from gapcam.errors import BackendError

_LOST = "the context is lost: end this process and start it anew"
_MEANINGS = {
    "OUT_OF_MEMORY": "the device's memory is full; use a smaller batch or frame, or end what else uses the device",
    "NO_BINARY_FOR_GPU": "the code was compiled for another architecture than this device's; compile it anew",
    "INVALID_IMAGE": "this is no compiled code, or it is damaged; compile it anew",
    "INVALID_SOURCE": "this is no compiled code, or it is damaged; compile it anew",
    "UNSUPPORTED_PTX_VERSION": "the code is newer than NVIDIA's driver; update the driver",
    "INVALID_PTX": "the code is newer than NVIDIA's driver; update the driver",
    "INVALID_CONTEXT": "no context of this device is current on this thread; call this in `with driver.active():`",
    "CONTEXT_IS_DESTROYED": "the app ended the context in which gapcam lives; end gapcam's sessions before",
    "LAUNCH_OUT_OF_RESOURCES": "a block takes more registers or shared memory than the device has",
    "ILLEGAL_ADDRESS": f"work on the device touched memory that is not allocated; {_LOST}",
    "MISALIGNED_ADDRESS": f"work on the device touched memory at an address that is not aligned; {_LOST}",
    "LAUNCH_FAILED": f"work on the device failed; {_LOST}",
    "LAUNCH_TIMEOUT": f"work on the device took too long for a display's device; {_LOST}",
    "HARDWARE_STACK_ERROR": f"work on the device failed; {_LOST}",
    "ILLEGAL_INSTRUCTION": f"work on the device failed; {_LOST}",
    "ECC_UNCORRECTABLE": f"the device's memory has an error that it cannot correct; {_LOST}, and see nvidia-smi",
    "DEVICE_UNAVAILABLE": "another process has the device for itself; end it, or see nvidia-smi's compute mode",
    "DEVICES_UNAVAILABLE": "another process has the device for itself; end it, or see nvidia-smi's compute mode",
    "INVALID_DEVICE": "there is no device of this number",
    "STREAM_CAPTURE_UNSUPPORTED": "something was called that a CUDA graph cannot hold",
    "STREAM_CAPTURE_INVALIDATED": "something was called that a CUDA graph cannot hold",
    "STREAM_CAPTURE_IMPLICIT": "something was queued on the default stream, which a CUDA graph cannot hold",
    "STREAM_CAPTURE_ISOLATION": "it waits for work outside of the CUDA graph that is being captured",
    "STREAM_CAPTURE_UNJOINED": "a second stream came into the CUDA graph that the first one does not wait for",
}


def driver_error(doing: str, name: str) -> BackendError:
    """An error of CUDA's in a line.

    Args:
        doing: what was being done, such as "allocate 1024 bytes".
        name: CUDA's name for the error, such as "CUDA_ERROR_OUT_OF_MEMORY".
    """
    meaning = _MEANINGS.get(name.removeprefix("CUDA_ERROR_"))
    return BackendError(f"CUDA could not {doing}: {name}" + (f" ({meaning})" if meaning else ""))
