"""A Job: a recipe with everything it names read in. What a directory remembers, and what is sent to workers.

`recipe.json` holds it whole, so that a corpus can be re-assembled, extended and checked where neither the recipe
nor the genre files are at hand.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sdf import constitution as constitutions
from sdf import genres as genre_files
from sdf.bans import read_bans
from sdf.constitution import Constitution
from sdf.decontaminate import Evaluation, pin
from sdf.errors import ConstitutionError, DamagedError, GenreError, RecipeError
from sdf.frontmatter import near
from sdf.genres import Genre
from sdf.genres.model import STAGE
from sdf.mix import genres_of
from sdf.money.prices import Prices, builtin, example, load_prices
from sdf.recipe import CHATS_ONLY, DECIDES, DROPPED_SAMPLING, UNSAID, Decides, Recipe, load, place_of
from sdf.records import Seat, canonical_json, digest
from sdf.sources.corpora import principles_of
from sdf.storage import RunDir


@dataclass(frozen=True)
class Job:
    """A recipe with its constitution and its genres read in, genres in the order of the mix."""

    recipe: Recipe
    constitution: Constitution
    genres: tuple[Genre, ...]
    bans: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    prices: Prices = field(default_factory=builtin)
    cells: tuple[str, ...] = ()
    # Directories whose cost counts against the same cap: the other stages of its recipe.
    cap_with: tuple[RunDir, ...] = ()

    @property
    def seats(self) -> tuple[Seat, ...]:
        """Those whose models are asked, in the order in which a document needs them."""
        roles: list[Seat] = [step.role for genre in self.genres for step in genre.steps]
        return tuple(dict.fromkeys([*roles, "fallback"] if self.recipe.has_fallback else roles))

    def identity(self) -> dict[str, tuple[Decides, str]]:
        """What must agree for two jobs to share a directory: field -> (what it decides, its value as text)."""
        fields = self.recipe.model_dump(mode="json")
        found: dict[str, tuple[Decides, str]] = {
            name: (decides, json.dumps(fields[name], ensure_ascii=False))
            for name, decides in DECIDES.items()
            if decides != "run" and not _is_unsaid(self.recipe, name)
        }
        found["constitution"] = ("text", self.constitution.hash[:12])
        for genre in self.genres:
            found[f"genre {genre.key}"] = ("text", genre.hash)
            if genre.source is not None:
                found[f"source of {genre.key}"] = ("text", genre.source.lineage or genre.source.sha256 or "not pinned")
            packaging: list[Any] = [genre.kind, genre.dedup, dict(genre.emit), genre.checks.model_dump(mode="json")]
            if genre.emit_templates:
                packaging.append({column: each.source for column, each in genre.emit_templates.items()})
            found[f"checks and packaging of {genre.key}"] = ("corpus", digest(canonical_json(packaging))[:12])
        if self.cells:
            found["principles"] = ("text", ", ".join(self.cells))
        if self.bans:
            is_asked = any("bans" in genre.asks_with for genre in self.genres)
            found["bans"] = ("text" if is_asked else "corpus", digest(*self.bans)[:12])
        if self.evaluations:
            found["decontaminate"] = (
                "corpus",
                ", ".join(f"{each.name} {each.sha256[:12]}" for each in self.evaluations),
            )
        return found

    @property
    def hash(self) -> str:
        """Over everything that decides text or corpus; the target, the cluster and labels leave it alone."""
        identity = {name: value for name, (_, value) in self.identity().items() if name != "constitution"}
        return digest("recipe", canonical_json(identity), self.constitution.hash)

    def snapshot(self) -> bytes:
        """The job as a directory keeps it, whole: JSON, in recipe order."""
        content = {
            "recipe": self.recipe.model_dump(mode="json"),
            "constitution": {"source": self.constitution.source, "text": self.constitution.text},
            "genres": [genre_files.dump(genre) for genre in self.genres],
            "bans": list(self.bans),
            "cells": list(self.cells),
            "evaluations": [asdict(each) for each in self.evaluations],
        }
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def job_of_snapshot(data: bytes, path: str) -> Job:
    """The job a directory was made by. DamagedError when the file is not one."""
    try:
        content: dict[str, Any] = json.loads(data)
        recipe = Recipe.model_validate(content["recipe"])
        text, cells = content["constitution"], tuple(content.get("cells", ()))
        return Job(
            recipe,
            _only(constitutions.of_text(text["text"], text["source"]), cells),
            tuple(genre_files.restore(each) for each in content["genres"]),
            tuple(content.get("bans", ())),
            tuple(Evaluation(**each) for each in content.get("evaluations", ())),
            cells=cells,
        )
    except (ValueError, KeyError, TypeError, RecursionError, GenreError, ConstitutionError) as error:
        raise DamagedError(f"{path}: not a recipe as sdf writes it ({error}); restore the file from a copy") from None


def load_job(name: str, overrides: Mapping[str, Any]) -> Job:
    """The job of a recipe file with `overrides` laid over it; errors name the file and the line at fault."""
    try:
        return compile_job(load(name, overrides))
    except RecipeError as error:
        if not error.at:
            raise
        raise RecipeError(f"{place_of(name, overrides, error.at)}: {error}") from None


def compile_job(recipe: Recipe) -> Job:
    """Reads the constitution and the genres of the mix, and pins their sources by what they hold now.

    Errors name the file, and the nearest known genre.
    """
    if recipe.stages:
        raise RecipeError(f"{recipe.name} has stages, each of which is a job: {', '.join(recipe.stages)}")
    genres = genres_of(recipe)
    bans = read_bans(recipe.bans) if recipe.bans is not None else ()
    prices = load_prices(recipe.prices) if recipe.prices is not None else builtin()
    constitution = constitutions.load(recipe.constitution)
    cells = _cells(recipe, constitution)
    job = Job(recipe, _only(constitution, cells), genres, bans, pin(recipe.decontaminate), prices, cells=cells)
    _check_models(job)
    _check_forms(job)
    _check_prices(job)
    return job


def _check_models(job: Job) -> None:
    """Every seat has a model, every sampling value reaches it, and an engine of our own serves one model."""
    recipe = job.recipe
    asked = {seat: (recipe.backend_of(seat), recipe.model_of(seat)) for seat in job.seats}
    for backend, _ in asked.values():
        for name in DROPPED_SAMPLING.get(backend.provider, ()):
            if getattr(recipe, name) is not None:
                raise RecipeError(
                    f"{name}: the API of provider {backend.provider} takes it no longer; take it out of the recipe: "
                    "variety comes from axes, angles and names"
                )
    engines = {each for each in asked.values() if each[0].provider == "vllm"}
    if len(engines) > 1:
        models = " and ".join(sorted({model for _, model in engines}))
        raise RecipeError(
            f"provider vllm runs one engine in each worker, and the roles ask for several ({models}); "
            "serve the others with `vllm serve`, and give their roles provider openai"
        )


def _check_forms(job: Job) -> None:
    """No step in `form: completion` is asked of a provider that holds conversations alone."""
    for genre in job.genres:
        for step in genre.steps:
            asked: tuple[Seat, ...] = (step.role, "fallback") if job.recipe.has_fallback else (step.role,)
            for seat in asked:
                provider = job.recipe.backend_of(seat).provider
                if step.form == "completion" and provider in CHATS_ONLY:
                    raise RecipeError(
                        f"genre {genre.key}, step {step.name}: `form: completion` needs a base model, and provider "
                        f"{provider} has none; take the genre out of --mix, write `form: chat` in its file, or give "
                        f"{'its role' if seat != 'fallback' else 'the fallback'} provider openai or vllm"
                    )


def _check_prices(job: Job) -> None:
    """A cap binds what has a price alone."""
    if job.recipe.max_cost is None:
        return
    for seat in job.seats:
        provider, model = job.recipe.backend_of(seat).provider, job.recipe.model_of(seat)
        if job.prices.price_of(provider, model) is None:
            raise RecipeError(
                f"--max-cost: the price of {model} at {provider} is not known (table of {job.prices.date}), so no "
                "cap can hold; give it with --prices FILE, in dollars per million tokens, such as: "
                f"{example(provider, model)}"
            )


def _cells(recipe: Recipe, constitution: Constitution) -> tuple[str, ...]:
    """The principles a recipe restricts itself to, in the order of the constitution; () for all of them."""
    is_bank = isinstance(recipe.principles, str)
    if isinstance(recipe.principles, str) and recipe.principles.startswith(STAGE):
        return ()
    named = principles_of(recipe.principles) if isinstance(recipe.principles, str) else recipe.principles
    known = [each.id for each in constitution.principles]
    for place, name in enumerate(named):
        if name not in known:
            of = f"the corpus {recipe.principles}" if is_bank else "principles"
            raise RecipeError(
                f"{of}: no principle {name!r} in {constitution.source}{near(name, known)}",
                ("principles",) if is_bank else ("principles", place),
            )
    return tuple(name for name in known if name in named)


def _only(constitution: Constitution, cells: Collection[str]) -> Constitution:
    if not cells:
        return constitution
    return replace(constitution, principles=tuple(each for each in constitution.principles if each.id in cells))


def _is_unsaid(recipe: Recipe, name: str) -> bool:
    return name in UNSAID and getattr(recipe, name) == Recipe.model_fields[name].default
