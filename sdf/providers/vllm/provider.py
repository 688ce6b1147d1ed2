"""A vLLM engine inside the worker: one AsyncLLM, documents as coroutines against it, no HTTP between.

The engine is built at the first request, in a thread, from the model that the request names and the settings. One
that dies is dead for good: every request raises EngineDead, and whoever owns the worker replaces it. The trade-off:
where nobody does (`--ray none`), the run stops, with everything kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from sdf.errors import RecipeError
from sdf.providers.endpoints import seconds
from sdf.providers.pace import SILENT
from sdf.providers.served import Served
from sdf.providers.vllm.arguments import NAME, split, template_kwargs
from sdf.providers.vllm.engine import Engine
from sdf.providers.vllm.process import Guarded
from sdf.providers.vllm.start import config_of, started, tool_parser
from sdf.providers.vllm.watchdog import Watchdog
from sdf.records import Answer, Request

if importlib.util.find_spec("vllm") is None:
    raise ModuleNotFoundError("No module named 'vllm'", name="vllm")


class Vllm:
    """Answers of an engine of this process. Build it where it is used: it holds processes, and does not pickle."""

    told = SILENT

    def __init__(self, settings: Mapping[str, str]) -> None:
        own, self._written = split(settings)
        self._patience = seconds(NAME, "stall_timeout", own["stall_timeout"])
        self._tool_parser = own["tool_parser"]
        self._template = template_kwargs(own)
        self._engine: asyncio.Task[Engine] | None = None
        self._model: str | None = None

    async def served(self, model: str) -> Served:
        """How long the context is; builds no engine. RecipeError when its arguments fit no model, machine or parser."""
        await asyncio.to_thread(self._parser)
        config = await asyncio.to_thread(config_of, model, self._written)
        return Served(model, "an engine of the worker", config.model_config.max_model_len, is_known=True)

    async def answer(self, request: Request) -> Answer:
        """The model's answer; raises a ProviderError, or RecipeError when the engine cannot be built as asked."""
        return await (await self._ready(request.model)).answer(request)

    async def close(self) -> None:
        starting, self._engine = self._engine, None
        if starting is None:
            return
        if not starting.done():
            starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, RecipeError):
            await (await starting).close()

    async def _ready(self, model: str) -> Engine:
        if self._engine is None:
            self._model = model
            self._engine = asyncio.get_running_loop().create_task(self._start(model))
        if model != self._model:
            raise RecipeError(
                f"provider {NAME}: the engine of this worker serves {self._model}, not {model}; give the role of the "
                "other a provider of its own"
            )
        # Shielded: whoever is given up meanwhile must not end the start for all.
        return await asyncio.shield(self._engine)

    async def _start(self, model: str) -> Engine:
        parser = await asyncio.to_thread(self._parser)
        guarded = await asyncio.to_thread(Guarded)
        building = asyncio.ensure_future(asyncio.to_thread(started, model, self._written, guarded))
        try:
            llm = await asyncio.shield(building)
        except BaseException:
            # With its processes gone, the thread that waits for them ends too.
            await asyncio.to_thread(guarded.close)
            await asyncio.wait([building])
            raise
        return Engine(model, llm, guarded, Watchdog(self._patience), parser, self._template)

    def _parser(self) -> Any:
        return tool_parser(self._tool_parser) if self._tool_parser else None
