"""Where workers go in a cluster: by our own count, since Ray spreads nothing that asks for no CPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import LETTER, make_job

from sdf.driver import gpus_per_worker, place
from sdf.errors import RecipeError


def node(name: str, cpus: float, alive: bool = True, gpus: float = 0) -> dict[str, Any]:
    resources = {"CPU": cpus, "GPU": gpus}
    return {"NodeID": name, "Alive": alive, "Resources": {kind: n for kind, n in resources.items() if n}}


def placed(nodes: list[dict[str, Any]], n_workers: int) -> Counter[str]:
    found = Counter[str]()
    for _ in range(n_workers):
        found[place(nodes, found)] += 1
    return found


def test_workers_are_shared_out_by_cpus() -> None:
    assert placed([node("a", 4), node("b", 4)], 4) == {"a": 2, "b": 2}
    assert placed([node("a", 8), node("b", 4)], 12) == {"a": 8, "b": 4}


def test_a_head_without_cpus_is_kept_free() -> None:
    assert placed([node("head", 0), node("a", 1)], 3) == {"a": 3}
    assert placed([node("head", 0)], 3) == {"head": 3}


def test_the_dead_get_none_and_the_new_catch_up() -> None:
    nodes = [node("dead", 64, alive=False), node("a", 1), node("new", 1)]
    assert place(nodes, {"a": 2}) == "new"
    assert place(nodes, {"a": 2, "new": 3}) == "a"


def test_engines_go_where_their_gpus_are_free() -> None:
    nodes = [node("cpus", 64), node("two", 8, gpus=2), node("four", 8, gpus=4)]
    found = Counter[str]()
    for _ in range(3):
        found[place(nodes, found, 2)] += 1
    assert found == {"two": 1, "four": 2}
    # All taken: Ray queues the fourth.
    assert place(nodes, found, 2) in ("cpus", "two", "four")


def gpus(folder: Path, nodes: list[dict[str, Any]], workers: int, **settings: str) -> int:
    job = make_job(folder, {"letter": LETTER}, provider="vllm", model="m", workers=workers, provider_settings=settings)
    return gpus_per_worker(job, nodes)


def test_an_engine_takes_the_gpus_that_it_is_spread_over(tmp_path: Path) -> None:
    nodes = [node("a", 8, gpus=4), node("b", 8, gpus=4), node("gone", 8, alive=False, gpus=8)]
    assert gpus(tmp_path, nodes, 8) == 1
    assert gpus(tmp_path, nodes, 2, tensor_parallel_size="4") == 4
    assert gpus(tmp_path, nodes, 2, **{"engine.pipeline_parallel_size": "2", "tensor_parallel_size": "2"}) == 4
    assert gpus(tmp_path, nodes, 4, gpus="2", tensor_parallel_size="1") == 2
    assert gpus(tmp_path, [node("a", 8)], 64) == 0
    with pytest.raises(RecipeError, match=r"--workers 3: each runs an engine on 4 GPU.* room for 2 \(8 GPUs"):
        gpus(tmp_path, nodes, 3, tensor_parallel_size="4")
    with pytest.raises(RecipeError, match="room for 0"):
        gpus(tmp_path, nodes, 1, tensor_parallel_size="8")


def test_a_run_without_engines_takes_no_gpus(tmp_path: Path) -> None:
    assert gpus_per_worker(make_job(tmp_path, {"letter": LETTER}), [node("a", 8, gpus=8)]) == 0
