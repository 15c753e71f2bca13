"""What does not fit into memory is said as that, with the size that it would take, before it is built."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.corpus.ids import load_corpus, write_corpus
from pipeline.lm.batching import Batches
from pipeline.lm.errors import TrainingError
from pipeline.lm.model import build_model, num_parameters
from pipeline.project import memory
from pipeline.project.memory import (
    OutOfMemoryError,
    as_size,
    bytes_of_weights,
    bytes_of_window,
    check_fits,
    num_weights,
)
from tests.small import CELLS, small_settings

TOKENS, VOCAB = 10_000, 500


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("tied", [False, True])
def test_the_estimate_is_of_the_model_that_is_built(cell: str, tied: bool) -> None:
    settings = small_settings(cell=cell, tied_weights=tied, hidden_size=64, embedding_size=64)
    built = num_parameters(build_model(settings, VOCAB))
    assert num_weights(settings, VOCAB) == built


def test_the_optimizer_and_the_window_count() -> None:
    weights = 4 * num_weights(small_settings(), VOCAB)
    for optimizer, copies in [
        ({"name": "sgd", "momentum": 0.0}, 3),
        ({"name": "sgd", "momentum": 0.5}, 4),
        ({"name": "adamw", "weight_decay": 0.0}, 5),
    ]:
        assert bytes_of_weights(small_settings(optimizer=optimizer), VOCAB) == copies * weights
    assert bytes_of_window(small_settings(batch_size=4, bptt=5), TOKENS, VOCAB) == 4 * 5 * (16 + 2 * 16 + VOCAB) * 4
    assert bytes_of_window(small_settings(batch_size=5_000, bptt=5), TOKENS, VOCAB) == 5_000 * 2 * (48 + VOCAB) * 4


@pytest.mark.parametrize(
    ("settings", "size", "remedy"),
    [
        ({"hidden_size": 100_000, "embedding_size": 100_000}, "2.56 TB", "lower hidden_size"),
        ({"num_layers": 1_000, "hidden_size": 50_000}, "320 TB", "lower hidden_size"),
        ({"batch_size": 9_000, "bptt": 1_000, "hidden_size": 2**20}, "TB", "lower hidden_size"),
    ],
)
def test_what_no_machine_has_is_refused_with_its_size(settings: dict[str, Any], size: str, remedy: str) -> None:
    with pytest.raises(OutOfMemoryError, match=f"training takes .*{size} .*{remedy}"):
        check_fits(small_settings(**settings), TOKENS, VOCAB)


def test_a_window_too_large_for_a_small_machine_names_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    check_fits(small_settings(), TOKENS, VOCAB)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 10**6)
    with pytest.raises(OutOfMemoryError, match=r"1\.75 MB for a window's .* 1 MB here: lower batch_size or bptt"):
        check_fits(small_settings(batch_size=100, bptt=8), TOKENS, VOCAB)


def test_a_batch_of_more_columns_than_tokens_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"batch_size is 10,000, and train has 10,000 tokens"):
        check_fits(small_settings(batch_size=TOKENS), TOKENS, VOCAB)


def test_this_machine_has_memory() -> None:
    assert 2**26 < memory.available_bytes(torch.device("cpu")) < 2**50


@pytest.mark.parametrize(
    ("number", "text"), [(999, "999 bytes"), (2.56e9, "2.56 GB"), (1e15, "1 PB"), (3.2e19, "32,000 PB")]
)
def test_sizes_are_for_people(number: float, text: str) -> None:
    assert as_size(number) == text


def anonymous_bytes() -> int:
    """What this process has in memory that is not mapped from files, which the kernel drops when it needs the room."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of a process's memory")
def test_a_corpus_and_its_windows_take_no_memory_that_grows_with_it() -> None:
    tokens = 10**7
    ids = {split: np.zeros(number, np.uint16) for split, number in {"train": tokens, "valid": 9, "test": 9}.items()}
    write_corpus(ids, ["<eos>"])
    corpus = load_corpus()
    corpus.train[: 10**5].clone()  # what is imported and set up at the first use is
    before = anonymous_bytes()
    corpus = load_corpus()
    assert len(corpus.fingerprint) == 64
    for batches in (Batches(corpus.train, 20, 25), Batches(corpus.train, 1, 1000)):
        assert sum(window.num_tokens for window in batches) == tokens - 1
    assert anonymous_bytes() - before < tokens  # less than a byte a token, of any of the arrays that there might be
