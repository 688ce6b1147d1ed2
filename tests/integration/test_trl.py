"""TRL's SFTTrainer on a corpus as `datasets` loads it: documents, and chats with loss on the assistant's turns alone.

A model of a few thousand parameters is made here with a tokenizer trained on the corpus; nothing is downloaded.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from sdf.shards import write_shard
from sdf.storage import RunDir
from tests.corpora import commit, row
from tests.support import make, write_recipe

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[train]'")
    datasets = pytest.importorskip("datasets")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")

END, TURN = "<|end|>", "<|turn|>"
TEMPLATE = """\
{%- if tools %}{{- '<|turn|>tools\n' + tools | tojson + '<|end|>' }}{% endif %}
{%- for message in messages %}
{{- '<|turn|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' %}{% generation %}{{ message.content + '<|end|>' }}{% endgeneration %}
{%- else %}{{ message.content + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Offline notes, letters and conversations."""
    folder = tmp_path_factory.mktemp("trl")
    make(write_recipe(folder, tokens=20_000), folder / "corpus")
    return folder / "corpus"


@pytest.fixture
def load(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return lambda config: loaded(corpus, config, tmp_path)


def loaded(corpus: Path, config: str, tmp_path: Path) -> Any:
    return datasets.load_dataset(str(corpus), config, split="train", cache_dir=str(tmp_path / "cache"))


def tokenizer_of(texts: list[str]) -> Any:
    learned = tokenizers.Tokenizer(tokenizers.models.BPE())
    learned.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, special_tokens=[END, TURN], initial_alphabet=alphabet, show_progress=False
    )
    learned.train_from_iterator(texts, trainer)
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=learned, eos_token=END, pad_token=END)
    found.chat_template = TEMPLATE
    return found


def train(rows: Any, tokenizer: Any, out: Path, max_length: int = 128, **settings: Any) -> tuple[Any, list[float]]:
    """The trainer, and the loss of each step."""
    transformers.set_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    given = trl.SFTConfig(
        output_dir=str(out),
        max_length=max_length,
        max_steps=25,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=0,
        **settings,
    )
    trainer = trl.SFTTrainer(
        transformers.LlamaForCausalLM(config), args=given, train_dataset=rows, processing_class=tokenizer
    )
    trainer.train()
    return trainer, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def learnt(row: Any) -> list[int]:
    """The ids that a row is trained on; TRL's name for them changed in 1.0."""
    marked = [label != -100 for label in row["labels"]] if "labels" in row else row["assistant_masks"]
    return [id for id, mark in zip(row["input_ids"], marked, strict=True) if mark]


def assert_falls(losses: list[float]) -> None:
    assert len(losses) == 25
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0], losses


def test_documents(load: Any, tmp_path: Path) -> None:
    rows = load("documents")
    tokenizer = tokenizer_of(rows["text"])
    trainer, losses = train(rows, tokenizer, tmp_path)
    assert_falls(losses)
    first = trainer.train_dataset[0]["input_ids"]
    assert (
        tokenizer.decode(first).removesuffix(END) == rows[0]["text"][: len(tokenizer.decode(first).removesuffix(END))]
    )


def test_documents_packed(load: Any, tmp_path: Path) -> None:
    rows = load("documents")
    _, losses = train(rows, tokenizer_of(rows["text"]), tmp_path, packing=True, packing_strategy="wrapped")
    assert_falls(losses)


def test_chats_with_loss_on_the_assistant_alone(load: Any, tmp_path: Path) -> None:
    rows = load("chats").remove_columns("tools")
    tokenizer = tokenizer_of([turn["content"] for row in rows for turn in row["messages"]])
    trainer, losses = train(rows, tokenizer, tmp_path, max_length=512, assistant_only_loss=True)
    assert_falls(losses)
    for each in trainer.train_dataset:
        assert 0 < len(learnt(each)) < len(each["input_ids"])
    said = next(turn["content"] for turn in rows[0]["messages"] if turn["role"] == "assistant")
    assert tokenizer.decode(learnt(trainer.train_dataset[0]))[:40] == said[:40]


def test_chats_with_their_tools(tmp_path: Path) -> None:
    """`tools` is a JSON text, null where there are none: TRL reads both, and the template shows them to the model."""
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    turns = [
        [{"role": "user", "content": f"Why {n}?"}, {"role": "assistant", "content": "So it is."}] for n in range(100)
    ]
    chats = [
        row(number, messages=each, tools=json.dumps([tool]) if number % 2 else None)
        for number, each in enumerate(turns)
    ]
    run_dir = RunDir(tmp_path / "corpus")
    commit(run_dir, 1, None, write_shard(run_dir, "chats", "train", 0, chats))
    rows = loaded(Path(run_dir.root), "chats", tmp_path)
    tokenizer = tokenizer_of([json.dumps([tool])] + [turn["content"] for each in turns for turn in each])
    trainer, losses = train(rows, tokenizer, tmp_path)
    assert_falls(losses)
    shown = ["look_up" in tokenizer.decode(each["input_ids"]) for each in trainer.train_dataset]
    assert shown == [number % 2 == 1 for number in range(100)]
