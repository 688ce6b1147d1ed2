"""Recipes in stages: a corpus for each, made in order in one directory, where a later one may read an earlier one.

    OUT/stages.json        the stages, in the order in which a training job reads them
    OUT/1-documents/       an ordinary corpus: whatever works on one works on it
    OUT/2-chat/
    OUT/forecast/          what a forecast asked and read of stages that were not made then

A stage is a recipe of its own, so nothing else of the machine knows of stages; what they share is told once. The price
is that a stage begins when the one before it is whole, with a run's start and end for each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdf import genres as genre_files
from sdf.directory import STAGES
from sdf.errors import DamagedError, Missing, RecipeChanged, RecipeError
from sdf.frontmatter import near
from sdf.genres import Genre
from sdf.genres.model import STAGE
from sdf.manifest import ALL
from sdf.mix import check_ablated
from sdf.recipe import ANY_GENRE, Recipe, StageEntry
from sdf.shards.file import COLUMNS
from sdf.storage import RunDir

FORMAT = 1

SAMPLED, READ = "forecast/sampled", "forecast/read"

# Of a recipe's name, so that the stage's fits beside it.
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: `recipe` is an ordinary one, whose sources may still say `stage:NAME`."""

    name: str
    number: int
    share: float
    recipe: Recipe

    @property
    def directory(self) -> str:
        return f"{self.number}-{self.name}"

    def inside(self, out: RunDir) -> RunDir:
        return RunDir(f"{out.root}/{self.directory}")

    def sampled_in(self, out: RunDir) -> RunDir:
        """Where a forecast asks its first briefs while a stage it reads is not made: its run reuses the answers."""
        return RunDir(f"{out.root}/{SAMPLED}/{self.directory}")

    def read_in(self, out: RunDir) -> RunDir:
        """Where a forecast keeps its first documents, for the stages that read it."""
        return RunDir(f"{out.root}/{READ}/{self.directory}")

    @property
    def reads(self) -> dict[str, str]:
        """Genre -> the earlier stage whose corpus it reads."""
        paths = self.recipe.sources.items()
        return {genre: path.removeprefix(STAGE) for genre, path in paths if path.startswith(STAGE)}

    @property
    def needs(self) -> frozenset[str]:
        """The earlier stages it is made from: those it reads, and the one whose principles it takes."""
        named = self.recipe.principles
        paths = [*self.recipe.sources.values(), *([named] if isinstance(named, str) else ())]
        return frozenset(path.removeprefix(STAGE) for path in paths if path.startswith(STAGE))


