"""The report that is committed is the one that the committed results give."""

import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.small import ROOT


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs git, which a project unpacked from a ZIP lacks")
def test_the_committed_results_give_the_committed_report_to_the_byte(tmp_path: Path) -> None:
    committed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(committed)) as archive:
        archive.extractall(tmp_path, filter="data")
    report = tmp_path / "results/report"
    before = contents(report)
    for file in report.iterdir():
        file.unlink()
    subprocess.run([sys.executable, "-m", "pipeline.report"], cwd=tmp_path, check=True, capture_output=True)
    assert contents(report) == before
