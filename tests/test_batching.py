"""How a text becomes windows: nothing lost, nothing twice, everything in its order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.lm.batching import IGNORED, Batches, Window

texts = st.integers(2, 200)
sizes = st.integers(1, 30)


def whole(tokens: torch.Tensor, batch_size: int) -> Window:
    """The columns in one window."""
    (window,) = Batches(tokens, batch_size, len(tokens))
    return window


def test_the_drawn_example() -> None:
    a_to_n = torch.arange(14)
    inputs, targets, num_tokens = whole(a_to_n, batch_size=2)
    assert inputs.t().tolist() == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12, 0]]
    assert targets.t().tolist() == [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, IGNORED]]
    assert num_tokens == 13
    assert [window.num_tokens for window in Batches(a_to_n, batch_size=2, bptt=3)] == [6, 6, 1]


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
    assert torch.equal(columns, whole(batches.tokens, batch_size).inputs)
    assert torch.all((columns[1:] == columns[:-1] + 1) | (columns[1:] == 0))


def test_a_text_of_one_token_is_refused() -> None:
    with pytest.raises(AssertionError):
        Batches(torch.tensor([3]), batch_size=1, bptt=1)


@given(texts, sizes, sizes, sizes)
def test_a_first_window_of_another_length_moves_the_cuts_and_loses_nothing(
    length: int, batch_size: int, bptt: int, first: int
) -> None:
    batches = Batches(torch.arange(length), batch_size, bptt)
    windows = list(batches.cut_at(min(first, bptt)))
    columns = whole(batches.tokens, batch_size)
    assert torch.equal(torch.cat([window.inputs for window in windows]), columns.inputs)
    assert torch.equal(torch.cat([window.targets for window in windows]), columns.targets)
    assert sum(window.num_tokens for window in windows) == length - 1
    assert len(windows[0].inputs) == min(first, bptt, len(columns.inputs))
    assert all(len(window.inputs) <= bptt for window in windows)


@given(texts, sizes, sizes)
def test_a_windows_tokens_are_its_targets_that_are_not_padding(length: int, batch_size: int, bptt: int) -> None:
    for window in Batches(torch.arange(length), batch_size, bptt):
        assert window.num_tokens == (window.targets != IGNORED).sum()


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32])
def test_a_text_in_fewer_bits_gives_the_same_windows(dtype: torch.dtype) -> None:
    largest = min(torch.iinfo(dtype).max, 2**31 + 5)
    tokens = torch.arange(largest - 500, largest + 1)
    for small, large in zip(Batches(tokens.to(dtype), 7, 5), Batches(tokens, 7, 5), strict=True):
        assert torch.equal(small.inputs, large.inputs)
        assert torch.equal(small.targets, large.targets)
