"""One line of cause out of what the processes of an engine log when they do not start."""

from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sdf.providers.vllm.start_log import OTHERWISE, StartLog, way_out

# As vLLM has it: what a formatter is told by `log_level`, a handler and a logger by `level`.
DEFAULT: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"vllm": {"()": "logging.Formatter", "fmt": "%(message)s"}},
    "handlers": {"vllm": {"class": "logging.StreamHandler", "formatter": "vllm", "level": "INFO"}},
    "loggers": {"vllm": {"handlers": ["vllm"], "level": "INFO", "propagate": False}},
}


@dataclass(frozen=True)
class Config:
    pylogging_config_file: str | None = None
    configure_logging: bool = True
    formatter: str = "text"
    log_level: str = "ERROR"


def configure(log: StartLog) -> None:
    """This process takes the part of an engine's."""
    given = json.loads(Path(log.heard(Config(), DEFAULT).pylogging_config_file).read_text())
    assert given["formatters"]["vllm"].pop("log_level") == "ERROR"
    logging.config.dictConfig(given)


@pytest.fixture
def started() -> Iterator[StartLog]:
    with StartLog() as log:
        configure(log)
        yield log
    let_go()


def let_go() -> None:
    vllm = logging.getLogger("vllm")
    for handler in list(vllm.handlers):
        vllm.removeHandler(handler)
        handler.close()


def fail(message: str, error: Exception) -> None:
    try:
        raise error
    except type(error):
        logging.getLogger("vllm.engine").exception(message)


class SafetensorError(Exception):
    pass


def test_the_first_that_did_not_start_is_the_cause(started: StartLog) -> None:
    assert started.cause() == ""
    logging.getLogger("vllm.engine").error("An error without an exception.")
    assert started.cause() == ""
    fail("Something that was got over.", KeyError("no matter"))
    assert started.cause() == "KeyError: 'no matter'"
    fail("WorkerProc failed to start.", SafetensorError("header too large\n  at byte 0"))
    fail("EngineCore failed to start.", RuntimeError("WorkerProc initialization failed"))
    assert started.cause().endswith("SafetensorError: header too large")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("No available memory for the cache blocks."), "No available memory for the cache blocks."),
        (TypeError("x is None"), "TypeError: x is None"),
        (
            RuntimeError(
                "Worker failed with error 'too little', please check the stack trace above for the root cause"
            ),
            "too little",
        ),
    ],
)
def test_a_type_is_told_where_it_tells_something(started: StartLog, error: Exception, cause: str) -> None:
    fail("EngineCore failed to start.", error)
    assert started.cause() == cause


def test_a_cause_of_a_cause_is_left_out(started: StartLog) -> None:
    try:
        try:
            raise KeyError("within")
        except KeyError as error:
            raise ValueError("without") from error
    except ValueError:
        logging.getLogger("vllm.engine").exception("EngineCore failed to start.")
    assert started.cause() == "without"


@pytest.mark.parametrize("config", [Config("mine.json"), Config(configure_logging=False), Config(formatter="json")])
def test_a_configuration_of_ones_own_stays(config: Config) -> None:
    with StartLog() as log:
        assert log.heard(config, DEFAULT) is config
        assert log.cause() == ""


def test_an_engine_may_log_when_the_start_is_long_over() -> None:
    with StartLog() as log:
        configure(log)
    fail("EngineCore encountered a fatal error.", ValueError("late"))
    let_go()


def test_nothing_is_left_behind() -> None:
    with StartLog() as log:
        path = Path(log.heard(Config(), DEFAULT).pylogging_config_file)
        assert path.exists()
    assert not path.parent.exists()
    assert "cause" not in DEFAULT["handlers"]


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("No available memory for the cache blocks.", "--max-model-len"),
        ("8192 tokens need 4 GiB of KV cache, and 2 GiB are there", "--max-model-len"),
        ("Available memory is less than requested memory for kv (9 GiB)", "lower --engine kv_cache_memory_bytes"),
        ("CUDA out of memory. Tried to allocate 2 GiB", "memory is short"),
        ("a process of it was killed by signal 9", "memory is short"),
        ("Free memory on device cuda:0 (1/80 GiB) is less than desired", "something else holds memory"),
        ("SafetensorError: incomplete metadata", "fetch them again"),
        ("no kernel for this device", OTHERWISE),
    ],
)
def test_every_cause_has_a_way_out(cause: str, words: str) -> None:
    assert words in way_out(cause)
