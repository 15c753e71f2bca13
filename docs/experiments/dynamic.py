"""Try settings of dynamic evaluation on the first tokens of the validation text.

Takes a model of params.yaml that has been trained; tries every combination of what is given, and changes no file. How
large gradients usually are is taken from the first tokens of the training text, where an evaluation reads all of it.
"""

import argparse
import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.evaluate import load
from pipeline.inference.dynamic_evaluation import STATISTICS_BATCH_SIZE, evaluate_dynamically, gradient_scale
from pipeline.lm.batching import Batches
from pipeline.lm.device import choose_device, set_up_process
from pipeline.lm.evaluation import evaluate, perplexity
from pipeline.lm.settings import DynamicEvaluation
from pipeline.project.arguments import above
from pipeline.project.console import naming, progress, run, say

TRAIN_TOKENS = 200_000


def try_settings(name: str, tokens: int, bptt: int, combinations: list[tuple[float, float, float]]) -> None:
    """Print the perplexity of the first `tokens` of the validation text, static and for each combination."""
    set_up_process()
    evaluated = load(name)
    device = choose_device(evaluated.trained.settings.device)
    model = evaluated.trained.model.to(device)
    train = evaluated.corpus.train[:TRAIN_TOKENS].to(device)
    text = evaluated.corpus.valid[: tokens + 1].to(device)
    say(f"{name}: first {tokens:,} tokens of valid, static: {perplexity(evaluate(model, Batches(text, 1, bptt))):.2f}")
    with progress(len(Batches(train, STATISTICS_BATCH_SIZE, bptt)), f"gradients of {name}", "window") as bar:
        scale = gradient_scale(model, train, bptt, bar.update)
    for learning_rate, decay, epsilon in combinations:
        settings = DynamicEvaluation(learning_rate=learning_rate, decay=decay, epsilon=epsilon, bptt=bptt)
        with progress(len(Batches(text, 1, bptt)), f"evaluate {name} dynamically", "window") as bar:
            found = perplexity(evaluate_dynamically(model, text, scale, settings, bar.update))
        say(f"{name}: learning_rate {learning_rate}, decay {decay}, epsilon {epsilon}, bptt {bptt}: {found:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", help="a trained model, such as lstm_dropout")
    number, count = above(0.0, 1e6), above(0, 1_000_000)
    parser.add_argument("learning_rate", type=number, nargs="+", help="learning rates, such as 0.0001 0.0002")
    parser.add_argument("--decay", type=number, nargs="+", default=[0.01], help="decays")
    parser.add_argument("--epsilon", type=number, nargs="+", default=[0.0001], help="epsilons")
    parser.add_argument("--bptt", type=count, default=10, help="tokens between two steps")
    parser.add_argument("--tokens", type=count, default=15_000, help="how much of the validation text to read")
    args = parser.parse_args()
    with naming(args.model):
        combinations = list(product(args.learning_rate, args.decay, args.epsilon))
        try_settings(args.model, args.tokens, args.bptt, combinations)


if __name__ == "__main__":
    run(main)
