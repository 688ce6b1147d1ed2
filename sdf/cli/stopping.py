"""What is said meanwhile, and how a run is stopped by signals."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdf.pipeline import Stop
    from sdf.story import Progress

EXIT_SIGNAL = 128


def say(text: str) -> None:
    from sdf.report.terminal import plain

    print(plain(text), file=sys.stderr, flush=True)


@dataclass(slots=True)
class Last:
    """A run's last word on where it stands, handed on to whoever shows it."""

    out: str
    tells: Callable[[Progress], None] = lambda _: None
    progress: Progress | None = None

    def tell(self, progress: Progress) -> None:
        self.progress = progress
        self.tells(progress)

    def say_what_is_left(self) -> None:
        from sdf.report.progress import left

        if self.progress is not None and self.progress.under_way:
            say(left(self.progress.under_way, self.out))


@contextmanager
def leaving(out: str) -> Generator[Last]:
    """However the run ends, it says what goes on without it."""
    last = Last(out)
    try:
        yield last
    finally:
        last.say_what_is_left()


@contextmanager
def signals(stop: Stop, last: Last) -> Generator[list[int]]:
    """The first SIGINT or SIGTERM asks for a drain, the second ends the process at once. Yields those caught."""
    caught: list[int] = []

    def on_signal(number: int, _: Any) -> None:
        if caught:
            try:
                last.say_what_is_left()
            finally:
                _abort(EXIT_SIGNAL + number)
        caught.append(number)
        say(f"{signal.Signals(number).name}: finishing what is in flight, then committing; once more to abort")
        stop.request()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _abort(exit_code: int) -> None:
    if sys.stderr.isatty():
        # The live panel hides the cursor.
        sys.stderr.write("\x1b[?25h\n")
    sys.stderr.flush()
    os._exit(exit_code)
