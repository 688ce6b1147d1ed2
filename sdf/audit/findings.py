"""A finding: one number about a whole corpus, what it should be and why, an example, and what to ask for next time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "look", "bad", "not judged"]

# A share of fewer texts is an accident more often than a habit.
FEWEST = 40
# And so is anything that fewer texts than this have in common.
FEWEST_ALIKE = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """`value` is a share from 0 to 1 unless `unit` says otherwise; None where there was nothing to measure.

    `look` and `bad` are the values from which (upwards, or downwards where `bad` is lower) the verdict changes, and
    `reason` says why there. `bans` are for a prompt, worst first; phrases among them are checked word for word too.
    """

    name: str
    config: str
    value: float | None
    unit: str
    verdict: Verdict
    look: float | None
    bad: float | None
    reason: str
    example: str = ""
    bans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a value becomes worth a look, and where it is bad. Falling when `bad` is the lower one."""

    look: float
    bad: float
    reason: str

    def verdict(self, value: float) -> Verdict:
        sign = 1 if self.bad >= self.look else -1
        if sign * value >= sign * self.bad:
            return "bad"
        return "look" if sign * value >= sign * self.look else "ok"

    def finding(
        self,
        name: str,
        config: str,
        value: float | None,
        *,
        unit: str = "share",
        n: int = FEWEST,
        example: str = "",
        bans: tuple[str, ...] = (),
    ) -> Finding:
        """`n` texts were looked at: too few are not judged. A ban belongs to a verdict that is not ok."""
        if value is None or n < FEWEST:
            seen = None if value is None else round(value, 4)
            return Finding(name, config, seen, unit, "not judged", self.look, self.bad, self.reason, example)
        verdict = self.verdict(value)
        shown = bans if verdict != "ok" else ()
        return Finding(name, config, round(value, 4), unit, verdict, self.look, self.bad, self.reason, example, shown)


def shortened(text: str, n_chars: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= n_chars else line[: n_chars - 1] + "…"
