"""What a run cost, as a person reads it: here and in all, what has no price, what caches saved."""

from __future__ import annotations

from sdf.grants.spent import Cost, cost_line, dollars
from sdf.records import Usage
from sdf.story import Outcome


def unpriced_line(cost: Cost) -> str | None:
    """What the cost leaves out, and the way to have it."""
    if not (cost.n_unpriced or cost.unpriced):
        return None
    answers = f"{cost.n_unpriced:,} answers" if cost.n_unpriced else f"answers of {', '.join(cost.unpriced)}"
    return f"the price of {answers} is not known; a file given with --prices tells it"


def cache_line(usage: Usage) -> str | None:
    """ "91.2% of the prompt tokens read from a cache"; None where no cache was used."""
    n_prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    if not usage.cache_read_tokens:
        return None
    written = f", {usage.cache_write_tokens / n_prompt:.1%} written to it" if usage.cache_write_tokens else ""
    return f"{usage.cache_read_tokens / n_prompt:.1%} of the prompt tokens read from a cache{written}"


def outcome_lines(outcome: Outcome) -> list[str]:
    """What a run cost: here and in all, again, and what caches saved. Nothing where nobody bills."""
    cost = outcome.cost
    if cost is None or not cost.is_worth_saying:
        return []
    lines = [f"{cost_line(cost)} in all, {dollars(cost.here)} of it by this run"]
    if cost.n_unpriced and not cost.here:
        lines = [cost_line(cost)]
    if outcome.rebilled != Usage():
        n_tokens = outcome.rebilled.input_tokens + outcome.rebilled.output_tokens
        lines.append(f"{n_tokens:,} tokens billed again, after replies or workers that were lost")
    lines += [line for line in (unpriced_line(cost), cache_line(outcome.usage)) if line is not None]
    return lines
