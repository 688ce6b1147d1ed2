"""A language model of a few hundred kilobytes, made in seconds without a download: an engine's tests run on it.

    python tests/tiny_model.py FOLDER

Its weights are random but for one direction, which gives every token the share that it has in the text the tokenizer
was trained on. So it writes nonsense in ordinary words, and ends after about `n_tokens` of them. `often` are texts that
become single tokens and turn up every dozen words or so, as ends of lines do: the tags that a genre asks for, say.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

ROOT = Path(__file__).resolve().parent.parent
END, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
N_POSITIONS = 8_192
# Logits of unit spread on top of the shares: the text depends on what stands before it, and on the seed.
SPREAD = 1.0
# The end of a line, as the tokenizer spells it.
NEWLINE = "\u010a"
# How far the constant direction rises above the others.
LEVEL = 8.0

TEMPLATE = """\
{%- if tools %}<|im_start|>system
# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif -%}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""


def make(folder: Path, *, n_tokens: int = 48, often: Sequence[str] = (), seed: int = 0) -> Path:
    """Writes model and tokenizer to `folder`, as vLLM and transformers load them; answers end after ~`n_tokens`."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    tokenizer = _tokenizer(text, often)
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=N_POSITIONS,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.convert_tokens_to_ids(END_OF_TURN),
        bos_token_id=None,
        dtype="float32",
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    _give_shares(model, _shares(tokenizer, text, n_tokens, often))
    model.save_pretrained(folder)
    return folder


def _tokenizer(text: str, often: Sequence[str]) -> PreTrainedTokenizerFast:
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = decoders.ByteLevel()
    special = [END, START_OF_TURN, END_OF_TURN]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learned.train_from_iterator(
        [text], trainers.BpeTrainer(vocab_size=2_000, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learned, eos_token=END_OF_TURN, pad_token=END)
    tokenizer.add_special_tokens({"additional_special_tokens": [START_OF_TURN]})
    tokenizer.add_tokens(list(often))
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _shares(tokenizer: Any, text: str, n_tokens: int, often: Sequence[str]) -> torch.Tensor:
    """The share of each token in what the model writes: as in the text, but for the end and what is wanted often."""
    ids = torch.tensor(tokenizer(text)["input_ids"])
    shares = torch.bincount(ids, minlength=len(tokenizer)).float() / len(ids)
    for token in (NEWLINE, *often):
        shares[tokenizer.convert_tokens_to_ids(token)] = 1 / 12
    shares[tokenizer.convert_tokens_to_ids(END_OF_TURN)] = 1 / n_tokens
    return shares / shares.sum()


def _give_shares(model: Any, shares: torch.Tensor) -> None:
    """The first direction of the stream is the same for every token and no layer writes to it: a bias of the logits."""
    with torch.no_grad():
        embedding, head, norm = model.model.embed_tokens.weight, model.lm_head.weight, model.model.norm.weight
        embedding.normal_()
        embedding[:, 0] = LEVEL
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        # After the norm the stream has the length sqrt(n); LEVEL of it, of what sqrt(n - 1 + LEVEL^2) are, is constant.
        n = embedding.shape[1]
        norm[0] = ((n - 1 + LEVEL**2) / n) ** 0.5 / LEVEL
        head.normal_(std=SPREAD / n**0.5)
        head[:, 0] = torch.log(shares.clamp_min(1e-6))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    print(make(arguments.parse_args().folder))