def split(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of a recipe; () when it has none. RecipeError for what no stage can be made of, with its place."""
    if not recipe.stages:
        return ()
    known = genre_files.discover([Path(each) for each in recipe.genres_dir])
    _check_genres(recipe, known)
    if recipe.tokens == ALL:
        raise RecipeError("tokens: all cannot be split among stages; give a number, such as 20M", ("tokens",))
    total = sum(entry.share for entry in recipe.stages.values())
    found: list[Stage] = []
    for number, (name, entry) in enumerate(recipe.stages.items(), 1):
        made = _recipe_of(recipe, name, entry, known, list(recipe.stages)[: number - 1], entry.share / total)
        found.append(Stage(name, number, entry.share / total, made))
    _check_columns(found, known)
    return tuple(found)


def resolved(stage: Stage, made: Mapping[str, RunDir]) -> Recipe:
    """The stage's recipe with the directories of the stages it is made from; one that is not among them stays as it is
    named."""
    places = {f"{STAGE}{name}": run_dir.root for name, run_dir in made.items()}
    principles = stage.recipe.principles
    given: dict[str, Any] = {
        "sources": {genre: places.get(path, path) for genre, path in stage.recipe.sources.items()},
        "principles": places.get(principles, principles) if isinstance(principles, str) else principles,
    }
    return stage.recipe.changed(given)


def keep(out: RunDir, stages: Sequence[Stage]) -> None:
    """Writes the list of stages. RecipeChanged when the directory holds another list, or a corpus of its own."""
    if out.exists(RunDir.recipe):
        raise RecipeChanged(f"{out.root}: holds a corpus that was not made in stages; give another --out")
    names = [stage.name for stage in stages]
    before = [each.name for each in kept(out)]
    if before != names[: len(before)]:
        raise RecipeChanged(
            f"{out.root} was made in the stages {', '.join(before)}; these are {', '.join(names)}: give another --out"
        )
    listed = [
        {"name": each.name, "directory": each.directory, "share": each.share, "target_tokens": each.recipe.tokens}
        for each in stages
    ]
    data = (json.dumps({"format": FORMAT, "stages": listed}, indent=1) + "\n").encode()
    if not out.exists(STAGES) or out.read(STAGES) != data:
        out.write(STAGES, data)


@dataclass(frozen=True, slots=True)
class Kept:
    """A stage as a directory lists it."""

    name: str
    run_dir: RunDir
    sampled: RunDir


def kept(out: RunDir) -> tuple[Kept, ...]:
    """The stages of a directory, in order; () when it was not made in stages. DamagedError for a torn list."""
    try:
        data = out.read(STAGES)
    except Missing:
        return ()
    try:
        listed = json.loads(data)["stages"]
        names = [(str(each["name"]), str(each["directory"])) for each in listed]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(
            f"{out.root}/{STAGES}: not a list of stages ({error!r}); run the same command again"
        ) from None
    for name, directory in names:
        if directory.partition("-")[2] != name or not directory.partition("-")[0].isdecimal() or "/" in directory:
            raise DamagedError(
                f"{out.root}/{STAGES}: {directory!r} is no directory of a stage; run the same command again"
            )
    return tuple(
        Kept(name, RunDir(f"{out.root}/{directory}"), RunDir(f"{out.root}/{SAMPLED}/{directory}"))
        for name, directory in names
    )


def _check_genres(recipe: Recipe, known: Mapping[str, Genre]) -> None:
    mixes = [(name, genre) for name, entry in recipe.stages.items() for genre in entry.mix]
    for name, genre in mixes:
        if genre not in known:
            raise RecipeError(
                f"stage {name}: unknown genre {genre!r} in the mix{near(genre, known)}", ("stages", name, "mix", genre)
            )
    every = [known[genre] for _, genre in mixes]
    for place, step in enumerate(recipe.ablate):
        check_ablated(every, step, ("ablate", place))
    reading = [genre.key for genre in every if genre.source is not None]
    for genre in recipe.sources:
        if genre not in reading and not (genre == ANY_GENRE and reading):
            raise RecipeError(f"sources: no genre {genre!r} that reads rows{near(genre, reading)}", ("sources", genre))


def _recipe_of(
    recipe: Recipe, name: str, entry: StageEntry, known: Mapping[str, Genre], before: Sequence[str], share: float
) -> Recipe:
    sources = _sources(recipe, name, entry, known, before)
    own = [known[genre] for genre in entry.mix]
    rewrites = {step.name for genre in own for step in genre.steps if step.rewrites is not None}
    given: dict[str, Any] = {
        "name": f"{recipe.name[: LONGEST_NAME - len(name) - 1]}-{name}",
        "stages": {},
        "mix": entry.mix,
        "sources": sources,
        "allow": (*recipe.allow, *entry.allow),
        "checks_off": recipe.checks_off if entry.checks_off is None else entry.checks_off,
        "ablate": tuple(step for step in recipe.ablate if step in rewrites),
        "tokens": max(1, round(recipe.tokens * share)),
        "principles": _principles(recipe, before),
    }
    return recipe.changed(given)


def _principles(recipe: Recipe, before: Sequence[str]) -> str | tuple[str, ...]:
    """A stage that makes a bank of principles, and those before it, take all of them."""
    named = recipe.principles
    if not isinstance(named, str) or not named.startswith(STAGE):
        return named
    bank = named.removeprefix(STAGE)
    if bank not in recipe.stages:
        raise RecipeError(f"principles: no stage {bank!r}{near(bank, recipe.stages)}", ("principles",))
    return named if bank in before else ()


def _sources(
    recipe: Recipe, name: str, entry: StageEntry, known: Mapping[str, Genre], before: Sequence[str]
) -> dict[str, str]:
    """Of the genres in this stage's mix: what the stage says, else what the recipe says."""
    common = {**recipe.sources, **entry.sources}
    unread = [genre for genre in entry.mix if known[genre].source is not None]
    found: dict[str, str] = {}
    for genre in unread:
        source = known[genre].source
        names_none = source is not None and source.path is None
        path = common.get(genre) or (common.get(ANY_GENRE) if names_none else None)
        if path is not None:
            found[genre] = path
    for genre in entry.sources:
        if genre not in unread and genre != ANY_GENRE:
            at = ("stages", name, "sources", genre)
            raise RecipeError(f"stage {name}: no genre {genre!r} in its mix that reads rows{near(genre, unread)}", at)
    for genre, path in found.items():
        stage = path.removeprefix(STAGE)
        if path.startswith(STAGE) and stage not in before:
            raise RecipeError(
                f"stage {name}: {genre} reads the stage {stage!r}, which is not made before it{near(stage, before)}",
                ("stages", name, "sources", genre) if genre in entry.sources else ("sources",),
            )
    return found


def _check_columns(stages: Sequence[Stage], known: Mapping[str, Genre]) -> None:
    """What a stage will hold is known by its kinds: a genre that needs other columns is named at once."""
    by_name = {stage.name: stage for stage in stages}
    for stage in stages:
        for key, read in stage.reads.items():
            source = known[key].source
            configs = sorted({known[each].config for each in by_name[read].recipe.mix})
            wanted = set(source.columns if source is not None else ())
            if not any(wanted <= set(COLUMNS[config].names) for config in configs):
                lacking = sorted(wanted - {name for config in configs for name in COLUMNS[config].names})
                raise RecipeError(
                    f"stage {stage.name}: {key} ({known[key].path}:{source.line if source else 1}) reads "
                    f"{', '.join(sorted(wanted))} of the stage {read}, whose {' and '.join(configs)} have no column "
                    f"{', '.join(lacking) or 'all of them together'}",
                    ("stages", stage.name, "sources"),
                )
