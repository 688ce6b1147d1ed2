"""A genre without one of its rewrites: the version before it stands wherever the new one was read or emitted.

An arm of an ablation is a genre of its own only where a model is asked something else for it. When no later step reads
what is left out, every request is as it was, and so are the hash of the genre and the ids of its documents: the arm is
folded from the same answers. Otherwise the hash names what is left out, and other briefs are asked.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sdf.genres.model import Genre, Step
from sdf.records import digest


def ablated(genre: Genre, names: Collection[str]) -> Genre:
    """The genre without those of the named steps that it has and that rewrite an earlier one."""
    left_out = tuple(step for step in genre.steps if step.name in names and step.rewrites is not None)
    if not left_out:
        return genre
    steps = tuple(step for step in genre.steps if step not in left_out)
    read = sorted(each.name for each in left_out if any(each.name in step.reads for step in steps))
    arm = replace(
        genre,
        steps=steps,
        left_out=(*genre.left_out, *left_out),
        hash=digest("ablated", genre.hash, *read) if read else genre.hash,
    )
    return replace(arm, emit={column: arm.ablated.get(origin, origin) for column, origin in genre.emit.items()})


def depending(genre: Genre, names: Collection[str]) -> dict[str, Step]:
    """The steps whose prompts come out otherwise without `names`, by name: those that read them, and so on."""
    changed: dict[str, Step] = {}
    for step in genre.steps:
        if step.name not in names and step.reads & {*names, *changed}:
            changed[step.name] = step
    return changed
