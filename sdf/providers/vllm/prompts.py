"""A request -> the token ids that an engine is given, by the model's own chat template and tokenizer.

As vLLM's server puts it, so that the roads to one model agree. The head of a prompt, up to the end of the shared
prefix's own turn, is tokenised once: a tokenizer splits at its special tokens before anything else, so what stands
before and after one is tokenised apart. The trade-off: where a template puts more into the turn of the prefix, or a
tokenizer joins over its special tokens (both are looked at, not assumed), the whole is tokenised for every request.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from sdf.errors import RecipeError
from sdf.providers.endpoints import said
from sdf.providers.replies import as_tools
from sdf.providers.vllm.arguments import NAME
from sdf.providers.vllm.start import library
from sdf.records import Request

# A job has one prefix per genre, and one per cell where the context is a principle; 30,000 tokens are 120 kB.
N_HEADS = 256


class Prompts:
    """Prompts of one engine; `template` are arguments of its chat template. Tokenises in the engine's own threads."""

    def __init__(self, model: str, renderer: Any, template: Mapping[str, Any]) -> None:
        self._model, self._renderer, self._template = model, renderer, dict(template)
        self._special = tuple(getattr(renderer.get_tokenizer(), "all_special_tokens", ()))
        # None: its tokenizer joins over the end of this head.
        self._heads: OrderedDict[str, array[int] | None] = OrderedDict()

    async def ids(self, request: Request) -> list[int]:
        """RecipeError when the model has no template for a chat."""
        if request.prompt is not None:
            text = "\n\n".join(part for part in (request.prefix.text, request.prompt) if part)
            return await self._tokenised(text, add_special_tokens=True)
        rendered = await self._rendered(request)
        if "prompt_token_ids" in rendered:
            return list(rendered["prompt_token_ids"])
        text: str = rendered["prompt"]
        cut = self._end_of_head(text, request.prefix.text)
        return await self._joined(text[:cut], text[cut:]) if cut else await self._tokenised(text)

    async def _rendered(self, request: Request) -> Mapping[str, Any]:
        vllm = library()
        arguments: dict[str, Any] = {"add_generation_prompt": True, "tokenize": False, **self._template}
        if request.tools:
            arguments["tools"] = as_tools(request.tools, "parameters")
        try:
            params = vllm.ChatParams(chat_template_kwargs=arguments)
            _, prompt = await self._renderer.render_messages_async(messages(request), params)
        except (ValueError, vllm.VLLMClientError) as error:
            raise RecipeError(
                f"provider {NAME}: {self._model} takes no prompt of this form ({said(error, None)}); name a model with "
                "a chat template, or write `form: completion` in the genre"
            ) from None
        return prompt

    def _end_of_head(self, text: str, prefix: str) -> int:
        """Where the special token ends that follows the prefix, white space aside; 0 when none does."""
        start = text.find(prefix) if prefix else -1
        if start < 0:
            return 0
        rest = start + len(prefix)
        while rest < len(text) and text[rest].isspace():
            rest += 1
        return next((rest + len(token) for token in self._special if text.startswith(token, rest)), 0)

    async def _joined(self, head: str, tail: str) -> list[int]:
        if head not in self._heads:
            whole = await self._tokenised(head + tail)
            first = array("q", await self._tokenised(head))
            is_apart = whole == first.tolist() + await self._tokenised(tail)
            self._heads[head] = first if is_apart else None
            while len(self._heads) > N_HEADS:
                self._heads.popitem(last=False)
            return whole
        self._heads.move_to_end(head)
        known = self._heads[head]
        if known is None:
            return await self._tokenised(head + tail)
        return known.tolist() + await self._tokenised(tail)

    async def _tokenised(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        params = library().TokenizeParams(max_total_tokens=None, add_special_tokens=add_special_tokens)
        (found,) = await self._renderer.tokenize_prompts_async([{"prompt": text}], params)
        return list(found["prompt_token_ids"])


def messages(request: Request) -> list[dict[str, str]]:
    """One system message at most, the prefix and then the request's own: some chat templates take no second one."""
    own = [each.content for each in request.messages if each.role == "system"]
    system = "\n\n".join(part for part in (request.prefix.text, *own) if part)
    turns = [{"role": each.role, "content": each.content} for each in request.messages if each.role != "system"]
    return [{"role": "system", "content": system}, *turns] if system else turns
