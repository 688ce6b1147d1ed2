"""TokenStream under torch's loaders: the same tokens whatever ranks, workers and save points there are."""

from __future__ import annotations

import itertools
import json
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streams import END, GENRES, Growing, byte_tokenizer, chat, complete, documents

from sdf.errors import DamagedError, Missing, StreamError, TokenizerError
from sdf.stream import Corpus, Follow, Mix

pytestmark = pytest.mark.train

SHAPE: dict[str, Any] = {"seq_len": 32, "global_batch": 12, "eos": "tokenizer", "window_rows": 60, "index_dir": None}
# Of torch and torchdata: forking a process that has threads; neither is ours.
QUIET = ("ignore:.*fork.*:DeprecationWarning", "ignore:'set_vital' is deprecated:UserWarning")


def stream(corpus: Any, **changes: Any) -> Any:
    from sdf.stream import TokenStream

    return TokenStream(corpus, **{"tokenizer": byte_tokenizer(), "rank": 0, "world_size": 1, **SHAPE, **changes})


def loader(dataset: Any, num_workers: int = 0, kind: str = "plain", **options: Any) -> Any:
    from torch.utils.data import DataLoader
    from torchdata.stateful_dataloader import StatefulDataLoader

    make = {"plain": DataLoader, "stateful": StatefulDataLoader}[kind]
    return make(dataset, batch_size=None, num_workers=num_workers, **options)


def ids(batches: Any) -> list[Any]:
    return [batch["input_ids"].tolist() for batch in batches]


def together(per_rank: list[list[Any]]) -> list[Any]:
    """Global batches from those of the ranks, which must have equally many."""
    assert len({len(batches) for batches in per_rank}) == 1
    return [[row for part in parts for row in part] for parts in zip(*per_rank, strict=True)]


def saved(state: Any) -> Any:
    """A state as a checkpoint keeps it."""
    return json.loads(json.dumps(state))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(complete(tmp_path_factory.mktemp("corpus"), documents(300), rows_per_shard=50))


@pytest.fixture(scope="module")
def reference(corpus: Corpus) -> list[Any]:
    return ids(stream(corpus))


@pytest.fixture(scope="module")
def states(corpus: Corpus) -> list[Any]:
    """The state after each step of one rank."""
    return [batch.state for batch in stream(corpus)]


def tokens_of(rows: Any) -> list[int]:
    return [token for row in rows for token in [*row["text"].encode(), END]]


def test_every_token_once_an_epoch_in_the_documents_order(corpus: Corpus) -> None:
    batches = list(stream(corpus, tail="pad"))
    labels = np.concatenate([batch["labels"].numpy().reshape(-1) for batch in batches])
    flat = np.concatenate([batch["input_ids"].numpy().reshape(-1) for batch in batches])
    order = corpus.documents(window_rows=60)
    expected = tokens_of(order)
    assert flat[: len(expected)].tolist() == expected
    assert (labels[len(expected) :] == -100).all()
    assert len(flat) - len(expected) < 12 * 32


# A matrix of all is minutes long; these pairs visit every number of ranks and workers before and after.
@pytest.mark.filterwarnings(*QUIET)
@pytest.mark.parametrize(
    ("before", "after"),
    [((8, 4), (2, 0)), ((1, 0), (4, 3)), ((2, 3), (1, 1)), ((4, 1), (8, 4)), ((3, 2), (5, 0))],
)
def test_saved_on_some_ranks_and_workers_and_loaded_on_others(
    corpus: Corpus, reference: list[Any], before: tuple[int, int], after: tuple[int, int]
) -> None:
    n_steps = 7
    found: list[Any] = []
    parts: list[Any] = []
    for rank in range(before[0]):
        dataset = stream(corpus, rank=rank, world_size=before[0])
        batches = list(itertools.islice(loader(dataset, before[1]), n_steps))
        parts.append(ids(batches))
        found.append(saved(dataset.state_dict(batches[-1])))
    assert together(parts) == reference[:n_steps]
    assert all(state == found[0] for state in found), "the state is the same on every rank"
    resumed: list[Any] = []
    for rank in range(after[0]):
        dataset = stream(corpus, rank=rank, world_size=after[0])
        dataset.load_state_dict(found[-1])
        resumed.append(ids(loader(dataset, after[1])))
    assert together(resumed) == reference[n_steps:]


