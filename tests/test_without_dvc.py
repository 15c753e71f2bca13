"""What runs on a bare GPU machine imports neither DVC nor MLflow, nor anything else that is not named for it."""

import subprocess
import sys

from tests.small import ROOT

PROGRAM = """
import sys
for name in ("dvc", "mlflow", "optuna", "matplotlib", "filelock", "pandas", "scipy", "sklearn"):
    sys.modules[name] = None  # an import of it fails
import tests.conftest, tests.test_gpu, benchmarks.throughput, benchmarks.gpu
"""


def test_the_tests_and_the_benchmark_for_a_gpu_do_without() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, check=True)
