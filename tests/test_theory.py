"""Each claim of docs/theory.md, held against the code or computed by hand in float64; its sections in its order."""

import re
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.flop_counter import FlopCounterMode

from pipeline.lm.batching import IGNORED, Batches
from pipeline.lm.gru_textbook import TextbookGRU
from pipeline.lm.model import LanguageModel, build_model, num_parameters
from tests.small import CELLS, ROOT, committed_params, small_settings

THEORY = (ROOT / "docs/theory.md").read_text(encoding="utf-8")

VOCAB = 20
LENGTHS = [6, 1, 9, 4]


@pytest.fixture(autouse=True)
def the_same_random_numbers_in_every_run() -> None:
    torch.manual_seed(0)


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def language_model(cell: str) -> LanguageModel:
    return build_model(small_settings(cell=cell, init_range=0.5), VOCAB).double().eval()


def default_model(cell: str) -> LanguageModel:
    """Of the size that params.yaml gives, on Penn Treebank."""
    params = committed_params()
    assert params.preprocess.expected
    return build_model(params.train.model_copy(update={"cell": cell}), params.preprocess.expected.vocabulary_size)


# 1. Input and output of variable length


def padded_lines() -> tuple[list[Tensor], Tensor]:
    """Lines of ids [length + 1], and all of them side by side [time + 1, batch], the shorter ones filled up."""
    lines = [torch.randint(VOCAB, (length + 1,)) for length in LENGTHS]
    return lines, pad_sequence(lines, padding_value=7)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_behind_a_line_changes_none_of_its_logits(cell: str) -> None:
    model = language_model(cell)
    lines, padded = padded_lines()
    logits, _ = model(padded)
    for column, line in enumerate(lines):
        close(logits[: len(line), column], model(line[:, None])[0][:, 0])


@pytest.mark.parametrize("cell", CELLS)
def test_padding_before_a_line_changes_its_logits(cell: str) -> None:
    model, line = language_model(cell), torch.randint(VOCAB, (5, 1))
    padding = torch.zeros(3, 1, dtype=torch.int64)
    assert not torch.allclose(model(torch.cat([padding, line]))[0][3:], model(line)[0], atol=1e-3)


