"""vLLM, imported and set up: the one file that knows its modules.

Its arguments are checked twice: by `arguments` for names and types, and by vLLM itself for what fits the model
and the machine, before any process is started. What only the engine's own processes find out, such as too little
memory, is read from their log. The trade-off: the error here tells one line of it, and the worker's log the rest.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from sdf.errors import RecipeError
from sdf.frontmatter import near
from sdf.providers.endpoints import said
from sdf.providers.vllm.arguments import NAME, converted
from sdf.providers.vllm.process import Guarded
from sdf.providers.vllm.start_log import StartLog, way_out

# What vLLM reads from the environment, where nothing else is set: no reports to its makers, and a terminal that stays
# readable; stdout holds a command's result alone.
ENVIRONMENT: Mapping[str, str] = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
# Always: children executed anew bear their owner's mark, and a fork of a process with threads may hang.
START_METHOD = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}

# An engine's arguments where the settings do not name them. Statistics cost a little at every token and go nowhere.
# A Ctrl-C at a terminal reaches the engine's process too: it finishes what runs, as a drain of the worker expects.
DEFAULTS: Mapping[str, Any] = {
    "enable_prefix_caching": True,
    "disable_log_stats": True,
    "shutdown_timeout": 600,
}
# What is used of vLLM, and where it is.
NAMES: Mapping[str, str] = {
    "AsyncEngineArgs": "vllm.engine.arg_utils",
    "AsyncLLM": "vllm.v1.engine.async_llm",
    "ChatCompletionRequest": "vllm.entrypoints.openai.chat_completion.protocol",
    "ChatParams": "vllm.renderers.params",
    "DEFAULT_LOGGING_CONFIG": "vllm.logger",
    "EngineDeadError": "vllm.v1.engine.exceptions",
    "GracefulHTTPError": "vllm.exceptions",
    "RequestOutputKind": "vllm.sampling_params",
    "SamplingParams": "vllm.sampling_params",
    "StructuredOutputsParams": "vllm.sampling_params",
    "TokenizeParams": "vllm.renderers.params",
    "ToolParserManager": "vllm.tool_parsers",
    "VLLMClientError": "vllm.exceptions",
    "VLLMServerError": "vllm.exceptions",
    "tokens_input": "vllm.inputs",
}

# What vLLM raises for arguments that do not fit each other, the model or the machine.
MISFITS = (ValueError, TypeError, OSError, NotImplementedError, AssertionError, RuntimeError, ImportError)


@lru_cache(maxsize=1)
def library() -> Any:
    """The names of vLLM that are used; seconds at the first call. RecipeError when it cannot be imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.update(START_METHOD)
    try:
        return SimpleNamespace(**{name: getattr(importlib.import_module(path), name) for name, path in NAMES.items()})
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise RecipeError(
            f"provider {NAME}: vllm is installed and does not import ({said(error, None)}); beside its CPU build: "
            "pip uninstall torchvision torchaudio torchcodec (docs/providers.md)"
        ) from None


def config_of(model: str, written: Mapping[str, str]) -> Any:
    """The engine's configuration. RecipeError for arguments that contradict each other, the model or the machine."""
    _check_place(model)
    declared = {field.name: field.type for field in dataclasses.fields(library().AsyncEngineArgs)}
    arguments = {**DEFAULTS, **converted(written, declared)}
    try:
        config = library().AsyncEngineArgs(model=model, **arguments).create_engine_config()
        if config.device_config.device_type == "cpu" and "enable_chunked_prefill" not in written:
            arguments = {**_whole_prefills(config), **arguments}
            config = library().AsyncEngineArgs(model=model, **arguments).create_engine_config()
    except MISFITS as error:
        given = ", ".join(f"{name}={value}" for name, value in written.items()) or "none given"
        raise RecipeError(
            f"provider {NAME}: no engine for {model}: {_reason(error)} (engine arguments: {given})"
        ) from None
    return config


def _check_place(model: str) -> None:
    """A path that leads nowhere would be looked for at the Hugging Face hub, whose words nobody would understand."""
    if model.startswith(("/", "./", "../", "~")) and not Path(model).exists():
        raise RecipeError(
            f"provider {NAME}: no engine for {model}: nothing is there; name a directory that holds the model on every "
            "node with workers, or a model of the Hugging Face hub"
        )


def _whole_prefills(config: Any) -> dict[str, Any]:
    """On CPU a prompt must not be read in pieces: for a request with a seed, vLLM then dies of "CPU Generator does not
    use offset"."""
    n_batched = max(config.scheduler_config.max_num_batched_tokens, config.model_config.max_model_len)
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": n_batched}


def started(model: str, written: Mapping[str, str], guarded: Guarded) -> Any:
    """An AsyncLLM that is ready, its processes under guard. RecipeError when it cannot be set up or does not start."""
    config = config_of(model, written)
    disable_log_stats = written.get("disable_log_stats", "true").lower() != "false"
    with StartLog() as log:
        config.logging_config = log.heard(config.logging_config, library().DEFAULT_LOGGING_CONFIG)
        try:
            with guarded.marking():
                return library().AsyncLLM.from_vllm_config(config, disable_log_stats=disable_log_stats)
        except MISFITS as error:
            cause = said(log.cause(), None) or _died(str(error)) or _reason(error)
            raise RecipeError(
                f"provider {NAME}: the engine for {model} did not start: {cause.rstrip('.')}; {way_out(cause)}"
            ) from None


def _died(text: str) -> str:
    """A process that was killed logs nothing; vLLM tells its exit code alone."""
    killed = re.search(r": -(\d+)\b", text)
    return f"a process of it was killed by signal {killed[1]}" if killed else ""


def tool_parser(name: str) -> Any:
    """The class that reads tool calls of a model family. RecipeError for an unknown one."""
    known = library().ToolParserManager
    if name not in known.list_registered():
        raise RecipeError(f"provider {NAME}: tool_parser: vLLM has no {name!r}{near(name, known.list_registered())}")
    return known.get_tool_parser(name)


def _reason(error: BaseException) -> str:
    """What pydantic found first, without its frame; else the error's own words."""
    problems = getattr(error, "errors", None)
    if callable(problems):
        (first, *_) = cast("list[dict[str, Any]]", problems())
        where = ".".join(map(str, first["loc"]))
        return said(f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, "), None)
    return said(error, None) or type(error).__name__
