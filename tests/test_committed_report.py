"""The report that is committed is the one that the committed results give."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.small import ROOT


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs git, which a project unpacked from a ZIP lacks")
def test_the_committed_results_give_the_committed_report_to_the_byte(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    report = clone / "results/report"
    before = contents(report)
    for file in report.iterdir():
        file.unlink()
    subprocess.run([sys.executable, "-m", "pipeline.report"], cwd=clone, check=True, capture_output=True)
    assert contents(report) == before
