"""The model's wiring: causal, stateful, dropout where the paper puts it."""

import pytest
import torch

from pipeline.lm.model import TOKENS_COUNTED_AT_A_TIME, build_model, detach, num_parameters
from pipeline.lm.training import Training
from tests.small import CELLS, small_settings

VOCAB = 50


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
def test_parameter_counts_follow_from_the_shapes(cell: str, gates: int) -> None:
    model = build_model(small_settings(cell=cell, hidden_size=12, embedding_size=7), VOCAB)
    first = gates * (12 * 7 + 12 * 12 + 2 * 12)  # PyTorch keeps two bias vectors a gate
    second = gates * (12 * 12 + 12 * 12 + 2 * 12)
    assert num_parameters(model) == VOCAB * 7 + first + second + 12 * VOCAB + VOCAB


@pytest.mark.parametrize("cell", CELLS)
def test_a_token_changes_no_logits_before_it(cell: str) -> None:
    model = build_model(small_settings(cell=cell), VOCAB).eval()
    tokens = torch.randint(VOCAB, (80, 3))
    changed = tokens.clone()
    changed[50] = (changed[50] + 1) % VOCAB
    logits, _ = model(tokens)
    logits_changed, _ = model(changed)
    assert torch.equal(logits[:50], logits_changed[:50])
    assert not torch.equal(logits[50], logits_changed[50])
    assert not torch.equal(logits[79], logits_changed[79])


@pytest.mark.parametrize("cell", CELLS)
def test_the_state_carries_all_of_the_past(cell: str) -> None:
    model = build_model(small_settings(cell=cell), VOCAB).eval()
    tokens = torch.randint(VOCAB, (30, 3))
    whole, _ = model(tokens)
    first, state = model(tokens[:11])
    second, _ = model(tokens[11:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    alone, _ = model(tokens[11:])
    assert not torch.allclose(alone, whole[11:])


@pytest.mark.parametrize("cell", CELLS)
def test_dropout_is_off_in_evaluation(cell: str) -> None:
    tokens = torch.randint(VOCAB, (10, 3))
    plain = build_model(small_settings(cell=cell, dropout=0.0), VOCAB).eval()
    dropping = build_model(small_settings(cell=cell, dropout=0.6), VOCAB).eval()
    assert torch.equal(plain(tokens)[0], dropping(tokens)[0])


@pytest.mark.parametrize("cell", CELLS)
def test_dropout_falls_on_all_three_kinds_of_non_recurrent_connection(cell: str) -> None:
    """What the first layer, the second layer and the softmax layer read has zeros in the share asked for."""
    model = build_model(small_settings(cell=cell, dropout=0.4, hidden_size=64, embedding_size=64), VOCAB)
    seen: list[torch.Tensor] = []
    for reader in (*model.layers, model.output):
        reader.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.randint(VOCAB, (50, 20)))
    assert len(seen) == 3
    for read in seen:
        assert (read == 0).float().mean().item() == pytest.approx(0.4, abs=0.02)


def test_each_kind_of_connection_may_have_its_own_rate() -> None:
    settings = small_settings(dropout=0.2, embedding_dropout=0.0, output_dropout=0.5, hidden_size=64, embedding_size=64)
    model = build_model(settings, VOCAB)
    seen: list[torch.Tensor] = []
    for reader in (*model.layers, model.output):
        reader.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.randint(VOCAB, (50, 20)))
    assert [(read == 0).float().mean().item() for read in seen] == pytest.approx([0, 0.2, 0.5], abs=0.02)


def test_tied_weights_are_one_and_learn_from_both_uses() -> None:
    tied = build_model(small_settings(tied_weights=True), VOCAB)
    assert tied.output.weight is tied.embedding.weight
    assert num_parameters(build_model(small_settings(), VOCAB)) - num_parameters(tied) == VOCAB * 16
    tokens = torch.randint(VOCAB, (20, 3))
    tied(tokens, targets=tokens)[0].backward()
    both = tied.embedding.weight.grad
    embedded = tied.embedding(tokens).detach().requires_grad_()
    tied.embedding.register_forward_hook(lambda *_: embedded)
    tied.zero_grad()
    tied(tokens, targets=tokens)[0].backward()
    of_softmax = tied.embedding.weight.grad
    of_embedding = torch.zeros_like(both).index_add_(0, tokens.flatten(), embedded.grad.flatten(0, 1))
    torch.testing.assert_close(both, of_softmax + of_embedding)


@pytest.mark.parametrize("cell", CELLS)
def test_dropout_never_touches_the_state_carried_through_time(cell: str) -> None:
    """With one layer and its input undropped, the last state is the same whatever falls on the output."""
    model = build_model(small_settings(cell=cell, dropout=0.9, num_layers=1), VOCAB).train()
    tokens = torch.randint(VOCAB, (20, 3))
    embedded = model.embedding(tokens)
    model.embedding.register_forward_hook(lambda *_: torch.zeros_like(embedded))
    (logits, state), (logits_again, state_again) = model(tokens), model(tokens)
    assert not torch.equal(logits, logits_again)
    torch.testing.assert_close(state, state_again, rtol=0, atol=0)


def test_weights_start_uniform_within_the_range_and_follow_the_seed() -> None:
    first, same, other = (build_model(small_settings(seed=seed, init_range=0.05), VOCAB) for seed in (1, 1, 2))
    weights = torch.cat([parameter.flatten() for parameter in first.parameters()])
    assert weights.abs().max() <= 0.05
    assert weights.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.05)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.output.weight, other.output.weight)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int64])
def test_a_model_may_start_as_a_unigram_model(dtype: torch.dtype) -> None:
    tokens = torch.cat([torch.arange(VOCAB - 1), torch.zeros(2 * TOKENS_COUNTED_AT_A_TIME, dtype=torch.int64)])
    trainings = [
        Training(small_settings(unigram_bias=chosen), tokens.to(dtype), tokens[:40].to(dtype), VOCAB)
        for chosen in (False, True)
    ]
    plain, unigram = ({name: w.clone() for name, w in training.model.named_parameters()} for training in trainings)
    bias = unigram.pop("output.bias")
    counts = torch.tensor([2 * TOKENS_COUNTED_AT_A_TIME + 2.0, *[2.0] * (VOCAB - 2), 1.0])
    torch.testing.assert_close(bias.softmax(0), counts / counts.sum())
    assert bias.exp().sum().item() == pytest.approx(1, abs=1e-4)
    assert all(torch.equal(weight, plain[name]) for name, weight in unigram.items())


def test_a_detached_state_keeps_its_value_and_loses_its_history() -> None:
    part = torch.ones(3, requires_grad=True) * 2
    detached = detach([part, (part, part)])
    assert detached is not None
    for copy in (detached[0], *detached[1]):
        assert torch.equal(copy, part)
        assert not copy.requires_grad
    assert detach(None) is None
