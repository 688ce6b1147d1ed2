"""Everything that Ray tells of a cluster to whoever may ask, as text on stdout, under a heading for each source.

    python ray_listing.py ADDRESS DASHBOARD

Run it with the cluster's token in the environment. It joins the cluster as a driver, so it shows up in what it lists.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.experimental.internal_kv import (
    _internal_kv_get,  # pyright: ignore[reportPrivateUsage]
    _internal_kv_list,  # pyright: ignore[reportPrivateUsage]
)
from ray.job_submission import JobSubmissionClient
from ray.util import state

LISTS: tuple[Callable[..., Any], ...] = (
    *(state.list_actors, state.list_tasks, state.list_objects, state.list_workers, state.list_runtime_envs),
    *(state.list_jobs, state.list_nodes, state.list_placement_groups, state.list_cluster_events),
)
SUMMARIES: tuple[Callable[..., Any], ...] = (state.summarize_actors, state.summarize_tasks, state.summarize_objects)
# Where Ray keeps jobs and their metadata, exported functions and classes, packages, and its own settings.
NAMESPACES = (None, b"fun", b"job", b"session", b"cluster", b"dashboard", b"tracing", b"healthcheck", b"ray_pdb")
# What the dashboard shows beyond the state API: command lines of processes, for one.
PAGES = (
    *("/nodes?view=summary", "/logical/actors", "/api/jobs/", "/api/cluster_status", "/events"),
    "/api/v0/tasks/timeline",
)
MOST = 10_000


def sources(address: str, dashboard: str) -> Iterator[tuple[str, Any]]:
    """A name, and what it tells."""
    for each in LISTS:
        told = each(address=dashboard, limit=MOST, detail=True, raise_on_missing_output=False)
        yield each.__name__, [row.asdict() if hasattr(row, "asdict") else row for row in told]
    for each in SUMMARIES:
        yield each.__name__, each(address=dashboard, raise_on_missing_output=False)
    yield "ray.nodes", ray.nodes()
    yield from _logs(address)
    yield from _jobs(dashboard)
    for page in (*PAGES, *(f"/nodes/{node['NodeID']}" for node in ray.nodes())):
        yield page, _page(f"{dashboard}{page}")
    yield from _table()


def _logs(address: str) -> Iterator[tuple[str, Any]]:
    for node in ray.nodes():
        node_id = node["NodeID"]
        for kind, names in state.list_logs(address, node_id).items():
            for name in names:
                if not name.endswith("/"):
                    chunks = state.get_log(address, node_id, filename=name, errors="replace")
                    yield f"get_log {kind} {name}", "".join(chunks)


def _jobs(dashboard: str) -> Iterator[tuple[str, Any]]:
    client = JobSubmissionClient(dashboard)
    for each in client.list_jobs():
        yield "job", vars(each)
        if each.submission_id:
            yield "get_job_info", vars(client.get_job_info(each.submission_id))
            yield "get_job_logs", client.get_job_logs(each.submission_id)


def _page(url: str) -> str:
    headers = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as reply:
        return reply.read().decode(errors="replace")


def _table() -> Iterator[tuple[str, Any]]:
    """What the GCS holds under any name."""
    for namespace in NAMESPACES:
        for key in _internal_kv_list(b"", namespace=namespace):
            value = _internal_kv_get(key, namespace=namespace) or b""
            yield f"kv {namespace}", key.decode(errors="replace") + " " + value.decode("latin-1")


def main(address: str, dashboard: str) -> None:
    ray.init(address, log_to_driver=False, configure_logging=False)
    for name, told in sources(address, dashboard):
        text = told if isinstance(told, str) else json.dumps(told, default=str, ensure_ascii=False)
        sys.stdout.buffer.write(f"## {name}\n{text}\n".encode(errors="replace"))


if __name__ == "__main__":
    main(*sys.argv[1:])
