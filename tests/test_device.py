"""Which processor gets products in bfloat16, and what one that cannot do them is told; all paths on any machine."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from pipeline import sweep
from pipeline.corpus.ids import write_corpus
from pipeline.lm import device
from pipeline.lm.device import choose_precision, trains_in_bfloat16
from pipeline.lm.errors import NoBfloat16Error
from pipeline.lm.training import Training
from pipeline.project import memory
from pipeline.project.console import UserError
from pipeline.project.files import SPLITS
from pipeline.train import train
from tests.small import ROOT, recipe_text, small_settings

CPU = torch.device("cpu")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LACKS = r"precision is bfloat16, but this processor lacks the instructions for it \(on x86: AVX-512\); set precision"


@pytest.fixture(params=["instructions", "memory"])
def lacks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A machine that lacks something; what is said of it."""
    monkeypatch.setattr(device, "trains_in_bfloat16", lambda: request.param != "instructions")
    if request.param == "instructions":
        return f"{LACKS}: auto or float32$"
    monkeypatch.setattr(memory, "available_bytes", lambda _: 1000)
    return r"training takes .* and there are 1 kB here: lower"


@pytest.fixture
def project(tmp_path: Path) -> YAML:
    """The demo's params.yaml, with bfloat16 for one model, and a corpus of three words, in the working folder."""
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load(recipe_text("demo"))
    params["models"]["lstm"]["precision"] = "bfloat16"
    yaml.dump(params, Path("params.yaml"))
    write_corpus({split: np.array([1, 2, 0] * 200, np.uint16) for split in SPLITS}, ["<eos>", "a", "b"])
    return yaml


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize("fast", [True, False])
def test_what_is_chosen_follows_from_what_the_processor_does(
    able: bool, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "trains_in_bfloat16", lambda: able)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    assert choose_precision("float32", CPU) is torch.float32
    assert choose_precision("auto", CPU) is (torch.bfloat16 if fast else torch.float32)
    if able:
        assert choose_precision("bfloat16", CPU) is torch.bfloat16
    else:
        with pytest.raises(NoBfloat16Error):
            choose_precision("bfloat16", CPU)
    assert choose_precision("bfloat16", torch.device("cuda")) is torch.bfloat16


def test_what_the_trial_finds_is_so_of_a_whole_training() -> None:
    settings, text = small_settings(cell="lstm"), torch.arange(100) % 7
    training = Training(settings, text, text, vocabulary_size=7)
    training.precision = torch.bfloat16
    try:
        training.run_epoch()
        trains = True
    except RuntimeError:
        trains = False
    assert trains_in_bfloat16() == trains


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="only x86 can be told to be an older one")
def test_the_trial_fails_on_an_x86_processor_without_avx512() -> None:
    """oneDNN takes the newest processor for one that has AVX2 and nothing newer, when it is told to."""
    program = "from pipeline.lm.device import trains_in_bfloat16; print(trains_in_bfloat16())"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment) == b"False\n"


def test_the_trial_takes_no_random_numbers() -> None:
    before = torch.get_rng_state()
    trains_in_bfloat16.__wrapped__()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="Linux has no huge pages here"
)
def test_a_large_tensor_is_in_huge_pages() -> None:
    """66 MB, the logits of 500 tokens and 33,278 words, are 16,250 pages of 4 kB, each of which costs a page fault."""
    program = """
import resource, torch
from pipeline.lm.device import set_up_process
set_up_process()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.zeros(500, 33_278)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    assert int(subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment)) < 5000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library is told what to keep")
def test_the_memory_of_a_large_tensor_is_used_again() -> None:
    """Without page faults, whatever the size of pages."""
    program = """
import resource, torch
from pipeline.lm.device import set_up_process
set_up_process()
for _ in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(500, 33_278)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    assert int(subprocess.check_output([sys.executable, "-c", program], cwd=ROOT)) < 100


@pytest.mark.usefixtures("project")
def test_a_training_is_refused_in_one_line_before_it_starts(lacks: str, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"^lstm: {lacks}"):
        train("lstm")
    assert set(tmp_path.rglob("*")) == before


def test_a_sweep_that_may_come_to_it_is_refused_before_its_first_trial(
    lacks: str, project: YAML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = {
        "params": "params.yaml",
        "model": "gru",
        "trials": 2,
        "sampler": {"name": "random", "seed": 1},
        "pruner": None,
        "grace_seconds": 60,
        "settings": {"precision": ["float32", "bfloat16"]},
    }
    project.dump(searched, Path("small.yaml"))
    monkeypatch.setattr(sys, "argv", ["sweep", "small.yaml"])
    with pytest.raises(UserError, match=rf"^small\.yaml: {lacks}"):
        sweep.main()
    assert not (tmp_path / "mlflow.db").exists()
