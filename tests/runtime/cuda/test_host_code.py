"""An engine that is version compatible brings code for the host, which TensorRT runs only where it is allowed to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from engine_headers import a_header
from host_driver import HostDriver
from host_tensorrt import HostEngine, HostRuntime, HostTensorRT
from small_models import a_contract

from gapcam.backends.tensorrt import TensorRTBackend
from gapcam.contract import METADATA_KEY, contract_to_json
from gapcam.engine_file import BuildOptions, read_engine, write_engine
from gapcam.engine_fit import this_platform
from gapcam.errors import BackendError


@pytest.mark.parametrize("version_compatible", [True, False])
def test_host_code_is_allowed_before_such_an_engine_is_loaded_and_for_no_other(
    tmp_path: Path, host: HostDriver, monkeypatch: pytest.MonkeyPatch, *, version_compatible: bool
) -> None:
    allowed: list[bool] = []

    class Runtime(HostRuntime):
        engine_host_code_allowed = False

        def deserialize_cuda_engine(self, plan: memoryview) -> HostEngine | None:
            del plan
            allowed.append(self.engine_host_code_allowed)
            return None  # as the library does with such a plan where it is not

    library = HostTensorRT(host, largest=1)
    library.Runtime = lambda logger: Runtime(library, logger)
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    header = a_header(
        platform=this_platform(),
        targets=(host.architecture,),
        device=host.device_name,
        cuda_driver=None,
        options=BuildOptions(version_compatible=version_compatible),
        metadata={METADATA_KEY: contract_to_json(a_contract((8, 8)))},
    )
    write_engine(tmp_path / "m.engine", header, {}, b"ptrt a plan")
    with read_engine(tmp_path / "m.engine") as file, pytest.raises(BackendError, match="cannot load"):
        TensorRTBackend(file, host)
    assert allowed == [version_compatible]
