"""How a run begins: nobody's directory becomes another's while models are looked at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support import make_job

from sdf.crew import InProcess
from sdf.directory import job_of, occupy
from sdf.errors import Superseded
from sdf.launch import carry_out
from sdf.pipeline import Stop
from sdf.preflight import Finding
from sdf.storage import RunDir
from sdf.storage.lease import Holder


def test_a_run_that_was_superseded_while_it_looked_ahead_leaves_the_directory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path)
    other = replace(job, recipe=job.recipe.changed({"seed": 7}))
    run_dir = RunDir(tmp_path / "out")

    async def slowly(crew: InProcess) -> list[Finding]:
        # A server that does not answer for longer than a silent lease lasts: another run has taken over.
        assert run_dir.put_if_absent(run_dir.lease(2), Holder.this_process({}).to_json())
        occupy(run_dir, other, str)
        return []

    monkeypatch.setattr(InProcess, "preflight", slowly)
    with pytest.raises(Superseded, match="a newer run took this directory over"):
        carry_out(job, run_dir, (), Stop(), lambda _: None, lambda _: None)
    assert job_of(run_dir).hash == other.hash