def test_the_masked_loss_of_a_padded_batch_is_that_of_its_lines() -> None:
    model = language_model("lstm")
    lines, padded = padded_lines()
    alone = sum(F.cross_entropy(model(line[:-1, None])[0][:, 0], line[1:], reduction="sum") for line in lines)
    logits = model(padded[:-1])[0].flatten(0, 1)
    behind = torch.arange(max(LENGTHS))[:, None] >= torch.tensor(LENGTHS)
    targets = padded[1:].masked_fill(behind, IGNORED).flatten()
    close(F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum"), alone)
    close(F.cross_entropy(logits, targets, ignore_index=IGNORED), alone / sum(LENGTHS))
    unmasked = F.cross_entropy(logits, padded[1:].flatten(), reduction="sum")
    assert not torch.allclose(unmasked, alone, rtol=0.1)


def test_a_mask_that_holds_the_state_ends_with_that_of_each_lines_last_token() -> None:
    gru, inputs = TextbookGRU(4, 5).double(), torch.randn(max(LENGTHS), len(LENGTHS), 4, dtype=torch.float64)
    state = torch.zeros(1, len(LENGTHS), 5, dtype=torch.float64)
    for t, x in enumerate(inputs):
        reading = (t < torch.tensor(LENGTHS)).double()[:, None]
        state = reading * gru(x[None], state)[1] + (1 - reading) * state
    for column, length in enumerate(LENGTHS):
        close(state[0, column], gru(inputs[:length, [column]])[1][0, 0])


def test_packing_by_lengths_ends_with_the_state_of_each_lines_last_token() -> None:
    lstm, inputs = nn.LSTM(4, 5).double(), torch.randn(max(LENGTHS), len(LENGTHS), 4, dtype=torch.float64)
    _, (hidden, cell) = lstm(pack_padded_sequence(inputs, torch.tensor(LENGTHS), enforce_sorted=False))
    for column, length in enumerate(LENGTHS):
        _, (hidden_alone, cell_alone) = lstm(inputs[:length, [column]])
        close((hidden[0, column], cell[0, column]), (hidden_alone[0, 0], cell_alone[0, 0]))


@pytest.mark.parametrize("cell", CELLS)
def test_the_last_relevant_output_is_that_at_length_minus_one(cell: str) -> None:
    rnn, inputs = language_model(cell).layers[0], torch.randn(max(LENGTHS), len(LENGTHS), 16, dtype=torch.float64)
    outputs, _ = rnn(inputs)
    relevant = outputs[torch.tensor(LENGTHS) - 1, torch.arange(len(LENGTHS))]
    for column, length in enumerate(LENGTHS):
        close(relevant[column], rnn(inputs[:length, [column]])[0][-1, 0])
    assert not torch.allclose(outputs[-1], relevant)


@pytest.mark.parametrize("length", [2, 21, 100, 601])
def test_fewer_places_of_a_text_are_padding_than_it_has_columns(length: int) -> None:
    (whole,) = Batches(torch.zeros(length, dtype=torch.int64), batch_size=20, bptt=length)
    padding = whole.targets == IGNORED
    assert padding.sum() == padding.numel() - (length - 1) < 20
    assert (padding.int().diff(dim=0) >= 0).all()  # nothing counts after padding in its column


@pytest.mark.parametrize("cell", CELLS)
def test_with_a_stop_token_the_probabilities_of_all_lines_sum_to_one(cell: str) -> None:
    """Three tokens, 0 to stop: all lines of up to 4 words, and all of 5 words that have not stopped."""
    model = build_model(small_settings(cell=cell, init_range=1.0), 3).double().eval()

    def probability(tokens: tuple[int, ...]) -> float:
        log_p = model(torch.tensor([0, *tokens[:-1]])[:, None])[0][:, 0].log_softmax(-1)
        return log_p[torch.arange(len(tokens)), torch.tensor(tokens)].sum().exp().item()

    ended = [sum(probability((*words, 0)) for words in product([1, 2], repeat=n)) for n in range(5)]
    not_ended = sum(probability(words) for words in product([1, 2], repeat=5))
    assert sum(ended) + not_ended == pytest.approx(1, abs=1e-12)
    assert min(ended) > 0


# 2. GRU against LSTM


@pytest.mark.parametrize(
    ("cell", "layer", "model"),
    [("lstm", 321_600, 4_653_200), ("gru", 241_200, 4_492_400), ("gru_textbook", 240_600, 4_491_200)],
)
def test_the_table_of_parameters(cell: str, layer: int, model: int) -> None:
    built = default_model(cell)
    assert (num_parameters(built.layers), num_parameters(built)) == (2 * layer, model)
    assert re.search(rf"^\| `{cell}` \|.*\| {layer:,} \|.*\| {model:,} \|", THEORY, re.MULTILINE)


@pytest.mark.parametrize(
    ("cell", "kind", "layer", "model"),
    [
        ("lstm", nn.LSTM, 320_000, 2_640_000),
        ("gru", nn.GRU, 240_000, 2_480_000),
        ("gru_textbook", TextbookGRU, 240_000, 2_480_000),
    ],
)
def test_the_table_of_multiplications(cell: str, kind: type[nn.Module], layer: int, model: int) -> None:
    rnn = kind(200, 200).double()  # in float32 the LSTM is one fused operation, whose products are not counted
    inputs, state = (torch.randn(time, 2, 200, dtype=torch.float64, requires_grad=True) for time in (3, 1))
    with FlopCounterMode(display=False) as counter:
        loss = rnn(inputs, (state, state) if cell == "lstm" else state)[0].sum()
        forward_only = counter.get_total_flops()
        loss.backward()
    assert forward_only == 2 * layer * 3 * 2  # a multiplication and an addition, of six tokens
    assert counter.get_total_flops() == 3 * forward_only  # backward takes twice as many
    assert model == 2 * layer + 200 * 10_000
    assert re.search(rf"^\| `{cell}` \|.*\| {layer:,} \|.*\| {model:,} \|", THEORY, re.MULTILINE)


def test_what_a_gru_saves() -> None:
    lstm, gru = default_model("lstm"), default_model("gru")
    assert num_parameters(gru.layers) / num_parameters(lstm.layers) == 3 / 4
    assert f"{1 - num_parameters(gru) / num_parameters(lstm):.1%} of the model's parameters" in THEORY
    assert f"{1 - 2_480_000 / 2_640_000:.1%} of its multiplications" in THEORY


def test_the_state_of_a_gru_stays_within_one_and_the_cell_of_an_lstm_does_not() -> None:
    inputs = 10 * torch.randn(50, 8, 4, dtype=torch.float64)
    for gru in (nn.GRU(4, 5).double(), TextbookGRU(4, 5).double()):
        assert gru(inputs)[0].abs().max() <= 1
    lstm = nn.LSTM(4, 5).double()
    for bias, gate in zip(lstm.bias_ih_l0.data.chunk(4), "ifgo", strict=True):
        bias.fill_(0 if gate == "o" else 100)  # write, keep, and write one
    _, (_, cell) = lstm(torch.zeros(50, 8, 4, dtype=torch.float64))
    close(cell, torch.full_like(cell, 50))


def test_an_open_gate_carries_the_gradient_over_a_hundred_steps_and_a_plain_rnn_loses_it() -> None:
    inputs = torch.randn(100, 1, 4, dtype=torch.float64)
    start, zeros = torch.zeros(1, 1, 5, dtype=torch.float64, requires_grad=True), torch.zeros(1, 1, 5).double()
    lstm, gru, textbook, plain = (kind(4, 5).double() for kind in (nn.LSTM, nn.GRU, TextbookGRU, nn.RNN))
    lstm.bias_ih_l0.data.chunk(4)[1].fill_(100)  # forget gate
    gru.bias_ih_l0.data.chunk(3)[1].fill_(100)  # update gate
    textbook.inputs.bias.data.chunk(3)[0].fill_(100)  # update gate
    ends = [lstm(inputs, (zeros, start))[1][1], *(rnn(inputs, start)[1] for rnn in (gru, textbook, plain))]
    gradients = [torch.autograd.grad(end.sum(), start)[0].abs().mean().item() for end in ends]
    assert min(gradients[:3]) > 0.5
    assert gradients[3] < 1e-6


def test_a_gru_lies_between_its_past_and_its_candidate() -> None:
    """One gate both keeps and writes: the new state is on the line from the old one to the candidate."""
    past, x, w = random_step()
    step = forward(w, x, past)
    assert ((step.h - past) * (step.h - step.g) <= 0).all()


# 3. The LSTM


@pytest.mark.parametrize(("n", "d"), [(200, 200), (5, 4)])
def test_the_parameters_of_an_lstm_layer(n: int, d: int) -> None:
    textbook = 4 * (n * n + n * d + n)
    assert num_parameters(nn.LSTM(d, n)) == textbook + 4 * n
    if n == 200:
        assert (textbook, textbook + 4 * n) == (320_800, 321_600)
        assert "320{,}800" in THEORY
        assert "321,600" in THEORY


def test_the_equations_of_the_lstm_need_one_bias_a_gate() -> None:
    lstm, inputs = nn.LSTM(4, 5).double(), torch.randn(6, 4, dtype=torch.float64)
    bias = lstm.bias_ih_l0 + lstm.bias_hh_l0
    h = c = torch.zeros(5, dtype=torch.float64)
    for x in inputs:
        i, f, g, o = (lstm.weight_ih_l0 @ x + lstm.weight_hh_l0 @ h + bias).chunk(4)
        c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
        h = sigmoid(o) * torch.tanh(c)
    outputs, (_, cell) = lstm(inputs)
    close((outputs[-1], cell[0]), (h, c))


def test_two_biases_of_an_lstm_are_one_that_learns_at_twice_the_rate() -> None:
    lstm, inputs = nn.LSTM(4, 5).double(), torch.randn(6, 4, dtype=torch.float64)
    lstm(inputs)[0].square().sum().backward()
    close(lstm.bias_ih_l0.grad, lstm.bias_hh_l0.grad)
    outputs, _ = lstm(inputs)
    with torch.no_grad():
        lstm.bias_ih_l0 += 3
        lstm.bias_hh_l0 -= 3
    close(lstm(inputs)[0], outputs)


# 4. The gradients of the GRU

Weights = dict[str, Tensor]
Slope = Callable[[Tensor], Tensor]  # of the sigmoid, as a function of its value


def sigmoid(a: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-a))


