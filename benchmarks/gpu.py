"""Everything that needs a GPU, in one run of under ten minutes: the tests marked `gpu`, then the benchmark.

It requires PyTorch with CUDA and the few packages listed in docs/performance.md, but neither DVC nor MLflow. The
results are written to gpu-results/: gpu.txt, tests.txt and benchmark.txt, which ends with the benchmark's table.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "gpu-results"
STEPS_OF_AN_EPOCH = 1859  # of Penn Treebank in 20 columns, 25 tokens at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the benchmark (default: 3)")
    parser.add_argument("--steps", type=int, default=STEPS_OF_AN_EPOCH, help="steps in each turn (default: one epoch)")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and os.environ.get("RNN_TEST_DEVICE") != "cpu":
        sys.exit("error: PyTorch cannot use CUDA here: run this on a machine with an NVIDIA GPU and its driver")
    RESULTS.mkdir(exist_ok=True)
    start = time.monotonic()
    (RESULTS / "gpu.txt").write_text(environment())
    print(environment())
    tests = run_logged("tests.txt", ["-m", "pytest", "-m", "gpu", "tests/test_gpu.py", "-p", "no:cacheprovider", "-v"])
    rounds = ["--rounds", str(arguments.rounds), "--steps", str(arguments.steps)]
    benchmark = run_logged("benchmark.txt", ["benchmarks/throughput.py", *rounds])
    parts = {"tests": tests, "benchmark": benchmark}
    outcome = ", ".join(f"{part} {'FAILED' if code else 'passed'}" for part, code in parts.items())
    print(f"\n{outcome}; {time.monotonic() - start:.0f} s; results in {RESULTS.name}/")
    sys.exit(tests or benchmark)


def run_logged(name: str, command: list[str]) -> int:
    """Run a Python command, printing its output and writing it to a file; returns the exit code."""
    with open(RESULTS / name, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in process.stdout or ():
            print(line, end="", flush=True)
            file.write(line)
    return process.wait()


def environment() -> str:
    """The versions and the GPUs, one per line."""
    lines = [f"Python {sys.version.split()[0]}", f"PyTorch {torch.__version__}", f"CUDA {torch.version.cuda}"]
    lines.append(f"cuDNN {torch.backends.cudnn.version()}")
    for gpu in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(gpu)
        capability = f"{properties.major}.{properties.minor}"
        lines.append(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, compute capability {capability}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
