"""An audit as text: the findings that want attention first, each with its example, then the rest in a table."""

from __future__ import annotations

from sdf.audit import Audit, Change, Finding
from sdf.report.terminal import plain
from sdf.report.text import table


def audit_text(report: Audit) -> str:
    head = (
        f"{report.directory}: manifest {report.manifest}, {report.n_documents:,} documents, "
        f"{report.n_sampled:,} of them read closely"
    )
    parts = [
        head,
        table([("finding", "config", "value", "verdict", "look from", "bad from"), *map(_row, report.findings)]),
    ]
    wanting = [each for each in report.findings if each.verdict in ("bad", "look")]
    parts += [_told(each) for each in sorted(wanting, key=lambda each: each.verdict != "bad")]
    if report.bans:
        parts.append(
            "to ban in the next run (`--bans` with the file of --out):\n" + "\n".join(f"  {ban}" for ban in report.bans)
        )
    if report.changes:
        rows = [
            _change(each) for each in report.changes if each.before != each.now or each.verdict_before != each.verdict
        ]
        parts.append("since the audit before:\n" + table([("finding", "config", "before", "now", "verdict"), *rows]))
    return plain("\n\n".join(parts))


def _row(finding: Finding) -> tuple[str, ...]:
    value = "-" if finding.value is None else _number(finding.value, finding.unit)
    limits = ("-" if each is None else _number(each, finding.unit) for each in (finding.look, finding.bad))
    return (finding.name, finding.config, value, finding.verdict, *limits)


def _told(finding: Finding) -> str:
    about = [each for each in (finding.example, finding.reason) if each]
    return "\n  ".join([f"{finding.verdict}: {finding.name} ({finding.config})", *about])


def _change(change: Change) -> tuple[str, ...]:
    before, now = ("-" if each is None else _number(each, change.unit) for each in (change.before, change.now))
    verdict = (
        change.verdict if change.verdict == change.verdict_before else f"{change.verdict_before} -> {change.verdict}"
    )
    return (change.name, change.config, before, now, verdict)


def _number(value: float, unit: str) -> str:
    return f"{value:.1%}" if unit == "share" else f"{value:.2f}"
