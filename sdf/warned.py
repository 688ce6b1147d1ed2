"""Warnings of workers, brought to whoever watches the run: nobody reads the log of a process on another machine.

What a worker's process warned of travels with every exchange, and the driver says each once, whichever workers met it.
Errors travel by themselves. The trade-off: only the first `MOST` different warnings of a process are told.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

MOST = 200


class Kept(logging.Handler):
    """Keeps what this package warns of, each once, in order."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: dict[str, None] = {}

    @classmethod
    def of_this_process(cls) -> Kept:
        kept = cls()
        logging.getLogger(__package__).addHandler(kept)
        return kept

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self._texts)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING and len(self._texts) < MOST:
            self._texts.setdefault(record.getMessage())


class Said:
    """What the driver has passed on; shared by all that it hears workers through."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._texts: set[str] = set()

    def hear(self, texts: Iterable[str]) -> None:
        """Warns of what is new."""
        for text in texts:
            if text not in self._texts:
                self._texts.add(text)
                self._log.warning("%s", text)
