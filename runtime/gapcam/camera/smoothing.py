"""The exponential average over time, with a time constant in seconds.

    y += (1 - exp(-dt / tau)) (x - y)

This is the response of a first-order low-pass filter to an input that is x during the dt seconds before each frame, so
that frames may come as irregularly as they like: one step of dt equals two of dt/2 with the same x. A step of the input
is followed by 63 % after tau seconds, by 95 % after 3 tau.
"""

from __future__ import annotations

from math import expm1

from gapcam.cam import FloatArray


def weight_of_newest(seconds: float, time_constant_s: float) -> float:
    """What part of the average a value makes up that has lasted so many seconds: 1 without a time constant."""
    return 1.0 if time_constant_s <= 0 else -expm1(-seconds / time_constant_s)


class ExponentialAverage:
    """Of scores or of a map. The first value is taken as it is.

    Args:
        time_constant_s: seconds, 0 for none: each value is then its own average, and is handed back itself.
    """

    def __init__(self, time_constant_s: float) -> None:
        self._time_constant_s = time_constant_s
        self._value: FloatArray | None = None
        self._at = 0.0

    def update(self, value: FloatArray, at: float) -> FloatArray:
        """Take a value.

        Args:
            value: float32 of any shape; one of another shape than before starts anew. It is kept, not copied.
            at: the moment it was measured, in seconds, no earlier than the one before.

        Returns:
            The average, of the same shape. Not to be written to.
        """
        before, self._value = self._value, value
        if before is not None and before.shape == value.shape and self._time_constant_s > 0:
            weight = weight_of_newest(at - self._at, self._time_constant_s)
            self._value = before + weight * (value - before)
            self._value.flags.writeable = False
        self._at = at
        return self._value
