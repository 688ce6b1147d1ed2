"""Where workers go in a cluster: by our own count, since Ray spreads nothing that asks for no CPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sdf.driver import place


def node(name: str, cpus: float, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus} if cpus else {}}


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