def true_slope(sigma: Tensor) -> Tensor:
    return sigma * (1 - sigma)


def published_slope(sigma: Tensor) -> Tensor:
    return sigma * (1 - sigma**2)


class Step(NamedTuple):
    """What one step read and computed."""

    x: Tensor
    past: Tensor
    z: Tensor
    r: Tensor
    g: Tensor
    h: Tensor


def forward(w: Weights, x: Tensor, past: Tensor) -> Step:
    z = sigmoid(w["xz"] @ x + w["hz"] @ past + w["z"])
    r = sigmoid(w["xr"] @ x + w["hr"] @ past + w["r"])
    g = torch.tanh(w["xg"] @ x + w["hg"] @ (r * past) + w["g"])
    return Step(x, past, z, r, g, z * past + (1 - z) * g)


def backward(w: Weights, step: Step, delta: Tensor, slope: Slope) -> tuple[Weights, Tensor]:
    """The gradients of one step, and what it hands to the state before, from what it gets: dL/dh."""
    x, past, z, r, g, _ = step
    delta_z = delta * (past - g) * slope(z)
    delta_g = delta * (1 - z) * (1 - g**2)
    delta_s = w["hg"].T @ delta_g
    delta_r = delta_s * past * slope(r)
    gradients = {
        "xz": torch.outer(delta_z, x),
        "hz": torch.outer(delta_z, past),
        "xg": torch.outer(delta_g, x),
        "hg": torch.outer(delta_g, r * past),
        "xr": torch.outer(delta_r, x),
        "hr": torch.outer(delta_r, past),
        "z": delta_z,
        "g": delta_g,
        "r": delta_r,
    }
    return gradients, delta * z + w["hz"].T @ delta_z + w["hr"].T @ delta_r + r * delta_s


