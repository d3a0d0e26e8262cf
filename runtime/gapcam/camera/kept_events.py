"""Events of frames that were dropped: they go with the source's next frame."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace

from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.log_pace import LogPace

log = logging.getLogger("gapcam.camera")

GREATEST_EVENTS = 1000
"""Of one frame: more than that have piled up only where nothing has been written for hours."""


class KeptEvents:
    """What a mailbox of explained frames drops when it is full. An event is told late rather than never.

    Args:
        who: whose mailbox it is, for the log.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._log = LogPace()

    def drop_one(self, waiting: deque[ExplainedFrame]) -> bool:
        """Take out the oldest frame that has no events, or after which one of its source waits, which gets them.

        Args:
            waiting: oldest first.

        Returns:
            Whether there is one. Else each has events and is the only one of its source.
        """
        for place, frame in enumerate(waiting):
            if frame.events:
                source = frame.captured.source
                later = (n for n in range(place + 1, len(waiting)) if waiting[n].captured.source == source)
                heir = next(later, None)
                if heir is None:
                    continue
                waiting[heir] = self._with_events_of(frame, waiting[heir])
            del waiting[place]
            return True
        return False

    def _with_events_of(self, dropped: ExplainedFrame, heir: ExplainedFrame) -> ExplainedFrame:
        events = dropped.events + heir.events
        if len(events) > GREATEST_EVENTS:
            if (unsaid := self._log.due()) is not None:
                message = "%s: more than %d events wait; the oldest are lost%s"
                log.warning(message, self._who, GREATEST_EVENTS, unsaid)
            events = events[-GREATEST_EVENTS:]
        first = dropped.captured is heir.captured and not dropped.again  # which has not been written therefore
        return replace(heir, events=events, again=heir.again and not first)
