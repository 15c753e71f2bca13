"""The textbook GRU: its equations, its state, and that it trains."""

import torch
from torch import Tensor, nn

from pipeline.lm.gru_textbook import TextbookGRU
from pipeline.lm.training import Training
from tests.small import small_settings

INPUT, HIDDEN, TIME, BATCH = 4, 5, 7, 3


def textbook() -> TextbookGRU:
    torch.manual_seed(0)
    return TextbookGRU(INPUT, HIDDEN).double()


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_the_equations(layer: TextbookGRU, inputs: Tensor, hidden: Tensor) -> Tensor:
    """The four equations, a column, a step and a matrix at a time: [time, features], [hidden] -> [time, hidden]."""
    wxz, wxr, wxg = layer.inputs.weight.chunk(3)
    bz, br, bg = layer.inputs.bias.chunk(3)
    whz, whr = layer.gates.weight.chunk(2)
    whg = layer.candidate.weight
    outputs = []
    for x in inputs:
        z = 1 / (1 + torch.exp(-(wxz @ x + whz @ hidden + bz)))
        r = 1 / (1 + torch.exp(-(wxr @ x + whr @ hidden + br)))
        g = torch.tanh(wxg @ x + whg @ (r * hidden) + bg)
        hidden = z * hidden + (1 - z) * g
        outputs.append(hidden)
    return torch.stack(outputs)


def test_it_is_the_four_equations() -> None:
    gru, inputs, state = textbook(), random(TIME, BATCH, INPUT), random(1, BATCH, HIDDEN)
    outputs, last = gru(inputs, state)
    for column in range(BATCH):
        expected = by_the_equations(gru, inputs[:, column], state[0, column])
        torch.testing.assert_close(outputs[:, column], expected)
        torch.testing.assert_close(last[0, column], expected[-1])


def test_its_gradients_are_those_of_finite_differences() -> None:
    gru = textbook()
    names, values = zip(*gru.named_parameters(), strict=True)

    def outputs(inputs: Tensor, state: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.functional_call(gru, dict(zip(names, weights, strict=True)), (inputs, state))

    inputs, state = random(3, 2, INPUT).requires_grad_(), random(1, 2, HIDDEN).requires_grad_()
    assert torch.autograd.gradcheck(outputs, (inputs, state, *values))


def test_two_halves_with_the_state_carried_are_the_whole() -> None:
    gru, inputs = textbook(), random(TIME, BATCH, INPUT)
    whole, last = gru(inputs)
    first, state = gru(inputs[:3])
    second, last_of_halves = gru(inputs[3:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(last_of_halves, last)


def test_no_state_is_a_state_of_zeros() -> None:
    gru, inputs = textbook(), random(TIME, BATCH, INPUT)
    torch.testing.assert_close(gru(inputs), gru(inputs, torch.zeros(1, BATCH, HIDDEN, dtype=torch.float64)))


def test_it_takes_and_gives_the_shapes_of_nn_gru() -> None:
    inputs, state = random(TIME, BATCH, INPUT), random(1, BATCH, HIDDEN)
    shapes = [tuple(part.shape for part in gru(inputs, state)) for gru in (textbook(), nn.GRU(INPUT, HIDDEN).double())]
    assert shapes[0] == shapes[1]


def test_in_bfloat16_it_is_near_float32_with_state_and_weights_in_float32() -> None:
    gru, inputs = textbook().float(), random(TIME, BATCH, INPUT).float()
    exact, _ = gru(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, state = gru(inputs)
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.02)
    assert state.dtype == rounded.dtype == torch.float32
    rounded.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in gru.parameters())


def test_it_makes_every_tensor_on_the_device_of_its_input() -> None:
    """PyTorch refuses to mix tensors of the `meta` device with others, as it does with CUDA's."""
    gru = textbook().to("meta")
    outputs, state = gru(random(TIME, BATCH, INPUT).to("meta"))
    assert outputs.device.type == state.device.type == "meta"


def test_it_learns_a_text() -> None:
    """After 1 comes 2 and after 3 comes 4, but after 0 comes 1 or 3 in turn: that takes a memory."""
    text = torch.tensor([0, 1, 2, 0, 3, 4] * 100)
    settings = small_settings(cell="gru_textbook", epochs=10)
    training = Training(settings, text, text[:61], vocabulary_size=5)
    for _ in range(settings.epochs):
        record = training.run_epoch()
    assert training.history[0].train_perplexity > 2
    without_memory = 2 ** (1 / 3)  # one token in three is a toss of a coin to a model that sees only the token before
    assert record.train_perplexity < 1.05 < without_memory
