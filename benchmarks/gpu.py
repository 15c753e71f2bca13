"""Everything that takes a GPU to find out, in one run of under ten minutes: the tests marked `gpu`, then the benchmark.

It needs PyTorch with CUDA and the few packages that docs/performance.md names, but neither DVC nor MLflow. Its results
are kept in gpu-results/: gpu.txt, tests.txt and benchmark.txt, which ends with the table that is also printed last.
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
    parser.add_argument("--rounds", type=int, default=3, help="turns of each in the benchmark (default: 3)")
    parser.add_argument("--steps", type=int, default=STEPS_OF_AN_EPOCH, help="steps in a turn (default: an epoch's)")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and os.environ.get("RNN_TEST_DEVICE") != "cpu":
        sys.exit("error: PyTorch finds no CUDA here: run this on a machine with a GPU of NVIDIA's and its driver")
    RESULTS.mkdir(exist_ok=True)
    start = time.monotonic()
    (RESULTS / "gpu.txt").write_text(circumstances())
    print(circumstances())
    tests = keep("tests.txt", ["-m", "pytest", "-m", "gpu", "tests/test_gpu.py", "-p", "no:cacheprovider", "-v"])
    rounds = ["--rounds", str(arguments.rounds), "--steps", str(arguments.steps)]
    benchmark = keep("benchmark.txt", ["benchmarks/throughput.py", *rounds])
    outcomes = {"tests": tests, "benchmark": benchmark}
    ends = ", ".join(f"{part} {'FAILED' if code else 'passed'}" for part, code in outcomes.items())
    print(f"\n{ends}; {time.monotonic() - start:.0f} s; all in {RESULTS.name}/")
    sys.exit(tests or benchmark)


def keep(name: str, command: list[str]) -> int:
    """Run a Python command, shown and kept as a file; returns how it ended."""
    with open(RESULTS / name, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in process.stdout or ():
            print(line, end="", flush=True)
            file.write(line)
    return process.wait()


def circumstances() -> str:
    """The versions and the GPUs, a line each."""
    lines = [f"Python {sys.version.split()[0]}", f"PyTorch {torch.__version__}", f"CUDA {torch.version.cuda}"]
    lines.append(f"cuDNN {torch.backends.cudnn.version()}")
    for gpu in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(gpu)
        capability = f"{properties.major}.{properties.minor}"
        lines.append(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, compute capability {capability}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
