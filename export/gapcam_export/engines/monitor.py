"""How far a build is, and how it is stopped: TensorRT's progress monitor."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gapcam_export.progress import Progress

STEP = "building the engine"


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class BuildProgress:
    """What the phases of a build, each a part of a step of another, come to.

    Args:
        progress: is called with "building the engine: PHASE", and percents, when one of them changes; from any thread.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._phases: dict[str, _Phase] = {}
        self._lock = threading.Lock()
        self._said = ("", -1)
        self._stopped = threading.Event()
        self.error: BaseException | None = None

    def stop(self) -> None:
        """Let the build end at its next step."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(steps, 1))
        self._say(name)

    def step(self, name: str) -> bool:
        """A step of a phase is done; False where the build is to stop."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done = min(phase.done + 1, phase.steps)
        self._say(name)
        return not self.stopped

    def finish(self, name: str) -> None:
        """A phase ends."""
        with self._lock:
            self._phases.pop(name, None)

    @property
    def fraction(self) -> float:
        """How much of the outermost phase is done, 0 to 1."""
        with self._lock:
            return max(
                (self._fraction(name) for name, phase in self._phases.items() if phase.parent is None), default=0
            )

    def _fraction(self, name: str) -> float:
        phase = self._phases[name]
        inner = max((self._fraction(key) for key, other in self._phases.items() if other.parent == name), default=0.0)
        return min((phase.done + inner) / phase.steps, 1.0)

    def _say(self, name: str) -> None:
        percent = max(int(100 * self.fraction), self._said[1])
        if self.error is not None or (name, percent) == self._said:
            return
        self._said = name, percent
        try:
            self._progress(f"{STEP}: {name}", percent, 100)
        except BaseException as error:  # noqa: BLE001 - it must not unwind through TensorRT; raised after the build
            self.error = error
            self.stop()


def new_monitor(module: ModuleType, build: BuildProgress) -> Any:
    """TensorRT's side of it, to be set as `config.progress_monitor`."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined, unused-ignore]  # untyped
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            build.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            del step
            return build.step(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            build.finish(phase_name)

    return Monitor()
