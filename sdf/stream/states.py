"""States: what a saved one must hold, what of it goes on where, and the sentence for one that does not belong here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sdf.errors import StreamError

FORMAT = 1
# Without these a state was torn or edited.
NEEDED = {
    "tokens": ("stream", "corpora", "epoch", "step", "weights", "given", "n_blank", "cursors"),
    "documents": ("corpus", "order", "spot", "offset"),
}

State = dict[str, Any]
Weights = Mapping[str, float]


def check_kind(state: Any, kind: str) -> None:
    """StreamError unless it is a state of this kind, in a format that this version reads."""
    if not isinstance(state, Mapping) or "kind" not in state:
        raise StreamError(f"not a state of {kind}: load what state_dict() returned")
    if not isinstance(state.get("format"), int) or state["format"] > FORMAT:
        raise StreamError(
            f"the state has format {state.get('format')!r}, this version reads format {FORMAT}; resume with the "
            "version of sdf that saved it, or a newer one"
        )
    if state["kind"] != kind:
        raise StreamError(f"this is a state of {state['kind']}, not of {kind}")
    if absent := [name for name in NEEDED[kind] if name not in state]:
        raise StreamError(f"the state lacks {absent[0]!r}: torn or edited; load an earlier one")


def check_same(what: str, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """StreamError names the first difference, both sides of it."""
    for name in dict.fromkeys([*saved, *current]):
        before, now = saved.get(name), current.get(name)
        if before != now:
            raise StreamError(
                f"the state was saved with another {what}: {name} was {before!r}, is {now!r}. "
                f"Give the same {what} to resume, or start anew without the state"
            )


def global_state(state: Any, *, in_worker: bool) -> State:
    """The state of a stream in that of a StatefulDataLoader: of the worker whose batch came last.

    `worker` stays in it only where that worker's own state comes back to it.
    """
    if not isinstance(state, Mapping):
        raise StreamError(f"not a state but {type(state).__name__}: load what state_dict() returned")
    if "_snapshot" in state:
        workers: Iterable[dict[str, State]] = state["_snapshot"]["_worker_snapshots"].values()
        states: list[State] = [worker["dataset_state"] for worker in workers]
        latest = max(states, key=lambda each: int(each["step"]))
        return {**latest, "worker": None, "ahead": int(state["_steps_since_snapshot"])}
    if "dataset_state" in state and "kind" not in state:
        return {**state["dataset_state"], "worker": None}
    return dict(state) if in_worker else {**state, "worker": None}


def turn_of(state: State | None, step: int, worker: int, n_workers: int) -> int:
    """Which steps, modulo the number of workers, this worker makes: the first after the state goes to worker 0."""
    if state and state.get("worker") == [worker, n_workers]:
        # Its own state, after a step that was its own.
        return (step - 1) % n_workers
    ahead = int(state.get("ahead", 0)) if state else 0
    return (step + ahead + worker) % n_workers


def merged_weights(state: State, given: Mapping[int, Weights]) -> dict[int, dict[str, float]]:
    """The weights that were, from the state, and those to come, of the state and of what is given now."""
    saved = {int(step): dict(weights) for step, weights in state["weights"]}
    for step, weights in given.items():
        if step <= state["step"] and saved.get(step) != weights:
            raise StreamError(
                f"the state was saved with other weights from step {step} on: {saved.get(step)}, now {dict(weights)}. "
                "What is past cannot change: give the same up to there, and other weights from a later step"
            )
    return saved | {step: dict(weights) for step, weights in given.items() if step > state["step"]}
