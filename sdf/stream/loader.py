"""Packed batches for training: a torch dataset whose state is one global cursor.

Each step is a global batch of `global_batch` sequences in one order. A rank takes its rows of every step, a worker
every n-th step of its rank: all plan all steps (from lengths, a few microseconds a sequence) and fetch their own rows
alone. So the state after a step is the same whoever saves it, and any number of ranks and workers goes on from it.

A batch carries the state after it. That is what a plain DataLoader with workers saves: `stream.state_dict(batch)` of
the last batch that was trained on, whatever was prefetched beyond.
"""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from sdf.errors import StreamError
from sdf.stream.batches import Arrivals, Batch, Layout, Report, Row, arrivals, filled, forget
from sdf.stream.corpus import Corpus
from sdf.stream.encoders import encoder_of
from sdf.stream.frames import Token, frame_of, tokenizer_hash
from sdf.stream.ids import Documents, StoredIds, TextIds
from sdf.stream.lengths import default_directory
from sdf.stream.mix import Cursor, Mix, Rules, Schedule, Sequence, Walk, Weights, check_type
from sdf.stream.order import WINDOW_ROWS, Shuffle
from sdf.stream.packing import Packing
from sdf.stream.states import FORMAT, State, check_kind, check_same, global_state, merged_weights, turn_of

try:
    import torch  # pyright: ignore[reportMissingImports]
    from torch.utils.data import IterableDataset, get_worker_info  # pyright: ignore[reportMissingImports]
    from torch.utils.data.dataloader import _BaseDataLoaderIter as BaseIterator  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("TokenStream needs torch: pip install 'sdf[train]'", name="torch") from error


