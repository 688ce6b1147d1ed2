"""A small training job that dies when it is told to, and goes on from its last checkpoint: run by the training tests.

    training_job.py trl|ddp CORPUS OUT [--kill-at STEP]

Every step's loss is appended to OUT/losses-RANK.txt as an exact float. `trl` is one process under TRL's SFTTrainer,
`ddp` a plain loop under torch's DistributedDataParallel over gloo, whose ranks are set by RANK and WORLD_SIZE.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sdf.stream import Corpus, TokenStream

STEPS, SAVE_EVERY, WORKERS = 40, 8, 2


def tokenizer() -> PreTrainedTokenizerFast:
    """A token is a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*alphabet, "<end>"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")


def tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=257, max_position_embeddings=128, **shape))


def stream(corpus: str) -> TokenStream:
    return TokenStream(Corpus(corpus), tokenizer(), seq_len=128, global_batch=8, seed=3, epochs=None, index_dir=None)


def loader(dataset: TokenStream) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=None, num_workers=WORKERS, prefetch_factor=4)


class Log:
    """What each step lost, on disk before the next one starts; death comes right after a step."""

    def __init__(self, out: Path, kill_at: int | None) -> None:
        self._path, self._kill_at = out / f"losses-{os.environ.get('RANK', 0)}.txt", kill_at
        self._last = 0

    def add(self, step: int, loss: float) -> None:
        if step == self._last:
            return
        self._last = step
        with self._path.open("a") as file:
            file.write(f"{step} {loss.hex()}\n")
        if step == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def model_inputs(batch: Any) -> dict[str, Any]:
    return {name: batch[name] for name in ("input_ids", "labels", "position_ids")}


def train_with_trl(corpus: str, out: Path, log: Log) -> None:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    data = stream(corpus)
    latest: list[Any] = []

    class SaveStream(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}" / "stream.json"
            path.write_text(json.dumps(data.state_dict(latest[-1])))

    class Trainer(SFTTrainer):
        def get_train_dataloader(self) -> Any:
            return loader(data)

        def training_step(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            # Here the batch is still the stream's; what the trainer makes of it has no state.
            latest[:] = [inputs]
            loss = super().training_step(model, model_inputs(inputs), *args, **options)
            losses.append(float(loss))
            return loss

        def _maybe_log_save_evaluate(self, *args: Any, **options: Any) -> None:
            super()._maybe_log_save_evaluate(*args, **options)
            log.add(self.state.global_step, losses[-1])

    losses: list[float] = []
    config = SFTConfig(
        output_dir=str(out), max_steps=STEPS, save_steps=SAVE_EVERY, learning_rate=5e-3, lr_scheduler_type="constant",
        logging_steps=1, report_to=[], use_cpu=True, bf16=False, ignore_data_skip=True, seed=0, disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True}, save_total_limit=2,
    )  # fmt: skip
    placeholder = Dataset.from_dict({"input_ids": [[0, 1]], "labels": [[0, 1]]})
    trainer = Trainer(
        tiny_model(), config, train_dataset=placeholder, processing_class=tokenizer(), callbacks=[SaveStream()]
    )
    # The stream's state is written last.
    whole = [path.parent for path in out.glob("checkpoint-*/stream.json")]
    last = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    if last is not None:
        data.load_state_dict(json.loads((last / "stream.json").read_text()))
    trainer.train(resume_from_checkpoint=str(last) if last else None)


def train_with_ddp(corpus: str, out: Path, log: Log) -> None:
    torch.distributed.init_process_group("gloo")
    model = torch.nn.parallel.DistributedDataParallel(tiny_model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    data, path, step = stream(corpus), out / "checkpoint.pt", 0
    if path.exists():
        kept = torch.load(path, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        data.load_state_dict(json.loads(kept["stream"]))
        step = kept["step"]
    for batch in loader(data):
        loss = model(**model_inputs(batch)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % SAVE_EVERY == 0 and os.environ["RANK"] == "0":
            # Any rank's state is that of all.
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state | {"stream": json.dumps(data.state_dict(batch))}, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
        torch.distributed.barrier()
        log.add(step, float(loss.detach()))
        if step == STEPS:
            break
    torch.distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=["trl", "ddp"])
    parser.add_argument("corpus")
    parser.add_argument("out", type=Path)
    parser.add_argument("--kill-at", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train = train_with_trl if given.how == "trl" else train_with_ddp
    train(given.corpus, given.out, Log(given.out, given.kill_at))


if __name__ == "__main__":
    sys.exit(main())
