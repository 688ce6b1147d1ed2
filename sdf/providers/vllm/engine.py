"""A running AsyncLLM: requests in, answers out, and what happens when it dies.

Whoever notices the death first (the watchdog, a request) has every process of the engine killed, so that
nothing holds on to a device. The trade-off: one hung request of an engine that else makes tokens is not noticed here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from sdf.errors import EngineDead, RequestRejected, Unavailable
from sdf.providers.endpoints import said
from sdf.providers.replies import arguments_of, as_tools
from sdf.providers.vllm.arguments import NAME
from sdf.providers.vllm.constraints import constraint
from sdf.providers.vllm.process import Guarded
from sdf.providers.vllm.prompts import Prompts, messages
from sdf.providers.vllm.start import library
from sdf.providers.vllm.watchdog import Watchdog
from sdf.records import Answer, FinishReason, Request, Usage, canonical_json

log = logging.getLogger(__name__)

# As the `openai` provider sends them.
SEED_BITS = 0x7FFF_FFFF

# `error` ends a turn that no step can use, with the engine's own word for it as its detail.
FINISH_REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length"}
# The engine gave up on the request, not the model on the text.
BROKEN_OFF = frozenset({None, "abort", "error"})


class Calls(NamedTuple):
    """What reads the tool calls out of one answer."""

    parser: Any
    request: Any


class Engine:
    """Build it inside the event loop that asks it. `parser` is the class that reads tool calls, or None."""

    def __init__(
        self, model: str, llm: Any, guarded: Guarded, watchdog: Watchdog, parser: Any, template: Mapping[str, Any]
    ) -> None:
        self._model, self._llm, self._guarded, self._watchdog = model, llm, guarded, watchdog
        self._parser, self._prompts = parser, Prompts(model, llm.renderer, template)
        self._n_context: int = llm.model_config.max_model_len
        self._defaults: dict[str, Any] = llm.model_config.get_diff_sampling_param()
        self._numbers = itertools.count()
        self._told: set[str] = set()
        self._death: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        _tap(llm, watchdog)
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def answer(self, request: Request) -> Answer:
        ids = await self._prompts.ids(request)
        n_prompt = len(ids)
        if n_prompt >= self._n_context:
            raise RequestRejected(
                f"{NAME}: a prompt of {n_prompt} tokens, and the context of {self._model} holds {self._n_context} with "
                "the answer; raise --max-model-len, or shorten the constitution"
            )
        calls = self._calls(request)
        params = self._params(request, self._n_context - n_prompt, calls)
        output = await self._output(library().tokens_input(ids), params, constraint(request) if calls is None else None)
        return self._answer(output, n_prompt, calls)

    async def close(self) -> None:
        self._watching.cancel()
        self._llm.shutdown(timeout=0)
        await asyncio.to_thread(self._guarded.close)

    # --- death ---

    async def _watch(self) -> None:
        await self._die(await self._watchdog.silence())

    async def _die(self, why: str) -> None:
        """Everyone who waits learns of it at once; then the processes go, and what they hold of devices."""
        if not self._death.done():
            self._death.set_result(why)
            log.error("the engine for %s is dead: %s; its processes are killed", self._model, why)
            await asyncio.to_thread(self._guarded.kill)

    def _dead(self) -> EngineDead:
        return EngineDead(
            f"{NAME}: the engine for {self._model} died ({self._death.result()}); every answer so far is kept: "
            "run the same command to go on"
        )

    # --- asking ---

    def _params(self, request: Request, room: int, calls: Calls | None) -> Any:
        """The model's own defaults, as vLLM's server takes them, and over them what the recipe asks for."""
        sampling = request.sampling
        asked = {name: value for name in ("temperature", "top_p") if (value := getattr(sampling, name)) is not None}
        return library().SamplingParams(
            **{
                **self._defaults,
                **asked,
                "max_tokens": min(sampling.max_tokens, room),
                "seed": request.draw & SEED_BITS,
                "stop": list(sampling.stop),
                # Each new token as a message of its own would be work that nobody looks at.
                "output_kind": library().RequestOutputKind.FINAL_ONLY,
                "skip_special_tokens": calls is None or calls.request.skip_special_tokens,
            }
        )

    async def _output(self, prompt: Any, params: Any, structure: str | None) -> Any:
        """The engine's finished output; RequestRejected, Unavailable or EngineDead instead."""
        vllm = library()
        if structure is not None:
            params.structured_outputs = vllm.StructuredOutputsParams(structural_tag=structure)
        outcome = await self._outcome(prompt, params)
        if isinstance(outcome, vllm.VLLMClientError):
            if structure is None:
                raise RequestRejected(f"{NAME}: {said(outcome, None)}")
            self._tell_once(f"an answer cannot be held to its form, and is asked for without: {said(outcome, None)}")
            params.structured_outputs = None
            return await self._output(prompt, params, None)
        if isinstance(outcome, Exception):
            raise Unavailable(f"{NAME}: {said(outcome.__cause__ or outcome, None)}")
        return outcome

    async def _outcome(self, prompt: Any, params: Any) -> Any:
        """The engine's finished output, or its error; EngineDead once anyone has found it dead."""
        with self._watchdog.running():
            generating = asyncio.ensure_future(self._generated(prompt, params))
            try:
                await asyncio.wait({generating, self._death}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                generating.cancel()
        if self._death.done():
            raise self._dead()
        return generating.result()

    async def _generated(self, prompt: Any, params: Any) -> Any:
        vllm = library()
        output: Any = None
        try:
            async for each in self._llm.generate(prompt, params, f"sdf-{next(self._numbers)}"):
                output = each
        except vllm.EngineDeadError:
            await self._die("its process has ended")
        except (vllm.VLLMClientError, vllm.VLLMServerError, vllm.GracefulHTTPError) as error:
            return error
        return output

    # --- answers ---

    def _calls(self, request: Request) -> Calls | None:
        """None for a request without tools, and without a parser: then calls stay in the text as the model put them."""
        if not request.tools:
            return None
        if self._parser is None:
            self._tell_once("no tool_parser is set: tool calls stay in the text of an answer, as the model writes them")
            return None
        tools = as_tools(request.tools, "parameters")
        asked = library().ChatCompletionRequest(model=self._model, messages=messages(request), tools=tools)
        parser = self._parser(self._llm.renderer.get_tokenizer(), asked.tools)
        return Calls(parser, parser.adjust_request(asked))

    def _answer(self, output: Any, n_prompt: int, calls: Calls | None) -> Answer:
        (written,) = output.outputs
        reason = written.finish_reason
        if reason in BROKEN_OFF:
            raise Unavailable(f"{NAME}: the engine broke an answer off (finish_reason {reason})")
        n_cached = min(output.num_cached_tokens or 0, n_prompt)
        usage = Usage(n_prompt - n_cached, len(written.token_ids), n_cached)
        told = FINISH_REASONS.get(reason, "error")
        detail = None if reason in FINISH_REASONS else reason
        found = calls.parser.extract_tool_calls(written.text, calls.request) if calls else None
        if found is None or not found.tools_called:
            return Answer(written.text, told, self._model, usage, detail=detail)
        made = canonical_json([_call(each) for each in found.tool_calls])
        return Answer(found.content or "", "tool_use" if told == "stop" else told, self._model, usage, made, detail)

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s: %s", NAME, text)


def _tap(llm: Any, watchdog: Watchdog) -> None:
    """Every batch of new tokens passes here; with FINAL_ONLY no request sees them come."""
    process = llm.output_processor.process_outputs

    def process_outputs(*arguments: Any, **named: Any) -> Any:
        watchdog.token()
        return process(*arguments, **named)

    llm.output_processor.process_outputs = process_outputs


def _call(call: Any) -> dict[str, Any]:
    return {"id": call.id, "name": call.function.name, "arguments": arguments_of(call.function.arguments)}
