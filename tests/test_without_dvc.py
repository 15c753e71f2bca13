"""What runs on a bare GPU machine imports nothing but PyTorch and what docs/performance.md names for it."""

import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.small import ROOT

PROGRAM = """
import sys
for name in sys.argv[1:]:
    sys.modules[name] = None  # an import of it fails
import tests.conftest, tests.test_gpu, benchmarks.throughput, benchmarks.gpu
"""


def test_the_tests_and_the_benchmark_for_a_gpu_do_with_what_is_named_for_them() -> None:
    [named] = re.findall(r"^pip install (numpy .*)$", (ROOT / "docs/performance.md").read_text(), re.MULTILINE)
    present = brought_by(["torch", "pip", *named.split()]) - {"filelock"}  # which PyTorch has for a use of its own
    absent = [
        module
        for module, distributions in packages_distributions().items()
        if present.isdisjoint(map(canonicalize_name, distributions))
    ]
    assert {"dvc", "mlflow", "optuna", "matplotlib", "filelock", "pandas", "scipy", "sklearn", "xdist"} <= set(absent)
    subprocess.run([sys.executable, "-c", PROGRAM, *absent], cwd=ROOT, check=True)


def brought_by(names: Iterable[str]) -> set[str]:
    """The distributions that are installed with these, by their canonical names."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        if (name := canonicalize_name(waiting.pop())) in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # for another platform, or by choice
            continue
        needs = map(Requirement, lines)
        waiting += [need.name for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
    return found
