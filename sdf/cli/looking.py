"""The commands on a corpus that is there."""

from __future__ import annotations

from typing import Annotated

import typer

from sdf.cli.app import Directory, Result, command
from sdf.cli.stopping import say


@command()
def status(directory: Directory) -> Result:
    """Where a corpus stands: committed, settled, rejected, who writes it."""
    from sdf import api
    from sdf.report.text import status_text

    found = api.status(directory)
    return Result(found, status_text(found))


@command(name="inspect")
def inspect_(directory: Directory) -> Result:
    """What is in a corpus: genres, lengths, principles, axes, rejections."""
    from sdf import api
    from sdf.report.text import inspection_text

    found = api.inspect(directory)
    return Result(found, inspection_text(found))


@command(name="show")
def show_(
    directory: Directory, id: Annotated[str, typer.Argument(metavar="ID", help="An id, or how it begins.")]
) -> Result:
    """One brief: its plan, prompts, answers and outcome."""
    from sdf import api
    from sdf.report.text import trace_text

    trace = api.show(directory, id)
    return Result(trace, trace_text(trace))


@command()
def verify(
    directory: Directory,
    replay: Annotated[bool, typer.Option("--replay", help="Fold the ledger again and compare bytes.")] = False,
) -> Result:
    """Every byte and count of a corpus; names each file that is not what was written."""
    from sdf import api
    from sdf.report.terminal import plain

    found = api.verify(directory, replay=replay)
    replayed = ", and the ledger replays to the same bytes" if replay else ""
    counts = f"{found.n_shards} shards, {found.n_documents:,} documents, {found.n_tokens:,} tokens"
    text = "\n".join(found.problems) if found.problems else f"{directory}: {counts}: all as written{replayed}"
    text += "".join(f"\n{each} (made good since: nothing committed needs it)" for each in found.made_good)
    return Result(found, plain(text), 1 if found.problems else 0)


@command()
def cancel(directory: Directory) -> Result:
    """Cancels the message batches that a run left going on; what they answered is collected by the next run."""
    from sdf import api

    made = api.cancel(directory, say=say)
    lines = [
        f"{batch}: canceled; what it answered already is billed, and the next run collects it"
        for batch in made.canceled
    ]
    lines += [
        f"{batch}: may be ours, since the reply to a batch was lost; look at it in the console"
        for batch in made.unclear
    ]
    lines += [f"{batch}: not known with this key; give that of the workspace that sent it" for batch in made.unknown]
    return Result(made, "\n".join(lines) or "no batch is going on")


@command()
def audit(
    directory: Directory,
    out: Annotated[str | None, typer.Option("--out", help="Write the audit there, for --bans and --before.")] = None,
    before: Annotated[str | None, typer.Option(help="An earlier audit to compare with.")] = None,
) -> Result:
    """What no judge of single texts sees: habits of the whole corpus, with verdicts and phrases to ban."""
    from sdf import api
    from sdf.report.audit import audit_text

    found = api.audit(directory, before=before, out=out)
    return Result(found, audit_text(found))


@command()
def gc(directory: Directory) -> Result:
    """Deletes files that the newest manifest does not name."""
    from sdf import api
    from sdf.report.terminal import plain

    deleted = api.gc(directory)
    return Result({"deleted": deleted}, plain("\n".join(deleted) or "nothing to delete"))


@command(name="export")
def export_(
    directory: Directory,
    to: Annotated[str, typer.Option("--to", help="mds (MosaicML streaming), jsonl, or tokens (ids for sdf.stream).")],
    out: Annotated[str, typer.Option("--out", help="The directory that appears when all of it is written.")],
    config: Annotated[list[str] | None, typer.Option(help="documents, chats, …; all that train, unless given.")] = None,
    columns: Annotated[str, typer.Option(help="all, or training for the text alone.")] = "all",
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", help="For tokens: a tokenizer.json, a Hugging Face directory, an encoding.")
    ] = "",
    file_mb: Annotated[int, typer.Option("--file-mb", help="MB at which a file is closed.")] = 64,
) -> Result:
    """The committed corpus for another loader; what is read is checked, what is written depends on it alone."""
    from sdf import api
    from sdf.report.terminal import plain

    made = api.export(
        directory, out, to=to, configs=config or [], columns=columns, tokenizer=tokenizer, file_mb=file_mb
    )
    lines = [
        f"{out}: {made.n_documents:,} documents, {made.n_tokens:,} tokens of manifest {made.manifest} "
        f"({made.state}) as {made.to}: {made.n_files:,} files, {made.size_bytes:,} bytes",
        *(["it was there already, whole"] if made.was_there else []),
    ]
    return Result(made, plain("\n".join(lines)))
