"""Camera: frames arrive at a rate whether there is time for them or not; what counts is how old each result is.

Frame k (from 1) arrives k / fps seconds after the start. When the subject is free, it takes the newest frame that has
arrived and was not taken yet, and waits for the next one where there is none. Every older frame that was not taken is
dropped. The age is from a frame's moment to its result: with the wait, and with everything that the subject does.

This is the policy `newest` of `gapcam camera` (`gapcam_bench.camera_goals` measures its whole pipeline, with sinks):
its source keeps the newest frame in one place, and its network's thread takes it at the end of a turn. What differs:
there a thread of its own waits for the camera, here nobody has to, as the clock alone says which frame is the newest;
the hand-over between threads and whatever the sinks do is not in the age. Under the policy `all`, nothing is dropped: a
subject that is too slow would get ages without bound, so that there is nothing to measure.

Decoding is in the age, where the cell has it, because a frame of a network camera comes encoded. Here it is the same
thread's work, while `gapcam camera` decodes in the thread of its source. A frame keeps this one thread for decode +
rest, and those two, where each has a processor, for the longer of both: max(decode, rest). As long as decode + rest is
below 1 / fps that makes no difference; above it, drops and ages here are greater than those of `gapcam camera`. Without
"decode" among the cell's work (`--without decode`) frames arrive decoded, and drops and ages are of the rest alone:
less than those of `gapcam camera`, which lie between the two.

A frame's age is at least the subject's time, and as long as the subject keeps up (its time is below 1 / fps) not more,
and nothing is dropped. A subject that takes s seconds, longer than 1 / fps, drops all but every (s fps)-th frame on
average, with ages between s and s + 1 / fps.

With a batch there are as many cameras in step, of which each gives a frame at each moment; frames are counted, not
moments. MLPerf has no such scenario, and LoadGen cannot generate it: the generator is always gapcam's.
"""

from __future__ import annotations

from gapcam_bench.scenarios.driver import Driver
from gapcam_bench.scenarios.measured import Measured, ScenarioFacts
from gapcam_bench.scenarios.sample_log import SampleLog

LEAD_IN_S = 0.5
"""Frames of this time are run and not counted: the warm-up ran without pauses, a camera lets caches and clocks cool."""


def camera(driver: Driver, generator: str) -> Measured:
    """Measure a camera's frames.

    Args:
        driver: of the subject, warmed up.
        generator: the name of this load generator.
    """
    log, batch, fps, clock = SampleLog(), driver.cell.batch, driver.settings.fps, driver.clock
    start = clock.now_ns()
    lead_in = int(LEAD_IN_S * fps)  # frames
    counted_from = start + moment_ns(lead_in, fps)
    driver.begin(counted_from)
    taken = skipped = 0
    while not driver.enough(len(log), counted_from):
        frame = max(newest_frame(clock.now_ns() - start, fps), taken + 1)
        arrived = start + moment_ns(frame, fps)
        clock.sleep_until_ns(arrived)
        inference = driver.infer(batch)
        if frame > lead_in:
            skipped += frame - max(taken, lead_in) - 1
            log.add(arrived - counted_from, inference, age=inference.ended - arrived)
        taken = frame
    return log.measured(
        ScenarioFacts(
            generator=generator,
            frames_per_sample=batch,
            seconds=(inference.ended - counted_from) * 1e-9,
            rate=fps,
            offered=(taken - lead_in) * batch,
            dropped=skipped * batch,
        )
    )


def moment_ns(frame: int, fps: float) -> int:
    """When a frame arrives, in nanoseconds from the start."""
    return round(frame * 1e9 / fps)


def newest_frame(elapsed_ns: int, fps: float) -> int:
    """The last frame that has arrived by then; 0 where none has."""
    frame = int(elapsed_ns * fps / 1e9)
    if moment_ns(frame + 1, fps) <= elapsed_ns:  # a float's rounding
        return frame + 1
    return frame if moment_ns(frame, fps) <= elapsed_ns else frame - 1
