"""Why an engine did not start: vLLM's error names no cause, which stands in the log of one of its processes.

Those processes are given vLLM's own logging with one handler more, a file that is read when the start has failed. The
trade-off: whoever brings a logging configuration of their own (VLLM_LOGGING_CONFIG_PATH) finds the cause in their log.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

# Before each record; no text holds it.
RECORD = "\x1e"
# How vLLM begins the record of a start that failed; others may be of trouble that was got over.
FATAL = "failed to start"
FRAME = '  File "'
# Types that say no more than that it went wrong.
_PLAIN = re.compile(r"^(Exception|ValueError|RuntimeError|AssertionError|OSError): ")
# How an engine repeats what one of its workers said.
_REPEATED = re.compile(r"^Worker failed with error '(.*)', please check the stack trace.*")

_MEMORY = "lower --max-model-len, raise --gpu-memory-utilization, or spread it by --tensor-parallel-size"
# What is found in a cause, and the way out.
WAYS_OUT: tuple[tuple[str, str], ...] = (
    (r"requested memory for kv", "lower --engine kv_cache_memory_bytes, or leave it out"),
    (r"cache block|KV cache", f"its cache is too small: {_MEMORY}; or leave out --engine kv_cache_memory_bytes"),
    (r"[Ff]ree memory on device", "something else holds memory there: end it, or lower --gpu-memory-utilization"),
    (r"(?i)out ?of ?memory|cannot allocate|alloc.*fail|signal 9", f"memory is short: {_MEMORY}"),
    (
        r"(?i)safetensor|size of tensor|shape|state_dict|pytorch_model|weights|checkpoint",
        "the model's files are damaged, not all there, or not of its config.json: fetch them again",
    ),
)
OTHERWISE = "more is in the worker's log (with --ray none: above)"


class StartLog:
    """The errors that processes of an engine log while it starts; gone when the block ends."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sdf-engine-")
        self._errors = Path(self._folder.name) / "errors"

    def __enter__(self) -> StartLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._folder.cleanup()

    def heard(self, config: Any, default: Any) -> Any:
        """vLLM's logging configuration with this log added; `default` is what vLLM makes of one that names no file."""
        if config.pylogging_config_file or not config.configure_logging or config.formatter != "text":
            return config
        whole = copy.deepcopy(default)
        for each in (whole["handlers"]["vllm"], whole["loggers"]["vllm"], *whole["formatters"].values()):
            each["log_level" if "()" in each else "level"] = config.log_level
        whole["formatters"]["cause"] = {"format": f"{RECORD}%(message)s"}
        # Open from the beginning: what is logged long after the start finds no folder, and must not fail for it.
        file = {"class": "logging.FileHandler", "filename": str(self._errors), "encoding": "utf-8"}
        whole["handlers"]["cause"] = {**file, "formatter": "cause", "level": "ERROR"}
        whole["loggers"]["vllm"]["handlers"] = ["vllm", "cause"]
        path = Path(self._folder.name) / "logging.json"
        path.write_text(json.dumps(whole), encoding="utf-8")
        return dataclasses.replace(config, pylogging_config_file=str(path))

    def cause(self) -> str:
        """The exception that was logged first, on one line; "" where none was."""
        if not self._errors.exists():
            return ""
        records = self._errors.read_text(encoding="utf-8", errors="replace").split(RECORD)
        # The first: a worker's own error comes before that of the engine which waits for it.
        records.sort(key=lambda record: FATAL not in record.partition("\n")[0])
        return next(filter(None, map(_exception, records)), "")


def _exception(record: str) -> str:
    """The line after the last frame of a traceback that says what was raised; "" where there is none."""
    lines = record.splitlines()
    last = max((number for number, line in enumerate(lines) if line.startswith(FRAME)), default=len(lines))
    raised = next((line for line in lines[last:] if line and not line[0].isspace()), "")
    return _REPEATED.sub(r"\1", _PLAIN.sub("", raised))


def way_out(cause: str) -> str:
    """What a user may do about it."""
    return next((way for pattern, way in WAYS_OUT if re.search(pattern, cause)), OTHERWISE)