@pytest.mark.filterwarnings(*QUIET)
@pytest.mark.parametrize(("num_workers", "every"), [(0, 1), (1, 1), (3, 1), (3, 4)])
def test_a_stateful_loader_saves_and_resumes_by_itself(
    corpus: Corpus, reference: list[Any], num_workers: int, every: int
) -> None:
    for n_steps in (0, 1, 2, 5, 9):
        first = loader(stream(corpus), num_workers, "stateful", snapshot_every_n_steps=every)
        iterator = iter(first)
        taken = ids(itertools.islice(iterator, n_steps))
        state = pickle.loads(pickle.dumps(first.state_dict()))
        del iterator
        second = loader(stream(corpus), num_workers, "stateful", snapshot_every_n_steps=every)
        second.load_state_dict(state)
        assert taken + ids(second) == reference, n_steps
        # The same state goes on elsewhere: on two ranks with other workers.
        parts: list[Any] = []
        for rank in range(2):
            dataset = stream(corpus, rank=rank, world_size=2)
            dataset.load_state_dict(state)
            parts.append(ids(loader(dataset, 2 if num_workers == 0 else 0)))
        assert taken + together(parts) == reference, n_steps


@pytest.mark.filterwarnings(*QUIET)
def test_a_second_epoch_of_the_same_loader_is_whole(corpus: Corpus, reference: list[Any], states: list[Any]) -> None:
    """Loaders of others hang after the first epoch, or give nothing, or repeat what was resumed."""
    for kind, num_workers, options in (
        ("plain", 0, {}), ("plain", 2, {}), ("plain", 2, {"persistent_workers": True}),
        ("stateful", 0, {}), ("stateful", 2, {}),
    ):  # fmt: skip
        dataset = stream(corpus)
        dataset.load_state_dict(states[4])
        made = loader(dataset, num_workers, kind, **options)
        assert ids(made) == reference[5:], (kind, num_workers)
        for _ in range(2):
            assert ids(made) == reference, (kind, num_workers)


@pytest.mark.filterwarnings(*QUIET)
def test_batches_prefetched_by_workers_are_not_lost(corpus: Corpus, reference: list[Any]) -> None:
    dataset = stream(corpus)
    iterator = iter(loader(dataset, 2, prefetch_factor=8))
    batches = [next(iterator) for _ in range(3)]
    state = dataset.state_dict(batches[-1])
    assert dataset.state_dict() == state
    del iterator
    with pytest.raises(StreamError, match=r"prefetched beyond what was trained on.*: save stream.state_dict\(batch\)"):
        dataset.state_dict()
    resumed = stream(corpus)
    resumed.load_state_dict(saved(state))
    assert ids(batches) + ids(resumed) == reference
    assert [batch.step for batch in batches] == [0, 1, 2]
    with pytest.raises(StreamError, match="this batch lost its state"):
        dataset.state_dict(dict(batches[0]))


@pytest.mark.filterwarnings(*QUIET)
@pytest.mark.parametrize("options", [{}, {"persistent_workers": True}, {"prefetch_factor": 9}])
def test_the_state_after_what_a_loader_with_workers_handed_out(
    corpus: Corpus, states: list[Any], options: dict[str, Any]
) -> None:
    dataset = stream(corpus)
    dataset.load_state_dict(states[4])
    made = loader(dataset, 3, **options)
    for expected in (states[5:], states):
        iterator = iter(made)
        for state in expected:
            next(iterator)
            assert dataset.state_dict() == state
        assert next(iterator, None) is None
        assert dataset.state_dict() == states[-1], "after the end"


@pytest.mark.filterwarnings(*QUIET)
def test_spawned_workers_read_the_same(corpus: Corpus, reference: list[Any], states: list[Any]) -> None:
    from tokenizers import Tokenizer, models

    vocabulary = {chr(code): code for code in range(128)} | {"<end>": 128}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    plain = stream(corpus, tokenizer=tokenizer, eos="<end>")
    spawned = loader(stream(corpus, tokenizer=tokenizer, eos="<end>"), 2, multiprocessing_context="spawn")
    assert ids(spawned) == ids(plain) != reference


