"""A run as it is watched: a live panel for a person, one line per interval for a pipe. Both go to stderr.

Rates are measured over the last minute, so that a resumed run does not count what it found, nor a stage what the one
before it made. Neither reporter has a part in the result: they are told, and may be told as often as one likes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from sdf.grants.spent import cost_line
from sdf.providers.batch_log import UnderWay
from sdf.report.terminal import plain_line
from sdf.story import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

INTERVAL = 10.0
# Between two lines that say the same: batches take hours.
QUIET = 300.0
WINDOW = 60.0
REDRAWS_PER_SECOND = 4

Clock = Callable[[], float]


class Reporter(Protocol):
    """A context manager that is told of progress; leaving it says where the run stood last."""

    def __enter__(self) -> Reporter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def tell(self, progress: Progress) -> None: ...


def reporter(stream: TextIO, *, clock: Clock = time.monotonic) -> Reporter:
    """A panel when the stream is a terminal, else lines."""
    return Panel(stream, clock=clock) if stream.isatty() else Lines(stream, clock=clock)


@dataclass(slots=True)
class Rate:
    """Tokens a second over the last WINDOW seconds of the clock."""

    seen: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    def add(self, now: float, n_tokens: int) -> None:
        self.seen.append((now, n_tokens))
        while len(self.seen) > 2 and now - self.seen[1][0] > WINDOW:
            self.seen.popleft()

    @property
    def per_second(self) -> float:
        """0.0 until two moments are known."""
        if len(self.seen) < 2 or self.seen[-1][0] <= self.seen[0][0]:
            return 0.0
        (first, before), (last, now) = self.seen[0], self.seen[-1]
        return (now - before) / (last - first)

    def seconds_left(self, progress: Progress) -> float | None:
        """None while nothing moves."""
        return max(0, _left(progress)) / self.per_second if self.per_second > 0 else None


class Lines:
    """One line when the run begins, one per INTERVAL while it moves, else one per QUIET, and a last one when it has
    moved since."""

    def __init__(self, stream: TextIO, *, clock: Clock = time.monotonic, interval: float = INTERVAL) -> None:
        self._stream, self._clock, self._interval = stream, clock, interval
        self._rate = Rate()
        self._last: Progress | None = None
        self._shown: Progress | None = None
        self._shown_at = float("-inf")

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last is not None and self._last != self._shown:
            self._print(self._last)

    def tell(self, progress: Progress) -> None:
        now = self._clock()
        if self._last is not None and _are_of_two(self._last, progress):
            self._rate, self._shown_at = Rate(), float("-inf")
        self._last = progress
        if now - self._shown_at >= (self._interval if progress != self._shown else QUIET):
            self._print(progress)

    def _print(self, progress: Progress) -> None:
        self._shown, self._shown_at = progress, self._clock()
        self._rate.add(self._clock(), progress.n_tokens)
        print(line(progress, self._rate), file=self._stream, flush=True)


class Panel:
    """A live panel: genres against their targets, rate, rejections by reason, time left."""

    def __init__(self, stream: TextIO, *, clock: Clock = time.monotonic) -> None:
        from rich.console import Console
        from rich.live import Live

        self._clock = clock
        self._rate = Rate()
        self._progress: Progress | None = None
        self._measured = float("-inf")
        self._live = Live(
            console=Console(file=stream),
            get_renderable=self._renderable,
            refresh_per_second=REDRAWS_PER_SECOND,
            redirect_stdout=False,
        )

    def __enter__(self) -> Panel:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def tell(self, progress: Progress) -> None:
        now = self._clock()
        if self._progress is not None and _are_of_two(self._progress, progress):
            self._rate, self._measured = Rate(), float("-inf")
        self._progress = progress
        if now - self._measured >= 1.0:
            self._measured = now
            self._rate.add(now, progress.n_tokens)

    def _renderable(self) -> RenderableType:
        return "starting …" if self._progress is None else panel(self._progress, self._rate)


def _are_of_two(before: Progress, now: Progress) -> bool:
    """Of two corpora: the stages of a recipe follow one another in one report."""
    of_before, of_now = ((each.target_tokens, list(each.genres)) for each in (before, now))
    return of_before != of_now or now.n_settled < before.n_settled


def line(progress: Progress, rate: Rate) -> str:
    """One line of progress, without the genres: their shares are those of the total to within a document."""
    parts = [
        _of_target(progress),
        f"{rate.per_second:,.0f} tokens/s",
        f"{progress.n_settled:,} settled",
    ]
    if progress.n_shards:
        parts.append(f"{progress.n_shards:,} shards")
    if progress.cost is not None and progress.cost.is_worth_saying:
        parts.append(cost_line(progress.cost))
    if progress.rejected:
        parts.append(f"rejected {reasons(progress)}")
    if progress.under_way:
        parts.append(waiting(progress.under_way))
    elif _left(progress) > 0:
        parts.append(_ends(progress, rate))
    return plain_line(" · ".join(parts))


def panel(progress: Progress, rate: Rate) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for genre, (n_tokens, n_documents, target) in progress.genres.items():
        done, of = progress.briefs.get(genre, (n_tokens, target))
        bar = ProgressBar(total=max(1.0, of), completed=min(done, of), width=28)
        counts = f"{done:>12,} of {of:,.0f} {'briefs' if progress.briefs else 'tokens'}"
        grid.add_row(Text(plain_line(genre)), bar, Text(counts), Text(f"{n_documents:,} documents"))
    grid.add_row(
        Text("all"),
        Text(f"{rate.per_second:,.0f} tokens/s"),
        Text(f"{' ' * 5}{_of_target(progress)}"),
        Text(_ends(progress, rate)),
    )
    if progress.cost is not None and progress.cost.is_worth_saying:
        grid.add_row(Text("cost"), Text(cost_line(progress.cost)))
    if progress.rejected:
        grid.add_row(Text("rejected"), Text(plain_line(reasons(progress))))
    if progress.under_way:
        grid.add_row(Text("batches"), Text(plain_line(waiting(progress.under_way))))
    return grid


def reasons(progress: Progress) -> str:
    """ "3.1 % (duplicate 40, too_short 3)": of the folded briefs, by reason, the most frequent first."""
    n_documents = sum(n_documents for _, n_documents, _ in progress.genres.values())
    n_rejected = sum(progress.rejected.values())
    by_count = sorted(progress.rejected.items(), key=lambda item: (-item[1], item[0]))
    share = n_rejected / max(1, n_rejected + n_documents)
    return f"{share:.1%} ({', '.join(f'{reason} {count:,}' for reason, count in by_count)})"


def waiting(under_way: Sequence[UnderWay], now: Callable[[], float] = time.time) -> str:
    """ "3 batches with 12,412 requests under way, the oldest for 1 h 12 min"."""
    lost = sum(each.batch is None for each in under_way)
    searched = f", {lost} of them looked for since a reply was lost" if lost else ""
    return f"{batches(under_way)} under way{searched}, the oldest for {duration(max(0.0, now() - under_way[0].at))}"


def left(under_way: Sequence[UnderWay], out: str) -> str:
    """What a run leaves at the API when it ends."""
    return (
        f"{batches(under_way)} stay submitted, and are billed as far as they are answered; `sdf run` collects what it "
        f"needs of them, `sdf cancel {out}` stops them"
    )


def batches(under_way: Sequence[UnderWay]) -> str:
    n_requests = sum(each.n_requests for each in under_way)
    return f"{len(under_way)} batch{'es' if len(under_way) > 1 else ''} with {n_requests:,} requests"


def duration(seconds: float | None) -> str:
    """ "?", "8 s", "3 min", "2 h 05 min"."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _briefs(progress: Progress) -> tuple[int, int]:
    """Folded, and all there are."""
    return sum(done for done, _ in progress.briefs.values()), sum(of for _, of in progress.briefs.values())


def _left(progress: Progress) -> float:
    """Tokens still to come; where all is made that there is, at what a brief has brought so far."""
    if not progress.briefs:
        return progress.target_tokens - progress.n_tokens
    done, of = _briefs(progress)
    return (of - done) * max(1, progress.n_tokens) / max(1, done)


def _of_target(progress: Progress) -> str:
    if not progress.briefs:
        share = progress.n_tokens / max(1, progress.target_tokens)
        return f"{progress.n_tokens:,} of {progress.target_tokens:,} tokens ({share:.1%})"
    done, of = _briefs(progress)
    return f"{progress.n_tokens:,} tokens, {done:,} of {of:,} briefs ({done / max(1, of):.1%})"


def _ends(progress: Progress, rate: Rate) -> str:
    return f"about {duration(rate.seconds_left(progress))} left"
