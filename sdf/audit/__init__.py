"""What no judge of single documents can see: the habits of a whole corpus, each with a number, a verdict and a way out.

An audit reads the committed shards once, counts over every row, and looks closely at a sample that fits in memory. Its
thresholds are where a reader would begin to notice, argued for beside each; they steer nothing by themselves. The bans
it proposes are for the next run: `sdf run --bans audit.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdf.audit.agreement import agreement
from sdf.audit.coverage import axes, principles
from sdf.audit.embedding import effective
from sdf.audit.findings import Finding, Verdict
from sdf.audit.people import names
from sdf.audit.phrases import shared_phrases
from sdf.audit.sample import Census, Sampled, census
from sdf.audit.shapes import closings, openings
from sdf.audit.spread import compression, distinct, near_duplicates, topics
from sdf.audit.tics import habits
from sdf.errors import UsageError
from sdf.job import Job
from sdf.manifest import Manifest
from sdf.storage import RunDir

__all__ = ["MAX_BANS", "Audit", "Change", "Finding", "Verdict", "audit", "changes", "read_audit"]

# More of them and a prompt becomes a catalogue of what it forbids.
MAX_BANS = 20


@dataclass(frozen=True, slots=True)
class Change:
    """A finding beside what an earlier audit found there."""

    name: str
    config: str
    unit: str
    before: float | None
    now: float | None
    verdict_before: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Audit:
    """`bans` are the worst findings' first, at most 20: what `--bans` reads. `n_sampled` texts were looked at closely.

    `changes` compares with an earlier audit, finding by finding, where one was given.
    """

    directory: str
    manifest: int
    n_documents: int
    n_sampled: int
    findings: tuple[Finding, ...]
    bans: tuple[str, ...]
    changes: tuple[Change, ...] = ()


def audit(run_dir: RunDir, job: Job, manifest: Manifest) -> Audit:
    """DamagedError names a shard that cannot be read. The same corpus gives the same audit."""
    counted = census(run_dir, manifest)
    findings = tuple(_findings(counted, job))
    return Audit(
        run_dir.root,
        manifest.number,
        counted.n_documents,
        sum(len(sampled.texts) for sampled in counted.samples.values()),
        findings,
        _bans(findings),
    )


def _findings(counted: Census, job: Job) -> Iterator[Finding]:
    for config, sampled in sorted(counted.samples.items()):
        yield from _of_texts(config, sampled, job)
    yield axes(counted, job.genres)
    yield principles(counted, [principle.id for principle in job.constitution.principles])
    yield from agreement(counted)


def _of_texts(config: str, sampled: Sampled, job: Job) -> Iterator[Finding]:
    texts, constitution = sampled.texts, job.constitution.text
    known = (job.recipe.assistant, job.recipe.maker, constitution)
    yield from openings(config, texts)
    yield from closings(config, texts)
    yield shared_phrases(config, texts, constitution)
    yield from habits(config, texts)
    yield names(config, texts, known)
    yield topics(config, texts, constitution)
    yield near_duplicates(config, texts, sampled.ids)
    yield distinct(config, texts)
    yield compression(config, texts)
    yield effective(config, texts)


def _bans(findings: tuple[Finding, ...]) -> tuple[str, ...]:
    """Of bad findings before those worth a look, the worst ban of each before the second worst of any."""
    ranked = sorted(
        (finding.verdict != "bad", place, number, ban)
        for number, finding in enumerate(findings)
        for place, ban in enumerate(finding.bans)
    )
    return tuple(dict.fromkeys(ban for *_, ban in ranked))[:MAX_BANS]


def changes(findings: Sequence[Finding], before: Mapping[str, Any]) -> tuple[Change, ...]:
    """Each finding beside the one of its name and config in `before`, an audit as --json printed it."""
    earlier = {(str(each["name"]), str(each["config"])): each for each in before["findings"]}
    found: list[Change] = []
    for each in findings:
        old = earlier.get((each.name, each.config))
        value, verdict = (None, "not found") if old is None else (old["value"], str(old["verdict"]))
        found.append(Change(each.name, each.config, each.unit, value, each.value, verdict, each.verdict))
    return tuple(found)


def read_audit(path: str) -> dict[str, Any]:
    """An audit as `--out` wrote it. UsageError when the file is none."""
    try:
        found: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        for each in found["findings"]:
            _ = (each["name"], each["config"], each["verdict"], each["value"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"--before {path}: not an audit ({error}); give a file that `sdf audit --out` wrote") from None
    return found
