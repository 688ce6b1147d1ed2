"""Settings of the `vllm` provider -> the arguments of its engine, each of the type that the engine declares.

Nothing of vLLM is imported here: what it knows comes in as a mapping of names to annotations, so that a driver
without it can tell how many GPUs an engine takes.
"""

from __future__ import annotations

import contextlib
import enum
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sdf.errors import RecipeError
from sdf.frontmatter import near
from sdf.providers.endpoints import checked, is_count, said
from sdf.recipe import is_secret

NAME = "vllm"
PREFIX = "engine."

# Engine arguments that are settings by their own names, each a flag of the command line.
FLAGS = ("tensor_parallel_size", "gpu_memory_utilization", "max_model_len")
# The rest of what may be set. `gpus`: of each engine; by default the product of SIZES where the cluster has any.
SETTINGS: Mapping[str, str] = {
    **dict.fromkeys(FLAGS, ""),
    "gpus": "",
    "stall_timeout": "120",
    "tool_parser": "",
    "chat_template_kwargs": "{}",
}
# Devices that one engine needs: the product.
SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")

# Decided elsewhere: (argument, what to do instead).
_NOT_HERE: Mapping[str, str] = {
    "model": "name the model with --model",
    "served_model_name": "the model is recorded by the name that --model gives it",
    "skip_tokenizer_init": "prompts are tokenised by the engine",
    "tokens_only": "prompts are tokenised by the engine",
}


def split(settings: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Our own settings over their defaults, and the engine's arguments as they were written.

    RecipeError for an unknown setting, one that holds a key, and an argument that is given twice.
    """
    prefixed = {name[len(PREFIX) :]: value for name, value in settings.items() if name.startswith(PREFIX)}
    for name, value in prefixed.items():
        _check_argument(name, value, settings)
    own = checked(NAME, {name: value for name, value in settings.items() if not name.startswith(PREFIX)}, SETTINGS)
    flags = {name: own.pop(name) for name in FLAGS}
    written = {**{name: value for name, value in flags.items() if value}, **prefixed}
    _check_gpus(own["gpus"], written)
    return own, written


def _check_gpus(gpus: str, written: Mapping[str, str]) -> None:
    """With no GPU an engine runs on the CPU, in as many processes as it likes."""
    if gpus in ("", "0"):
        return
    n_needed = _n_needed(written)
    if _count("gpus", gpus, lowest=0) < n_needed:
        sizes = " x ".join(f"{name} {written[name]}" for name in SIZES if name in written)
        raise RecipeError(
            f"provider {NAME}: gpus is {gpus}, and {sizes} takes {n_needed} of each worker; leave gpus out, or lower "
            "the others"
        )


def _check_argument(name: str, value: str, settings: Mapping[str, str]) -> None:
    if is_secret(name, value):
        raise RecipeError(
            f"provider {NAME}: --engine {name} would hold a key, and settings are written into the corpus; "
            "set the environment variable of the library that reads it where the workers run"
        )
    if name in _NOT_HERE:
        raise RecipeError(f"provider {NAME}: --engine {name} is not set here: {_NOT_HERE[name]}")
    if settings.get(name):
        raise RecipeError(
            f"provider {NAME}: {name} is given twice, as --{name.replace('_', '-')} {settings[name]} "
            f"and as --engine {name}={value}; leave one of them out"
        )


def template_kwargs(own: Mapping[str, str]) -> dict[str, Any]:
    """What the chat template is told besides. RecipeError for what is no JSON object."""
    name = "chat_template_kwargs"
    # RecursionError: nested too deeply.
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(own[name])
        if isinstance(found, dict):
            return found
    raise RecipeError(
        f'provider {NAME}: {name} is {said(own[name], None)!r}; write a JSON object, as {{"enable_thinking": false}}'
    )


def gpus_per_engine(settings: Mapping[str, str], *, has_gpus: bool) -> int:
    """GPUs that each engine takes. RecipeError for a number that is none."""
    own, written = split(settings)
    if own["gpus"]:
        return _count("gpus", own["gpus"], lowest=0)
    return _n_needed(written) if has_gpus else 0


def _n_needed(written: Mapping[str, str]) -> int:
    return math.prod(_count(name, written.get(name, "1"), lowest=1) for name in SIZES)


def _count(name: str, text: str, *, lowest: int) -> int:
    if not (is_count(text) and int(text) >= lowest):
        raise RecipeError(f"provider {NAME}: {name} is {said(text, None)!r}; write a whole number from {lowest} on")
    return int(text)


def converted(written: Mapping[str, str], declared: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with values of the types that `declared` gives them (name -> annotation).

    RecipeError for an unknown name, with the nearest known one, and for a value that is not of its type.
    """
    for name in written:
        if name not in declared:
            raise RecipeError(f"provider {NAME}: the engine has no argument {name!r}{near(name, declared)}")
    return {name: _value(name, text, _kinds(declared[name])) for name, text in written.items()}


def _kinds(annotation: Any) -> list[Any]:
    """The alternatives of an annotation, each a type or a tuple of the literals that it allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [kind for each in get_args(annotation) for kind in _kinds(each)]
    return [get_args(annotation) if origin is Literal else origin or annotation]


def _value(name: str, text: str, kinds: Sequence[Any]) -> Any:
    for fits, read, _ in _READERS:
        for kind in filter(fits, kinds):
            with contextlib.suppress(ValueError, KeyError):
                return read(kind, text)
    wanted = dict.fromkeys(shown(kind) for fits, _, shown in _READERS for kind in filter(fits, kinds))
    raise RecipeError(f"provider {NAME}: {name} is {text!r}; write {', or '.join(wanted)}")


def _is(*known: Any) -> Callable[[Any], bool]:
    return lambda kind: any(kind is each for each in known)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _none(_: Any, text: str) -> None:
    if text.lower() not in ("none", "null"):
        raise ValueError


def _bool(_: Any, text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _literal(literals: tuple[Any, ...], text: str) -> Any:
    return {str(each): each for each in literals}[text]


def _member(kind: Any, text: str) -> Any:
    return {**{str(each.value): each for each in kind}, **kind.__members__}[text]


def _json(kind: Any, text: str) -> Any:
    """A list for what is a sequence, else an object: the engine's own records are made of objects."""
    found = json.loads(text)
    shape = list if kind in (list, set, tuple) else dict
    if not isinstance(found, shape):
        raise ValueError(text)  # noqa: TRY004  the value, not the argument
    return set(found) if kind is set else found


def _is_structured(kind: Any) -> bool:
    simple = (None, types.NoneType, bool, int, float, str, type, Any)
    return not isinstance(kind, tuple) and not _is(*simple)(kind) and not _is_enum(kind)


# In this order, whatever the annotation's: which kinds, how they are read, how they are spoken of.
_READERS: Sequence[tuple[Callable[[Any], bool], Callable[[Any, str], Any], Callable[[Any], str]]] = (
    (_is(None, types.NoneType), _none, lambda _: "none"),
    (_is(bool), _bool, lambda _: "true or false"),
    (lambda kind: isinstance(kind, tuple), _literal, lambda kind: ", ".join(map(str, kind))),
    (_is_enum, _member, lambda kind: ", ".join(kind.__members__)),
    (_is(int), lambda _, text: int(text), lambda _: "a whole number"),
    (_is(float), lambda _, text: float(text), lambda _: "a number"),
    (_is_structured, _json, lambda _: "JSON"),
    (_is(str, Any), lambda _, text: text, lambda _: "text"),
)
