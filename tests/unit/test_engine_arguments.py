"""Settings -> engine arguments of the right types, with words for whoever mistyped one. No engine is at hand here."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Optional, Union

import pytest

from sdf.errors import RecipeError
from sdf.providers.vllm.arguments import SETTINGS, converted, gpus_per_engine, split


class Backend(enum.Enum):
    FAST = "fast.module"
    SAFE = "safe.module"


class Level(enum.IntEnum):
    O1 = 1


class Config:
    pass


DECLARED: Mapping[str, Any] = {
    "max_model_len": int,
    "max_num_seqs": int | None,
    "gpu_memory_utilization": float,
    "enforce_eager": bool,
    "enable_prefix_caching": bool | None,
    "dtype": Literal["auto", "bfloat16"],
    "lora_rank": Optional[Literal[8, 16]],  # noqa: UP045
    "attention_backend": Backend | None,
    "optimization_level": Level,
    "quantization": Union[str, None],  # noqa: UP007
    "allowed": list[str] | None,
    "offload": set[str],
    "ignore_patterns": str | list[str],
    "overrides": dict[str, Any],
    "compilation_config": Config,
    "strange": "dict[str, Any] | Unknown | None",
    "noted": Annotated[int, "positive"],
    "executor": str | type[Config] | None,
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_model_len", "32768", 32_768),
        ("max_model_len", "-1", -1),
        ("max_num_seqs", "none", None),
        ("max_num_seqs", "8", 8),
        ("gpu_memory_utilization", "0.85", 0.85),
        ("gpu_memory_utilization", "1", 1.0),
        ("enforce_eager", "true", True),
        ("enable_prefix_caching", "False", False),
        ("dtype", "bfloat16", "bfloat16"),
        ("lora_rank", "16", 16),
        ("lora_rank", "None", None),
        ("attention_backend", "FAST", Backend.FAST),
        ("attention_backend", "safe.module", Backend.SAFE),
        ("optimization_level", "1", Level.O1),
        ("quantization", "fp8", "fp8"),
        ("quantization", "12", "12"),
        ("allowed", '["a", "b"]', ["a", "b"]),
        ("offload", '["a", "a"]', {"a"}),
        ("ignore_patterns", "*.pt", "*.pt"),
        ("ignore_patterns", '["*.pt"]', ["*.pt"]),
        ("overrides", '{"top_k": 20}', {"top_k": 20}),
        ("compilation_config", '{"level": 3}', {"level": 3}),
        ("strange", '{"a": 1}', {"a": 1}),
        ("noted", "3", 3),
        ("executor", "mp", "mp"),
    ],
)
def test_values_get_the_types_that_are_declared(name: str, text: str, value: Any) -> None:
    found = converted({name: text}, DECLARED)[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("max_model_len", "32k", "max_model_len is '32k'; write a whole number"),
        ("max_num_seqs", "many", "write none, or a whole number"),
        ("gpu_memory_utilization", "most", "write a number"),
        ("enforce_eager", "yes", "write true or false"),
        ("dtype", "bfloat61", "write auto, bfloat16"),
        ("attention_backend", "fastest", "write none, or FAST, SAFE"),
        ("overrides", "top_k=20", "write JSON"),
        ("overrides", "[1]", "write JSON"),
        ("allowed", '{"a": 1}', "write none, or JSON"),
        ("max_model_length", "1", "no argument 'max_model_length'.*did you mean 'max_model_len'"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(name: str, text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        converted({name: text}, DECLARED)


def test_flags_are_engine_arguments_and_the_rest_is_ours() -> None:
    own, written = split({"max_model_len": "4096", "engine.enforce_eager": "true", "stall_timeout": "30"})
    assert written == {"max_model_len": "4096", "enforce_eager": "true"}
    assert own == {"gpus": "", "stall_timeout": "30", "tool_parser": "", "chat_template_kwargs": "{}"}
    assert split({})[1] == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_model_len": "1", "engine.max_model_len": "2"}, "--max-model-len 1 and as --engine max_model_len=2"),
        ({"gpus": "2", "tensor_parallel_size": "4"}, "gpus is 2, and tensor_parallel_size 4 takes 4 of each worker"),
        ({"gpus": "3", "tensor_parallel_size": "2", "engine.pipeline_parallel_size": "2"}, "takes 4 of each worker"),
        ({"max_model_length": "1"}, "did you mean 'max_model_len'"),
        ({"engine.hf_token": "hf_abc"}, "would hold a key"),
        ({"engine.model": "other"}, "--model"),
        ({"engine.served_model_name": "other"}, "--model"),
        ({"engine.skip_tokenizer_init": "true"}, "tokenised by the engine"),
    ],
)
def test_contradictions_and_what_is_set_elsewhere(settings: dict[str, str], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        split(settings)


def test_a_setting_of_every_name_is_known() -> None:
    for name, value in SETTINGS.items():
        split({name: value})


@pytest.mark.parametrize(("gpus", "words"), [("-1", "gpus is '-1'"), ("some", "gpus is 'some'")])
def test_gpus_are_counted(gpus: str, words: str) -> None:
    assert gpus_per_engine({"gpus": "0"}, has_gpus=True) == 0
    assert gpus_per_engine({"gpus": "3"}, has_gpus=False) == 3
    assert gpus_per_engine({"engine.data_parallel_size": "2", "tensor_parallel_size": "4"}, has_gpus=True) == 8
    with pytest.raises(RecipeError, match=words):
        gpus_per_engine({"gpus": gpus}, has_gpus=True)
    with pytest.raises(RecipeError, match="tensor_parallel_size is 'two'"):
        gpus_per_engine({"tensor_parallel_size": "two"}, has_gpus=True)