class Example(NamedTuple):
    """Two inputs, the state before them, and what the state after them should be."""

    x1: Tensor
    x2: Tensor
    h0: Tensor
    target: Tensor


def derived(w: Weights, example: Example, slope: Slope, h1_is_fixed: bool) -> Weights:
    """The gradients of half the squared distance of h2 from the target, as docs/theory.md derives them."""
    first = forward(w, example.x1, example.h0)
    second = forward(w, example.x2, first.h)
    gradients, delta = backward(w, second, second.h - example.target, slope)
    if h1_is_fixed:
        return gradients
    earlier, _ = backward(w, first, delta, slope)
    return {name: gradients[name] + earlier[name] for name in gradients}


def by_autograd(w: Weights, example: Example, h1_is_fixed: bool) -> Weights:
    """The same gradients of the layer that trains the models."""
    layer = TextbookGRU(4, 5).double()
    with torch.no_grad():
        layer.inputs.weight.copy_(torch.cat([w["xz"], w["xr"], w["xg"]]))
        layer.inputs.bias.copy_(torch.cat([w["z"], w["r"], w["g"]]))
        layer.gates.weight.copy_(torch.cat([w["hz"], w["hr"]]))
        layer.candidate.weight.copy_(w["hg"])
    h1 = layer(example.x1[None, None], example.h0[None, None])[0]
    h2 = layer(example.x2[None, None], h1.detach() if h1_is_fixed else h1)[0][0, 0]
    (0.5 * (h2 - example.target).square().sum()).backward()
    inputs, gates, candidate = layer.inputs, layer.gates, layer.candidate
    assert inputs.weight.grad is not None
    assert inputs.bias.grad is not None
    assert gates.weight.grad is not None
    assert candidate.weight.grad is not None
    return {
        **dict(zip(("xz", "xr", "xg"), inputs.weight.grad.chunk(3), strict=True)),
        **dict(zip(("z", "r", "g"), inputs.bias.grad.chunk(3), strict=True)),
        **dict(zip(("hz", "hr"), gates.weight.grad.chunk(2), strict=True)),
        "hg": candidate.weight.grad,
    }