def test_a_finished_stream_is_over_and_says_so_in_its_state(corpus: Corpus, states: list[Any]) -> None:
    dataset = stream(corpus)
    dataset.load_state_dict(saved(states[-1]))
    assert ids(dataset) == []
    assert dataset.state_dict()["step"] == len(states)


@pytest.mark.parametrize("packing", ["wrapped", "best_fit"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_resuming_at_every_step_of_every_packing(corpus: Corpus, packing: str, epochs: int) -> None:
    options = {"packing": packing, "epochs": epochs, "tail": "pad", "global_batch": 5, "window_rows": 100}
    batches = list(stream(corpus, **options))
    for n_steps in range(0, len(batches), 7):
        dataset = stream(corpus, **options)
        dataset.load_state_dict(saved(batches[n_steps].state))
        # The pieces a window left over are in the state, so a step or two show it.
        assert ids(itertools.islice(dataset, 3)) == ids(batches[n_steps + 1 : n_steps + 4])
    real = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    report = dataset.report(batches[-1].state)
    assert report.n_tokens == epochs * len(tokens_of(documents(300)))
    assert report.n_documents == epochs * 300
    assert report.n_tokens + report.n_padding == len(batches) * 5 * 32
    assert 0 < report.n_tokens - real < report.n_tokens / 4
    assert report.waste < 0.07


def test_a_batch_says_where_its_documents_are(corpus: Corpus) -> None:
    import torch

    batch = next(iter(stream(corpus, packing="best_fit", seq_len=64, global_batch=8)))
    assert set(batch) == {"input_ids", "labels", "position_ids", "cu_seqlens"}, "an attention_mask would hide them"
    assert [batch[name].dtype for name in ("input_ids", "labels", "cu_seqlens")] == [
        torch.int64,
        torch.int64,
        torch.int32,
    ]
    flat, positions = batch["input_ids"].reshape(-1).tolist(), batch["position_ids"].reshape(-1).tolist()
    labels, bounds = batch["labels"].reshape(-1).tolist(), batch["cu_seqlens"].tolist()
    assert (bounds[0], bounds[-1]) == (0, len(flat))
    texts = {row["text"].encode() for row in documents(300)}
    n_whole = 0
    for start, stop in itertools.pairwise(bounds):
        assert positions[start:stop] == list(range(stop - start))
        assert labels[start] == -100
        if labels[stop - 1] == -100 and stop - start > 1:
            assert set(labels[start:stop]) == {-100}, "padding"
            continue
        assert labels[start + 1 : stop] == flat[start + 1 : stop]
        n_whole += bytes(flat[start : stop - 1]) in texts and flat[stop - 1] == END
    assert n_whole > 5
    parts = list(batch.split(3))
    assert torch.equal(torch.cat([part["input_ids"] for part in parts]), batch["input_ids"])
    for part in parts:
        starts = (part["position_ids"].reshape(-1) == 0).nonzero().reshape(-1).tolist()
        assert part["cu_seqlens"].tolist() == [*starts, part["input_ids"].numel()]


def test_boundaries_can_be_learnt_across_and_ends_left_out(corpus: Corpus) -> None:
    batch = next(iter(stream(corpus, mask_boundaries=False)))
    assert (batch["labels"] == batch["input_ids"]).all()
    without = np.concatenate([each["input_ids"].numpy().reshape(-1) for each in stream(corpus, eos=None)])
    assert END not in without
    begun = next(iter(stream(corpus, bos=7, eos=9)))
    starts = begun["input_ids"].reshape(-1)[begun["cu_seqlens"][:-1].long()]
    assert (starts[begun["position_ids"].reshape(-1)[begun["cu_seqlens"][:-1].long()] == 0] == 7).any()


def test_a_tag_is_read_and_never_learnt(corpus: Corpus) -> None:
    batches = list(stream(corpus, tag="<doc>", packing="best_fit", seq_len=200, global_batch=2))
    seen = 0
    for batch in batches:
        flat, labels = batch["input_ids"].reshape(-1).tolist(), batch["labels"].reshape(-1).tolist()
        for start in batch["cu_seqlens"][:-1].tolist():
            if bytes(token % 256 for token in flat[start : start + 5]) == b"<doc>":
                assert labels[start : start + 5] == [-100] * 5
                assert labels[start + 5] == flat[start + 5]
                seen += 1
    assert seen > 250


def test_long_documents_are_split_or_truncated_and_counted(corpus: Corpus) -> None:
    options: dict[str, Any] = {"packing": "best_fit", "seq_len": 16, "global_batch": 4, "tail": "pad"}
    split, cut = stream(corpus, **options), stream(corpus, **options, long="truncate")
    counts = [each.report(list(each)[-1].state) for each in (split, cut)]
    beyond = sum(max(0, len(row["text"]) + 1 - 16) for row in documents(300))
    assert [each.n_truncated for each in counts] == [0, beyond]
    assert counts[0].n_tokens == len(tokens_of(documents(300))) == counts[1].n_tokens + beyond


def test_a_smaller_run_is_a_prefix_of_a_larger(corpus: Corpus, reference: list[Any]) -> None:
    assert ids(stream(corpus, max_tokens=12 * 32 * 4 + 100)) == reference[:4]
    assert ids(stream(corpus, epochs=2))[: len(reference)] == reference
    with pytest.raises(StreamError, match="max_tokens=100 is less than one step of 384 tokens"):
        next(iter(stream(corpus, max_tokens=100)))


def test_too_little_for_a_step_is_said_on_every_rank(corpus: Corpus) -> None:
    for rank in range(2):
        with pytest.raises(
            StreamError, match=r"[\d,]+ tokens make no step of 2000 sequences of 32; lower global_batch"
        ):
            next(iter(stream(corpus, global_batch=2000, rank=rank, world_size=2)))


def test_ranks_that_do_not_divide_the_batch_get_equal_steps(corpus: Corpus, reference: list[Any]) -> None:
    parts = [ids(stream(corpus, rank=rank, world_size=5)) for rank in range(5)]
    assert together(parts) == reference
    assert {len(part[0]) for part in parts} == {2, 3}


def test_ranks_come_from_torchrun(corpus: Corpus, reference: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ids(stream(corpus, rank=None, world_size=None)) == [batch[6:] for batch in reference]


@pytest.mark.filterwarnings(*QUIET)
def test_mixed_corpora_resume_under_weights_that_changed(corpus: Corpus, tmp_path: Path) -> None:
    def mix(**changes: Any) -> Mix:
        parts = {name: Corpus(corpus.url, where={"genre": name}) for name in GENRES}
        weights = {"letter": 0.5, "essay": 0.3, "story": 0.2}
        return Mix(
            parts, **{"weights": weights, "exhausted": "stop", "epochs": None, "tags": {"essay": "E:"}} | changes
        )

    whole = stream(mix(), global_batch=6)
    whole.set_weights({"letter": 1}, step=10)
    batches = list(itertools.islice(whole, 25))
    tokens = [whole.report(batches[step].state).tokens_of for step in (9, 24)]
    assert tokens[0] == {"letter": 30 * 32, "essay": 18 * 32, "story": 12 * 32}
    assert tokens[1]["letter"] - tokens[0]["letter"] == 15 * 6 * 32
    for at in (4, 9, 17):
        parts: list[Any] = []
        for rank in range(2):
            dataset = stream(mix(), global_batch=6, rank=rank, world_size=2)
            dataset.load_state_dict(saved(batches[at].state))
            parts.append(ids(itertools.islice(loader(dataset, 2 * rank), 24 - at)))
        assert together(parts) == ids(batches[at + 1 :])
    with pytest.raises(StreamError, match="step 3 is past"):
        dataset.set_weights({"letter": 1}, step=3)
    with pytest.raises(StreamError, match="other weights from step 0 on"):
        stream(mix(weights={"letter": 1}), global_batch=6).load_state_dict(batches[4].state)


def test_a_growing_corpus_is_trained_on_and_resumed(tmp_path: Path) -> None:
    made = Growing(tmp_path)
    made.grow(documents(60))
    steps: Iterator[Any] = iter(
        [lambda: made.grow(documents(40, 60)), lambda: made.grow(documents(50, 100), "complete")]
    )
    growing = Corpus(tmp_path, follow=Follow(10, poll=1, sleep=lambda _: next(steps)()))
    batches = list(stream(growing, global_batch=4, tail="pad"))
    assert {batch.state["cursors"]["corpus"]["spot"]["version"] for batch in batches} == {1, 2, 3}
    report = stream(growing, global_batch=4).report(batches[-1].state)
    assert report.n_tokens == len(tokens_of(documents(150)))

    def never(_: float) -> None:
        raise AssertionError("all manifests are there")

    for at in range(0, len(batches), 9):
        dataset = stream(Corpus(tmp_path, follow=Follow(0, sleep=never)), global_batch=4, tail="pad")
        dataset.load_state_dict(saved(batches[at].state))
        assert ids(dataset) == ids(batches[at + 1 :])


@pytest.mark.filterwarnings(*QUIET)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_shard_that_goes_missing_or_bad_ends_every_rank_by_name(tmp_path: Path, num_workers: int) -> None:
    complete(tmp_path, documents(200), rows_per_shard=50)
    victim = sorted(tmp_path.glob("data/documents/*.parquet"))[2]
    data = victim.read_bytes()
    for damage, error in ((None, Missing), (data[:100] + b"\0\0\0\0" + data[104:], DamagedError)):
        victim.unlink() if damage is None else victim.write_bytes(damage)
        for rank in range(2):
            dataset = stream(Corpus(tmp_path), rank=rank, world_size=2, global_batch=4)
            with pytest.raises(error, match=victim.name):
                list(loader(dataset, num_workers, timeout=60 if num_workers else 0))


def hugging_face(template: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<pad>")
    found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    found.chat_template = template
    return found


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
)
FORGETFUL = "{% for m in messages %}{{ m.content if loop.last or m.role == 'user' else '...' }}|{% endfor %}"


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    rows = [chat(number) for number in range(40)]
    return Corpus(complete(tmp_path_factory.mktemp("talks"), rows, config="chats"), "chats")


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_chats_are_learnt_on_the_assistants_turns_alone(talks: Corpus, template: str) -> None:
    tokenizer = hugging_face(template)
    batches = list(stream(talks, tokenizer=tokenizer, packing="best_fit", seq_len=512, global_batch=2, tail="pad"))
    learnt: list[str] = []
    read: list[str] = []
    for batch in batches:
        flat, labels = batch["input_ids"].reshape(-1), batch["labels"].reshape(-1)
        for start, stop in itertools.pairwise(batch["cu_seqlens"].tolist()):
            learnt.append(tokenizer.decode([token for token in labels[start:stop].tolist() if token != -100]))
            read.append(tokenizer.decode(flat[start:stop].tolist()))
    assert sorted(filter(None, learnt)) == sorted(f"It is {n}.<|im_end|>\nYes.<|im_end|>\n" for n in range(40))
    chats = [text for text in read if "<|im_start|>" in text]
    assert len(chats) == 40
    assert all(text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat") for text in chats)


def test_a_template_that_cannot_tell_is_refused(talks: Corpus) -> None:
    with pytest.raises(StreamError, match="renders an assistant turn differently once more turns follow"):
        next(iter(stream(talks, tokenizer=hugging_face(FORGETFUL))))
    with pytest.raises(StreamError, match=r"row \d+: the chat template of .* refuses this chat"):
        next(iter(stream(talks, tokenizer=hugging_face("{{ raise_exception('no') }}"))))
    with pytest.raises(StreamError, match=r"row \d+: the chat template of .* refuses this chat"):
        next(iter(stream(talks, tokenizer=hugging_face(MARKED + "{{ raise_exception('no') }}"))))
    with pytest.raises(TokenizerError, match="chats need a Hugging Face tokenizer"):
        stream(talks)


SAID = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]


@pytest.mark.parametrize("template", [CHATML, MARKED])
@pytest.mark.parametrize(
    ("row", "words"),
    [
        *(({"messages": messages}, "holds no chat") for messages in (["What?"], "What?", 7, [{"content": "What?"}])),
        *(({"messages": SAID, "tools": tools}, "its tools are no JSON") for tools in ("{half", "[" * 100_000)),
        ({"messages": SAID, "tools": "7"}, "the chat template of .* refuses this chat"),
    ],
)
def test_what_is_no_chat_is_named_with_its_row(row: Any, words: str, template: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(StreamError, match=rf"x\.jsonl:1, row 0: {words}"):
        next(iter(stream(Corpus(tmp_path, "chats"), tokenizer=hugging_face(template))))


def test_the_three_kinds_of_tokenizer(corpus: Corpus, tmp_path: Path) -> None:
    tokenizer = hugging_face(CHATML)
    tokenizer.save_pretrained(tmp_path)
    # What a library switches on in passing changes nothing.
    tokenizer(["a b", "c"], truncation=True, max_length=1, padding=True)
    first = next(iter(stream(corpus, tokenizer=tokenizer)))
    second = stream(corpus, tokenizer=tmp_path / "tokenizer.json", eos="<end>")
    assert first["input_ids"].tolist() == next(iter(second))["input_ids"].tolist()
    second.load_state_dict(first.state)
    assert (
        stream(corpus, tokenizer=tmp_path / "tokenizer.json").state_dict()
        == stream(corpus, eos="<end>", tokenizer=tokenizer).state_dict()
    )
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(TokenizerError, match=r"names no end token; give eos="):
        stream(corpus, tokenizer=tmp_path / "tokenizer.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"bad\.json: not a tokenizer\.json"):
        stream(corpus, tokenizer=tmp_path / "bad.json")
    with pytest.raises(TokenizerError, match="no such file"):
        stream(corpus, tokenizer=tmp_path / "none.json")
    with pytest.raises(StreamError, match=r"another stream: tokenizer \(sha256\) was"):
        stream(corpus, eos=END).load_state_dict(first.state)


def test_stored_ids_are_the_texts_ids(corpus: Corpus, reference: list[Any], tmp_path: Path) -> None:
    from sdf.stream.encoders import encoder_of
    from sdf.stream.tokens_format import TokenIndex, write_index, write_shard

    encoder, rows = encoder_of(byte_tokenizer()), documents(300)
    parts = [encoder.encode([row["text"] for row in rows[start : start + 50]]) for start in range(0, 300, 50)]
    shards = tuple(write_shard(tmp_path, number, part) for number, part in enumerate(parts))
    counts = {"n_documents": 300, "n_tokens": sum(shard.n_tokens for shard in shards)}
    index = TokenIndex(
        tokenizer="bytes", tokenizer_hash=encoder.hash, eos=END, source="x", config="documents", split="train",
        **counts, shards=shards,
    )  # fmt: skip
    write_index(tmp_path, index)
    # Chunks are runs of 1,000 documents there, so the whole is one window, and order is by row alone.
    stored = stream(Corpus(tmp_path), tokenizer=None, shuffle=False)
    assert ids(stored) == ids(stream(corpus, shuffle=False)) != reference
    with pytest.raises(TokenizerError, match="different tokenizers in one stream"):
        stream(Corpus(tmp_path), tokenizer=byte_tokenizer(1))
    with pytest.raises(TokenizerError, match=r"the export names no token '</s>'"):
        stream(Corpus(tmp_path), tokenizer=None, eos="</s>")
    with pytest.raises(TokenizerError, match="a tag needs tokenizer="):
        stream(Corpus(tmp_path), tokenizer=None, tag="<doc>")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seq_len": 1}, "seq_len=1: a sequence needs at least 2 tokens"),
        ({"seq_len": 2.5}, "seq_len is 2.5; give a whole number"),
        ({"global_batch": "12"}, "global_batch is '12'; give a whole number"),
        ({"eos": -1}, "eos=-1: ids are numbers from 0"),
        ({"global_batch": 0}, "global_batch=0: 1 ranks need"),
        ({"global_batch": 4, "rank": 0, "world_size": 8}, "global_batch=4: 8 ranks need at least one sequence each"),
        ({"rank": 3, "world_size": 2}, "rank 3 of world_size 2"),
        ({"rank": 1, "world_size": None}, "give rank and world_size both, or neither"),
        ({"packing": "bfd"}, "packing='bfd': give 'wrapped' or 'best_fit'"),
        ({"tail": "keep"}, "tail='keep': give 'drop' or 'pad'"),
        ({"tokenizer": None}, "holds texts; give tokenizer="),
        ({"eos": "</s>"}, "has no token '</s>'; give eos="),
    ],
)
def test_mistakes_are_named_before_anything_is_read(corpus: Corpus, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((StreamError, TokenizerError), match=message):
        stream(corpus, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "another stream: seed was 0, is 1"),
        ({"seq_len": 64}, "seq_len was 32, is 64"),
        ({"global_batch": 24}, "global_batch was 12, is 24"),
        ({"packing": "best_fit"}, "packing was 'wrapped', is 'best_fit'"),
        ({"tokenizer": byte_tokenizer(1)}, r"tokenizer \(sha256\) was"),
        ({"eos": None}, "bos, tag and eos ids was"),
        ({"window_rows": 61}, "window_rows was 60, is 61"),
    ],
)
def test_a_state_that_does_not_belong_is_refused(
    corpus: Corpus, states: list[Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(StreamError, match=message):
        stream(corpus, **changes).load_state_dict(saved(states[2]))


@pytest.mark.parametrize("given", [None, {}, 3, {"kind": "tokens", "format": 1}])
def test_what_is_no_state_is_refused(corpus: Corpus, states: list[Any], given: Any) -> None:
    with pytest.raises(StreamError, match=r"not a state|the state lacks 'stream'"):
        stream(corpus).load_state_dict(given)
    torn = {name: value for name, value in states[2].items() if name != "cursors"}
    with pytest.raises(StreamError, match="the state lacks 'cursors': torn or edited"):
        stream(corpus).load_state_dict(torn)


def test_an_address_is_no_corpus(corpus: Corpus) -> None:
    given: Any = str(corpus.place)
    with pytest.raises(StreamError, match=r"give Corpus\(\.\.\.\), or a Mix"):
        stream(given)


def test_a_choice_that_lets_none_through_is_said(corpus: Corpus) -> None:
    chosen = Corpus(corpus.url, where={"genre": "none"})
    with pytest.raises(StreamError, match="no document to train on: where= lets none through"):
        list(stream(chosen))


def test_a_state_of_another_corpus_or_kind_is_refused(corpus: Corpus, states: list[Any], tmp_path: Path) -> None:
    other = Corpus(complete(tmp_path, documents(300, 5)))
    with pytest.raises(StreamError, match="another corpus 'corpus': sha256 was"):
        stream(other).load_state_dict(states[2])
    with pytest.raises(StreamError, match="a state of documents, not of tokens"):
        stream(corpus).load_state_dict(corpus.documents().state_dict())
    items = Corpus(complete(tmp_path / "items", [chat(1)], config="prompts"), "prompts")
    with pytest.raises(StreamError, match="prompts are not trained on"):
        stream(items)


def test_an_epoch_can_be_chosen(corpus: Corpus, reference: list[Any]) -> None:
    dataset = stream(corpus)
    dataset.set_epoch(1)
    second = ids(dataset)
    assert second[0] != reference[0]
    two = ids(stream(corpus, epochs=2))
    assert (
        sorted(token for batch in second for row in batch for token in row)[:50]
        == sorted(token for batch in two[len(two) - len(second) :] for row in batch for token in row)[:50]
    )


@pytest.mark.filterwarnings(*QUIET)
def test_a_stream_holds_the_states_of_one_epoch_however_many_there_were(corpus: Corpus, states: list[Any]) -> None:
    from sdf.stream import batches

    made = stream(corpus)
    n_runs = len(batches._ARRIVED)
    for epoch in range(3):
        made.set_epoch(epoch)
        last = list(loader(made, 1))[-1]
        assert last.run in batches._ARRIVED and len(batches._ARRIVED) == n_runs + 1
    made.load_state_dict(saved(states[0]))
    assert len(batches._ARRIVED) == n_runs


def test_no_warning_is_ours(corpus: Corpus) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(iter(stream(corpus)))
