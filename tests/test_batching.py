"""How a text becomes windows: nothing lost, nothing twice, everything in its order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.lm.batching import IGNORED, Batches

texts = st.integers(2, 200)
sizes = st.integers(1, 30)


def test_the_drawn_example() -> None:
    a_to_n = torch.arange(14)
    batches = Batches(a_to_n, batch_size=2, bptt=3)
    assert batches.inputs.t().tolist() == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12, 0]]
    assert batches.targets.t().tolist() == [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, IGNORED]]
    assert [window.num_tokens for window in batches] == [6, 6, 1]


@given(length=texts, batch_size=sizes, bptt=sizes)
def test_every_token_after_the_first_is_a_target_exactly_once(length: int, batch_size: int, bptt: int) -> None:
    batches = Batches(torch.arange(length), batch_size, bptt)
    windows = list(batches)
    targets = torch.cat([window.targets.flatten() for window in windows])
    assert sorted(targets[targets != IGNORED].tolist()) == list(range(1, length))
    assert sum(window.num_tokens for window in windows) == batches.num_tokens == length - 1
    assert len(batches) == len(windows)


@given(length=texts, batch_size=sizes, bptt=sizes)
def test_the_input_of_a_target_is_the_token_before_it(length: int, batch_size: int, bptt: int) -> None:
    for inputs, targets, _ in Batches(torch.arange(length), batch_size, bptt):
        real = targets != IGNORED
        assert torch.equal(inputs[real] + 1, targets[real])


@given(length=texts, batch_size=sizes, bptt=sizes)
def test_each_column_goes_on_from_window_to_window(length: int, batch_size: int, bptt: int) -> None:
    batches = Batches(torch.arange(length), batch_size, bptt)
    columns = torch.cat([window.inputs for window in batches])
    assert torch.equal(columns, batches.inputs)
    assert torch.all((columns[1:] == columns[:-1] + 1) | (columns[1:] == 0))


def test_a_text_of_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two tokens"):
        Batches(torch.tensor([3]), batch_size=1, bptt=1)


@given(texts, sizes, sizes, sizes)
def test_a_first_window_of_another_length_moves_the_cuts_and_loses_nothing(
    length: int, batch_size: int, bptt: int, first: int
) -> None:
    batches = Batches(torch.arange(length), batch_size, bptt)
    windows = list(batches.windows(min(first, bptt)))
    assert torch.equal(torch.cat([window.inputs for window in windows]), batches.inputs)
    assert torch.equal(torch.cat([window.targets for window in windows]), batches.targets)
    assert sum(window.num_tokens for window in windows) == length - 1
    assert len(windows[0].inputs) == min(first, bptt, len(batches.inputs))
    assert all(len(window.inputs) <= bptt for window in windows)