def random_step(n: int = 5, d: int = 4) -> tuple[Tensor, Tensor, Weights]:
    """A state, an input and weights, all of about the size of one."""
    shapes = {"x": (n, d), "h": (n, n)}
    w = {into + gate: torch.randn(shapes[into], dtype=torch.float64) for into in "xh" for gate in "zrg"}
    w |= {gate: torch.randn(n, dtype=torch.float64) for gate in "zrg"}
    return torch.randn(n, dtype=torch.float64), torch.randn(d, dtype=torch.float64), w


def random_example(n: int = 5, d: int = 4) -> tuple[Weights, Example]:
    h0, x1, w = random_step(n, d)
    return w, Example(x1, torch.randn_like(x1), h0, torch.randn_like(h0))


@pytest.mark.parametrize("h1_is_fixed", [True, False])
def test_the_derived_gradients_are_those_of_autograd(h1_is_fixed: bool) -> None:
    for _ in range(20):
        w, example = random_example()
        close(derived(w, example, true_slope, h1_is_fixed), by_autograd(w, example, h1_is_fixed))


def test_both_steps_differ_from_the_last_alone() -> None:
    w, example = random_example()
    fixed, full = (by_autograd(w, example, h1_is_fixed) for h1_is_fixed in (True, False))
    assert all(not torch.allclose(fixed[name], full[name], rtol=0.01) for name in w)


def test_the_slope_of_the_sigmoid() -> None:
    a = torch.linspace(-8, 8, 101, dtype=torch.float64)
    measured = (sigmoid(a + 1e-6) - sigmoid(a - 1e-6)) / 2e-6
    torch.testing.assert_close(true_slope(sigmoid(a)), measured, rtol=0, atol=1e-8)
    close(published_slope(sigmoid(a)), true_slope(sigmoid(a)) * (1 + sigmoid(a)))
    half = torch.tensor(0.5, dtype=torch.float64)
    assert (true_slope(half), published_slope(half)) == (1 / 4, 3 / 8)
    assert (measured[50] - 1 / 4).abs() < 1e-8


def test_the_published_slope_scales_the_gradients_of_the_gates_by_one_plus_the_gate() -> None:
    """With h1 fixed: those of Wxz, Whz, Wxr, Whr, each row by its own factor; those of Wxg, Whg not at all."""
    w, example = random_example()
    true, slipped = (derived(w, example, slope, h1_is_fixed=True) for slope in (true_slope, published_slope))
    second = forward(w, example.x2, forward(w, example.x1, example.h0).h)
    for name in ("xz", "hz"):
        close(slipped[name], true[name] * (1 + second.z)[:, None])
    for name in ("xr", "hr"):
        close(slipped[name], true[name] * (1 + second.r)[:, None])
    for name in ("xg", "hg"):
        close(slipped[name], true[name])
    assert all((slipped[name] * true[name]).sum() > 0 for name in w)  # still downhill


