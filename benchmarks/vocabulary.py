"""How a training step slows down as the vocabulary grows: with this project's full softmax, and with an adaptive one.

The first model of params.yaml is trained for some steps on words drawn by Zipf's law (the word of rank r has a
probability proportional to 1 / r), in the shapes of params.yaml. `full` is this project's step. `adaptive` is the same
step with `torch.nn.AdaptiveLogSoftmaxWithLoss` (Grave et al. 2017, arXiv:1609.04309), which only supports float32, in
place of the softmax layer. Each runs in a separate process; the fastest step counts, and the peak memory.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.lm.batching import Batches
from pipeline.lm.device import choose_precision, set_up_process
from pipeline.lm.loss import SoftTargets
from pipeline.lm.model import LanguageModel, State, build_model, num_parameters
from pipeline.lm.settings import Settings
from pipeline.lm.step import Given, loss_scale, train_step
from pipeline.lm.update import build_optimizer
from pipeline.project.arguments import above
from pipeline.project.console import run
from pipeline.settings.params import load_params

CPU = torch.device("cpu")


class AdaptiveModel(LanguageModel):
    """Frequent words are in the first softmax; rarer ones in further ones, with narrower features."""

    def __init__(self, settings: Settings, vocab_size: int) -> None:
        super().__init__(settings, 1)
        self.embedding = nn.Embedding(vocab_size, settings.embedding_size)
        cutoffs = [vocab_size // 20, vocab_size // 5]
        self.output = nn.AdaptiveLogSoftmaxWithLoss(settings.hidden_size, vocab_size, cutoffs)

    def forward(
        self,
        tokens: Tensor,
        state: State | None = None,
        targets: Tensor | None = None,
        soft: SoftTargets | None = None,
    ) -> tuple[Tensor, State]:
        features, state = self.features(tokens, state)
        features = features.flatten(0, 1).float()
        with torch.autocast("cpu", enabled=False):
            if targets is None:
                return self.output.log_prob(features), state
            return self.output(features, targets.flatten()).loss * targets.numel(), state


def zipf_words(vocab_size: int, length: int) -> Tensor:
    """Ids [length] int64, the most frequent word first."""
    ranks = torch.arange(1, vocab_size + 1, dtype=torch.float64)
    cumulative = (1 / ranks).cumsum(0)
    uniform = torch.rand(length, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return torch.searchsorted(cumulative, uniform * cumulative[-1])


def measure(build: Callable[[Settings, int], LanguageModel], vocab_size: int, steps: int) -> tuple[float, int, float]:
    """Seconds of the fastest step, parameters, and the process's peak memory in gigabytes."""
    set_up_process()
    settings = next(iter(load_params().models.values()))
    model = build(settings, vocab_size)
    precision = choose_precision(settings.precision, CPU)
    optimizer = build_optimizer(model, settings)
    tokens = zipf_words(vocab_size, settings.bptt * settings.batch_size + 1)
    (window,) = Batches(tokens, settings.batch_size, settings.bptt)
    scale = loss_scale(window.num_tokens, settings, CPU)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        train_step(model, optimizer, settings, precision, Given(window.inputs, window.targets, scale), None)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return min(seconds), num_parameters(model), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=above(0), nargs="+", default=[10_000, 100_000, 1_000_000], metavar="WORDS")
    parser.add_argument("--steps", type=above(0), default=8, help="steps of each (default: 8)")
    arguments = parser.parse_args()
    print("| words | softmax | parameters | ms a step | peak memory, GB |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for vocab_size in arguments.sizes:
        for name, build in {"full": build_model, "adaptive": AdaptiveModel}.items():
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                seconds, parameters, peak = pool.submit(measure, build, vocab_size, arguments.steps).result()
            print(f"| {vocab_size:,} | {name} | {parameters:,} | {seconds * 1000:,.0f} | {peak:.1f} |", flush=True)


if __name__ == "__main__":
    run(main)
