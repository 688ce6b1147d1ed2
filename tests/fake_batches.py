"""The batch half of the fake API: batches that take a while, end in any order, and lose what the real ones may lose."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from aiohttp import web
from fake_api import Asked, FakeAPI, Script, anthropic_message, never, serving, taken

from sdf.records import canonical_json, digest

PATH = "/v1/messages/batches"


@dataclass
class Batch:
    """One batch. `n_looks` is how often it was looked at or listed; it ends at the look that `lasts` names."""

    id: str
    requests: list[dict[str, Any]]
    created_at: str
    results: list[dict[str, Any]] | None = None
    n_looks: int = 0
    is_canceled: bool = False
    is_ending: bool = False
    # Its results are kept no longer.
    is_archived: bool = False


@dataclass
class FakeBatches:
    """`fault(event, n)` names what befalls the n-th (from 1) event: "create" (lost, lost_before, limited, broken,
    broken_after, hang, bad_key, too_large), "item" (errored, invalid, odd, gone, bill, expired), "look"
    (broken, bad_request, gone), "list" (broken, odd), "results" (truncated, cut_at_a_line, page, archived)."""

    api: FakeAPI
    fault: Callable[[str, int], str | None]
    lasts: int = 2
    batches: dict[str, Batch] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    # How often each custom id was answered, and so billed.
    billed: dict[str, int] = field(default_factory=dict)

    @property
    def bills(self) -> Counter[str]:
        """How often each custom id is paid for once all batches have ended, those that nobody looks at too."""
        ours = [each for id, each in self.batches.items() if "foreign" not in id]
        going_on = [each for each in ours if each.results is None and not each.is_canceled]
        return Counter(self.billed) + Counter(item["custom_id"] for each in going_on for item in each.requests)

    def befalls(self, event: str) -> str | None:
        self.counts[event] = self.counts.get(event, 0) + 1
        return self.fault(event, self.counts[event])

    # --- what each route does ---

    async def create(self, request: web.Request) -> web.StreamResponse:
        fault = self.befalls("create")
        body = await request.json()
        if fault == "lost_before":
            return _cut(request)
        if fault in _STATUSES:
            return _refused(fault)
        batch = Batch(f"msgbatch_{len(self.batches):03d}", body["requests"], _now())
        ids = [each["custom_id"] for each in batch.requests]
        assert len(set(ids)) == len(ids) and all(len(each) <= 64 for each in ids)
        self.batches[batch.id] = batch
        if fault == "lost":
            return _cut(request)
        if fault == "hang":
            await asyncio.sleep(60)
        if fault == "broken_after":
            return _refused("broken")
        return web.json_response(self.told(batch))

    def add_foreign(self, n: int) -> Batch:
        """A batch of somebody else in the same workspace, which nobody here looks at."""
        batch = Batch(
            f"msgbatch_foreign_{len(self.batches):03d}", [{"custom_id": f"theirs-{i}"} for i in range(n)], _now()
        )
        self.batches[batch.id] = batch
        return batch

    async def listed(self, request: web.Request) -> web.StreamResponse:
        fault = self.befalls("list")
        if fault == "odd":
            return web.json_response({"data": [{}, "?", {"id": 7}], "has_more": True})
        if fault is not None:
            return _refused(fault)
        found = list(self.batches.values())[::-1]
        after = request.query.get("after_id")
        if after is not None:
            found = found[[each.id for each in found].index(after) + 1 :]
        for each in found:
            await self.go_on(each)
        # Three to a page: pages must be turned.
        page = [self.told(each) for each in found[:3]]
        return web.json_response({"data": page, "has_more": len(found) > 3})

    async def look(self, request: web.Request) -> web.StreamResponse:
        fault = self.befalls("look")
        if fault is not None:
            return _refused(fault)
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return _refused("gone")
        await self.go_on(batch)
        return web.json_response(self.told(batch))

    async def go_on(self, batch: Batch) -> None:
        batch.n_looks += 1
        is_due = batch.n_looks >= self.lasts or batch.is_canceled
        if is_due and "foreign" not in batch.id and not batch.is_ending:
            batch.is_ending = True
            batch.results = [await self.result(batch, each) for each in batch.requests][::-1]

    async def result(self, batch: Batch, item: dict[str, Any]) -> dict[str, Any]:
        fault = "canceled" if batch.is_canceled else self.befalls("item")
        if fault == "odd":
            self.billed[item["custom_id"]] = self.billed.get(item["custom_id"], 0) + 1
            return {"custom_id": item["custom_id"], "result": {"type": "succeeded", "message": {"content": "?"}}}
        if fault in ("expired", "canceled"):
            return {"custom_id": item["custom_id"], "result": {"type": fault}}
        if fault is not None:
            kind = _ERRORS.get(fault, "api_error")
            error = {"type": "error", "error": {"type": kind, "message": f"played: {fault}"}}
            return {"custom_id": item["custom_id"], "result": {"type": "errored", "error": error}}
        params = item["params"]
        assert "stream" not in params
        name = digest(canonical_json(params))
        asked = Asked("/v1/messages", params, {}, name, 1, b"")
        self.billed[item["custom_id"]] = self.billed.get(item["custom_id"], 0) + 1
        message = anthropic_message(asked, await self.api.answer(asked), self.api.shape(asked))
        self.api.bills.append((params["model"], taken(message["usage"])))
        return {"custom_id": item["custom_id"], "result": {"type": "succeeded", "message": message}}

    async def results(self, request: web.Request) -> web.StreamResponse:
        batch = self.batches[request.match_info["id"]]
        assert batch.results is not None, "results of a batch that has not ended"
        text = "".join(json.dumps(each) + "\n" for each in batch.results)
        fault = self.befalls("results")
        if fault == "archived":
            batch.is_archived = True
            return _refused("gone")
        if fault == "truncated":
            text = text[: len(text) // 2]
        if fault == "cut_at_a_line":
            text = "".join(text.splitlines(keepends=True)[1:])
        if fault == "page":
            text = "<html>Welcome!</html>"
        return web.Response(text=text, content_type="application/x-jsonl")

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        batch = self.batches[request.match_info["id"]]
        batch.is_canceled = batch.results is None
        return web.json_response(self.told(batch))

    def told(self, batch: Batch) -> dict[str, Any]:
        kinds = [each["result"]["type"] for each in batch.results or ()]
        counts = {kind: kinds.count(kind) for kind in ("succeeded", "errored", "canceled", "expired")}
        status = "ended" if batch.results is not None else "canceling" if batch.is_canceled else "in_progress"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {"processing": len(batch.requests) - len(kinds), **counts},
            "created_at": batch.created_at,
            "results_url": f"{self.api.url}{PATH}/{batch.id}/results" if batch.results is not None else None,
            "archived_at": _now() if batch.is_archived else None,
        }


_ERRORS = {"invalid": "invalid_request_error", "gone": "not_found_error", "bill": "billing_error"}
_STATUSES = {
    "limited": (429, "rate_limit_error"),
    "broken": (500, "api_error"),
    "bad_key": (401, "authentication_error"),
    "too_large": (413, "request_too_large"),
    "bad_request": (400, "invalid_request_error"),
    "gone": (404, "not_found_error"),
}


def _refused(fault: str) -> web.Response:
    status, kind = _STATUSES[fault]
    return web.json_response({"type": "error", "error": {"type": kind, "message": "played"}}, status=status)


def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


@contextmanager
def serving_batches(
    fault: Callable[[str, int], str | None] = lambda event, n: None, shape: Script = never, lasts: int = 2
) -> Iterator[FakeBatches]:
    """A server of both halves; what it holds outlives the clients that are killed beside it."""
    made: list[FakeBatches] = []

    def extend(app: web.Application, api: FakeAPI) -> None:
        batches = FakeBatches(api, fault, lasts)
        made.append(batches)
        app.router.add_post(PATH, batches.create)
        app.router.add_get(PATH, batches.listed)
        app.router.add_get(f"{PATH}/{{id}}", batches.look)
        app.router.add_get(f"{PATH}/{{id}}/results", batches.results)
        app.router.add_post(f"{PATH}/{{id}}/cancel", batches.cancel)

    with serving(shape=shape, extend=extend):
        yield made[0]