def test_the_published_slope_spoils_every_gradient_through_both_steps() -> None:
    """At the models' size, initial weights and initial embeddings."""
    for _ in range(5):
        w, example = random_example(200, 200)
        w = {name: torch.empty_like(weight).uniform_(-0.1, 0.1) for name, weight in w.items()}
        for tensor, size in ((example.x1, 0.1), (example.x2, 0.1), (example.h0, 0.5)):
            tensor.uniform_(-size, size)
        true, slipped = (derived(w, example, slope, h1_is_fixed=False) for slope in (true_slope, published_slope))
        errors = {name: ((slipped[name] - true[name]).norm() / true[name].norm()).item() for name in w}
        assert [errors[name] for name in ("xz", "hz", "xr", "hr")] == pytest.approx([0.5] * 4, abs=0.05)
        assert [errors[name] for name in ("xg", "hg")] == pytest.approx([0.015] * 2, abs=0.005)


# 5. The reset gate before or after the recurrent product


def with_weights_of(theirs: nn.GRU) -> TextbookGRU:
    """A textbook GRU with the weights of an `nn.GRU` of one layer, whose gates lie in the order r, z, g."""
    ours = TextbookGRU(theirs.input_size, theirs.hidden_size).double()
    xr, xz, xg = theirs.weight_ih_l0.chunk(3)
    hr, hz, hg = theirs.weight_hh_l0.chunk(3)
    br, bz, bg = theirs.bias_ih_l0.chunk(3)
    cr, cz, _ = theirs.bias_hh_l0.chunk(3)
    with torch.no_grad():
        ours.inputs.weight.copy_(torch.cat([xz, xr, xg]))
        ours.inputs.bias.copy_(torch.cat([bz + cz, br + cr, bg]))
        ours.gates.weight.copy_(torch.cat([hz, hr]))
        ours.candidate.weight.copy_(hg)
    return ours


def test_reset_before_and_after_differ_and_agree_where_the_recurrent_matrix_is_diagonal() -> None:
    theirs, inputs = nn.GRU(4, 5).double(), torch.randn(6, 2, 4, dtype=torch.float64)
    theirs.bias_hh_l0.data[10:] = 0  # the bias that nn.GRU resets, and the textbook does not have
    assert not torch.allclose(with_weights_of(theirs)(inputs)[0], theirs(inputs)[0], atol=1e-3)
    hg = theirs.weight_hh_l0.data[10:]
    hg.copy_(torch.diag(hg.diag()))
    close(with_weights_of(theirs)(inputs)[0], theirs(inputs)[0])


def test_of_the_second_biases_of_nn_gru_only_the_candidates_counts() -> None:
    gru, inputs = nn.GRU(4, 5).double(), torch.randn(6, 4, dtype=torch.float64)
    outputs, _ = gru(inputs)
    with torch.no_grad():
        gru.bias_ih_l0[:10] += 3
        gru.bias_hh_l0[:10] -= 3
    close(gru(inputs)[0], outputs)
    with torch.no_grad():
        gru.bias_ih_l0[10:] += 3
        gru.bias_hh_l0[10:] -= 3
    assert not torch.allclose(gru(inputs)[0], outputs, atol=1e-3)


def test_the_textbook_gru_is_a_choice_of_cell() -> None:
    assert isinstance(default_model("gru_textbook").layers[0], TextbookGRU)
    assert not isinstance(default_model("gru").layers[0], TextbookGRU)
    assert "`cell: gru_textbook`" in THEORY


def test_two_kinds_of_gru_of_one_seed_start_from_different_weights() -> None:
    library, textbook = (build_model(small_settings(cell=cell), VOCAB) for cell in ("gru", "gru_textbook"))
    assert not torch.equal(library.output.weight, textbook.output.weight)


# The text itself


def test_no_formula_in_a_sentence_is_one_that_github_breaks() -> None:
    """Between single dollars GitHub's Markdown takes `*`, `}_` and backslashed signs for its own."""
    sentences = re.sub(r"^```.*?^```$", "", THEORY, flags=re.MULTILINE | re.DOTALL)
    sentences = re.sub(r"`[^`\n]*`", "", sentences)
    assert all(line.count("$") % 2 == 0 for line in sentences.splitlines())
    for formula in re.findall(r"\$([^$]*)\$", sentences):
        assert not re.search(r"[*|<>`]|[})]_|\\[^a-zA-Z]|^\s|\s$", formula), formula