class TokenStream(IterableDataset[Batch]):  # pyright: ignore[reportUntypedBaseClass]
    """Batches of packed sequences; pass to DataLoader with `batch_size=None`.

    corpus           a Corpus, or a Mix of several
    tokenizer        path of a tokenizer.json, tokenizers.Tokenizer, Hugging Face tokenizer or tiktoken encoding; None
                     for token exports, which name their own
    seq_len          tokens of a sequence
    global_batch     sequences of a step, over all ranks
    seed             of the order; with the manifest and the epoch it decides it all
    packing          "wrapped" (cut where a sequence is full) or "best_fit" (documents whole, sequences padded)
    long             of best_fit, documents longer than a sequence: "split" into pieces, or "truncate"
    eos, bos         the token after and before each document: its text, its id, None for none; "tokenizer" for the end
                     token the tokenizer names. Chats get neither: their template ends them
    mask_boundaries  the first token of each document is not learnt
    tag              a text before each document whose tokens are never learnt
    epochs           passes over the corpus (of a Mix: its own); None for no end
    max_tokens       ends before the step that would pass it: a shorter run is a prefix of a longer one
    tail             the last, incomplete step: "drop", or "pad" it with sequences that are not learnt
    shuffle, window_rows  the order on disk instead; how many rows are shuffled together and held in memory
    rank, world_size by default of torch.distributed, else of the RANK and WORLD_SIZE that torchrun sets, else one rank
    index_dir        where counted lengths are kept; None keeps none
    """

    def __init__(
        self,
        corpus: Corpus | Mix,
        tokenizer: Any = None,
        *,
        seq_len: int,
        global_batch: int,
        seed: int = 0,
        packing: Packing = "wrapped",
        long: Literal["split", "truncate"] = "split",
        eos: Token = "tokenizer",
        bos: Token = None,
        mask_boundaries: bool = True,
        tag: str | None = None,
        epochs: int | None = 1,
        max_tokens: float | None = None,
        tail: Literal["drop", "pad"] = "drop",
        shuffle: bool = True,
        window_rows: int = WINDOW_ROWS,
        rank: int | None = None,
        world_size: int | None = None,
        index_dir: str | os.PathLike[str] | Literal["default"] | None = "default",
    ) -> None:
        super().__init__()
        _check_choice("packing", packing, ("wrapped", "best_fit"))
        _check_choice("long", long, ("split", "truncate"))
        _check_choice("tail", tail, ("drop", "pad"))
        self._mix = _as_mix(corpus, epochs, tag)
        self._rank, self._world_size = _ranks(rank, world_size)
        _check_sizes(seq_len, global_batch, self._world_size)
        self._global_batch, self._max_tokens, self._tail = global_batch, max_tokens, tail
        pad_tail = tail == "pad" and self._mix.exhausted != "repeat"
        shuffled = Shuffle(seed, window_rows, shuffle)
        self._rules = Rules(seq_len, packing, long == "truncate", pad_tail, shuffled)
        self._tokenizer, self._encoder = tokenizer, encoder_of(tokenizer) if tokenizer is not None else None
        self._directory = default_directory() if index_dir == "default" else Path(index_dir) if index_dir else None
        self._frames = [
            frame_of(each, self._encoder, bos=bos, eos=eos, tag=self._mix.tags.get(name))
            for name, each in self._mix.corpora.items()
        ]
        self._layout = Layout(seq_len, self._pad(), mask_boundaries)
        self._weights: dict[int, dict[str, float]] = dict(self._mix.schedule)
        self._epoch = 0
        self._loaded: State | None = None
        self._latest: State | None = None
        self._run = uuid.uuid4().hex
        self._documents: list[Documents] | None = None
        self._identities: dict[tuple[str, int], dict[str, Any]] = {}
        self._fixed: dict[str, Any] | None = None
        self._settings()

    def __iter__(self) -> Iterator[Batch]:
        """Goes on from the loaded state, which serves one iteration; the next one starts anew."""
        state = self._loaded if not arrivals(self._run) else None
        self._loaded = None
        worker, n_workers = (info.id, info.num_workers) if (info := get_worker_info()) else (0, 1)
        schedule = self._schedule(state)
        turn = turn_of(state, schedule.step, worker, n_workers)
        self._latest = state
        for _ in range(int(state.get("ahead", 0)) if state else 0):
            self._drawn(schedule, 0, 0)
        n_given = first = schedule.step
        while True:
            is_mine = schedule.step % n_workers == turn
            low, high = self._own_rows() if is_mine else (0, 0)
            drawn = self._drawn(schedule, low, high)
            if drawn is None:
                break
            n_given += 1
            if is_mine:
                self._latest = self._state(schedule)
                yield Batch(self._batch(drawn, high - low), self._latest, self._run, first)
        if not n_given:
            raise StreamError(self._too_little(schedule))

    def state_dict(self, batch: Batch | None = None) -> State:
        """Where the stream is after `batch`, or without one after what was handed out by this process's iterator.

        Plain JSON values, the same on every rank; what DataLoader workers prefetched is never counted as read. Without
        a batch the iterator of a DataLoader with workers must still be there to say how far it is; StreamError when it
        is gone. A trainer that itself looks ahead has been handed more than it trained on: give it the batch.
        """
        if batch is not None:
            saved: State | None = getattr(batch, "state", None)
            if saved is None:
                raise StreamError("this batch lost its state on the way (it was rebuilt); keep batch.state beside it")
            return saved
        info: Any = get_worker_info()
        if info is None and (here := arrivals(self._run)) is not None:
            return self._handed_out(here)
        state: State = self._latest or self._loaded or self._state(self._schedule(None))
        # A worker goes on with its own steps, so its state says whose it is.
        return {**state, "worker": [info.id, info.num_workers]} if info and self._latest else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes a state of a stream, or of a StatefulDataLoader over one, from any number of ranks and workers.

        StreamError names what differs when it belongs to another corpus, tokenizer, seed or shape.
        """
        found = global_state(state, in_worker=get_worker_info() is not None)
        check_kind(found, "tokens")
        for name, corpus in found["corpora"].items():
            if name in self._mix.corpora:
                cursor = Cursor.from_state(found["cursors"][name])
                check_same(f"corpus {name!r}", corpus, self._identity(name, cursor.spot.version))
        check_same("stream", found["stream"], self._settings())
        self._weights = merged_weights(found, self._mix.schedule)
        self._begin(int(found["epoch"]), dict(found))

    def set_epoch(self, epoch: int) -> None:
        """Starts the next iteration at this epoch's order; a loaded state is let go."""
        self._begin(epoch, None)

    def set_weights(self, weights: Weights, *, step: int) -> None:
        """Other weights from `step` on; part of every state saved after. Call it before the iteration starts."""
        at = self._loaded["step"] if self._loaded else 0
        if step < at:
            raise StreamError(f"step {step} is past: the stream is at step {at}")
        self._weights[step] = self._mix.checked(weights)

    def report(self, state: Mapping[str, Any] | None = None) -> Report:
        """Counts up to a state (or a batch's state), of all ranks together."""
        return Report.of(state or self.state_dict())

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker makes its own encoder, whose functions do not pickle, and forgets a state that has served.
        loaded = None if arrivals(self._run) else self._loaded
        return self.__dict__ | {"_encoder": None, "_documents": None, "_loaded": loaded}

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self._encoder = encoder_of(self._tokenizer) if self._tokenizer is not None else None

    def _begin(self, epoch: int, loaded: State | None) -> None:
        forget(self._run)
        self._epoch, self._loaded, self._latest, self._run = epoch, loaded, None, uuid.uuid4().hex

    def _handed_out(self, here: Arrivals) -> State:
        """The state after the batch that a DataLoader last handed out.

        The loader alone knows which one that was, and tells nobody: its iterator is looked for among what is alive.
        """
        alive = [each for each in gc.get_objects() if issubclass(type(each), BaseIterator) and each._dataset is self]
        step = here.first + alive[0]._num_yielded if len(alive) == 1 else here.first
        if step == here.first or step not in here.states:
            raise StreamError(
                "DataLoader workers made the batches and have prefetched beyond what was trained on, and no iterator "
                "of theirs is left to say how far it was: save stream.state_dict(batch) of the last batch, or use "
                "torchdata's StatefulDataLoader"
            )
        return here.states[step]

    def _own_rows(self) -> tuple[int, int]:
        share = [rank * self._global_batch // self._world_size for rank in (self._rank, self._rank + 1)]
        return share[0], share[1]

    def _schedule(self, state: State | None) -> Schedule:
        corpora = self._mix.corpora
        walks: list[Walk] = []
        for (name, corpus), documents, frame in zip(corpora.items(), self._sources(), self._frames, strict=True):
            start = Cursor(replace(corpus.start, epoch=self._epoch))
            cursor = Cursor.from_state(state["cursors"][name]) if state else start
            epochs = self._mix.epochs[name]
            last = None if epochs is None else self._epoch + epochs
            walks.append(Walk(corpus, documents, self._rules, frame.n_tokens, last, cursor))
        given = [int(state["given"][name]) if state else 0 for name in corpora]
        schedule = Schedule(self._mix, walks, self._weights, int(state["step"]) if state else 0, given)
        schedule.n_blank = int(state["n_blank"]) if state else 0
        return schedule

    def _sources(self) -> list[Documents]:
        if self._documents is None:
            self._documents = [self._source(corpus) for corpus in self._mix.corpora.values()]
        return self._documents

    def _source(self, corpus: Corpus) -> Documents:
        if corpus.is_tokens:
            return StoredIds(corpus)
        assert self._encoder is not None
        return TextIds(corpus, self._encoder, self._rules.shuffle.window_rows, self._directory)

    def _drawn(self, schedule: Schedule, low: int, high: int) -> list[Sequence] | None:
        """The rows `low` to `high` of the next step; None when the stream ends before it."""
        before, _ = schedule.draw(low, want=False)
        own, sequences = schedule.draw(high - low, want=True) if before == low else (0, [])
        after, _ = schedule.draw(self._global_batch - high, want=False) if own == high - low else (0, [])
        n_blank = self._global_batch - before - own - after
        n_tokens = sum(walk.cursor.n_tokens for walk in schedule.walks)
        if self._max_tokens is not None and n_tokens > self._max_tokens:
            return None
        if n_blank and (self._tail == "drop" or n_blank == self._global_batch):
            return None
        schedule.n_blank += n_blank
        schedule.end_step()
        return sequences

    def _batch(self, sequences: list[Sequence], n_rows: int) -> dict[str, Any]:
        wanted: dict[tuple[int, int], dict[int, None]] = {}
        for each in sequences:
            wanted.setdefault((each.source, each.version), {}).update(dict.fromkeys(piece.row for piece in each.pieces))
        sources = self._sources()
        found = {key: sources[key[0]].encoded(key[1], list(rows)) for key, rows in wanted.items()}
        rows = [Row(each.pieces, found[each.source, each.version], self._frames[each.source]) for each in sequences]
        rows += [Row((), {}, self._frames[0])] * (n_rows - len(rows))
        return {name: torch.from_numpy(values) for name, values in filled(rows, self._layout).items()}

    def _state(self, schedule: Schedule) -> State:
        names = list(self._mix.corpora)
        versions = [walk.cursor.spot.version for walk in schedule.walks]
        return {
            "format": FORMAT,
            "kind": "tokens",
            "stream": self._settings(),
            "corpora": {name: self._identity(name, version) for name, version in zip(names, versions, strict=True)},
            "epoch": self._epoch,
            "step": schedule.step,
            "weights": [[step, dict(weights)] for step, weights in sorted(self._weights.items())],
            "given": dict(zip(names, schedule.given, strict=True)),
            "n_blank": schedule.n_blank,
            "cursors": {name: walk.cursor.to_state() for name, walk in zip(names, schedule.walks, strict=True)},
        }

    def _settings(self) -> dict[str, Any]:
        """What must be the same for a state to mean the same sequences."""
        if self._fixed is None:
            frames = [[each.tolist() for each in frame] for frame in self._frames]
            self._fixed = {
                "seed": self._rules.shuffle.seed,
                "seq_len": self._rules.seq_len,
                "global_batch": self._global_batch,
                "packing": self._rules.packing,
                "long": "truncate" if self._rules.truncate else "split",
                "mask_boundaries": self._layout.mask_boundaries,
                "shuffle": self._rules.shuffle.on,
                "window_rows": self._rules.shuffle.window_rows,
                "tokenizer (sha256)": tokenizer_hash(self._mix.corpora.values(), self._encoder),
                "corpora": list(self._mix.corpora),
                "bos, tag and eos ids": frames,
            }
        return self._fixed

    def _identity(self, name: str, version: int) -> dict[str, Any]:
        key = (name, version)
        if key not in self._identities:
            corpus = self._mix.corpora[name]
            self._identities[key] = {**corpus.identity, "sha256": corpus.snapshot(version).sha256}
        return self._identities[key]

    def _pad(self) -> int:
        return next((int(frame.tail[-1]) for frame in self._frames if len(frame.tail)), 0)

    def _too_little(self, schedule: Schedule) -> str:
        needed = self._global_batch * self._rules.seq_len
        n_tokens = sum(
            walk.cursor.n_tokens + sum(p.stop - p.start for p in walk.cursor.carry) for walk in schedule.walks
        )
        if self._max_tokens is not None and self._max_tokens < needed:
            return f"max_tokens={self._max_tokens:g} is less than one step of {needed:,} tokens"
        if not n_tokens:
            return "no document to train on: where= lets none through, or all of them are empty"
        return (
            f"{n_tokens:,} tokens make no step of {self._global_batch} sequences of {self._rules.seq_len}; lower "
            "global_batch or seq_len, give more epochs, or tail='pad'"
        )


def _as_mix(corpus: Corpus | Mix, epochs: int | None, tag: str | None) -> Mix:
    check_type(corpus, Corpus | Mix, "corpus", "give Corpus(...), or a Mix of several")
    if isinstance(corpus, Corpus):
        tags = {"corpus": tag} if tag else None
        return Mix({"corpus": corpus}, weights={"corpus": 1.0}, exhausted="stop", epochs=epochs, tags=tags)
    if epochs != 1 or tag:
        raise StreamError("epochs and tag of a Mix are given to the Mix, by corpus")
    return corpus


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise StreamError("give rank and world_size both, or neither")
    if rank is None or world_size is None:
        distributed: Any = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            rank, world_size = int(distributed.get_rank()), int(distributed.get_world_size())
        else:
            rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if not 0 <= rank < world_size:
        raise StreamError(f"rank {rank} of world_size {world_size}: ranks go from 0 to world_size - 1")
    return rank, world_size


def _check_sizes(seq_len: int, global_batch: int, world_size: int) -> None:
    check_type(seq_len, int, "seq_len", "give a whole number")
    check_type(global_batch, int, "global_batch", "give a whole number")
    if seq_len < 2:
        raise StreamError(f"seq_len={seq_len}: a sequence needs at least 2 tokens, one to read and one to learn")
    if global_batch < world_size:
        raise StreamError(f"global_batch={global_batch}: {world_size} ranks need at least one sequence each")


def _check_choice(name: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise StreamError(f"{name}={given!r}: give {' or '.join(map(repr, known))}")
