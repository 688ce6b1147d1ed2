"""The ledger folded again, in one process and without a model: into another corpus, or to prove this one."""

from __future__ import annotations

from dataclasses import replace

from sdf.assemble import Terms
from sdf.job import Job
from sdf.ledger import LedgerView, read_ledger
from sdf.manifest import Manifest
from sdf.reading import Reader
from sdf.records import Usage
from sdf.shards import publish, read_manifest, write_rejections
from sdf.shards.card import write_card
from sdf.storage import RunDir
from sdf.story import Outcome, Story, facts_of


def fold_ledger(job: Job, terms: Terms, reader: Reader, view: LedgerView) -> Story:
    """The story as far as the ledger's receipts tell it, in this process, nothing written."""
    measured = replace(view, receipts=list(reader.measure(view.receipts)))
    story = Story(job, terms, None, measured)
    while pairs := story.fold.advance():
        story.fold.learn(reader.compare(pairs))
    return story


def assemble(job: Job, terms: Terms, ledger: RunDir, out: RunDir, view: LedgerView) -> Outcome:
    """Shards and manifest in `out` from the answers in `ledger`: no model is asked."""
    reader = Reader(job, ledger)
    story = fold_ledger(job, terms, reader, view)
    for cut in story.fold.take_full() + story.fold.short():
        story.commit(cut, reader.write(out, cut))
    before = read_manifest(out)
    manifest = story.manifest("complete", before)
    if before is None or before.shards != manifest.shards:
        write_rejections(out, manifest.number, story.fold.rejections)
        publish(out, manifest)
    else:
        manifest = before
    write_card(out, manifest, facts_of(job))
    return Outcome(manifest, story.fold.finished, story.unmet, 0, Usage(), 0, Usage())


def replay(job: Job, terms: Terms, run_dir: RunDir, manifest: Manifest) -> list[str]:
    """Folds the ledger in this process and compares every committed shard's bytes; names those that differ."""
    reader = Reader(job, run_dir)
    story = fold_ledger(job, terms, reader, read_ledger(run_dir))
    cuts = {(cut.config, cut.split, cut.number): cut for cut in story.fold.take_full() + story.fold.short()}
    problems: list[str] = []
    for shard in manifest.shards:
        cut = cuts.pop((shard.config, shard.split, shard.number), None)
        if cut is None or len(cut.receipts) < shard.n_rows:
            problems.append(f"{run_dir.root}/{shard.path}: the ledger does not hold all its documents")
        # A growing corpus may have been committed with a short shard that the ledger has since outgrown.
        elif reader.sha256(replace(cut, receipts=cut.receipts[: shard.n_rows])) != shard.sha256:
            problems.append(f"{run_dir.root}/{shard.path}: its bytes are not those that the ledger replays to")
    if manifest.state == "complete":
        problems += [f"{run_dir.root}: the ledger replays to a shard {key} that is not committed" for key in cuts]
    return problems
