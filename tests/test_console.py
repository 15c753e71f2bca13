"""Faults that the user can mend end in one line on stderr and an exit code."""

import errno
import os

import pytest

from pipeline.console import UserError, run
from pipeline.lm.device import DeviceError, choose_device


def message_of(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[str, object]:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run(main)
    return capsys.readouterr().err.strip(), end.value.code


def test_a_users_mistake_is_its_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert message_of(UserError("params.yaml: what is wrong"), capsys)[1] == "error: params.yaml: what is wrong"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_the_system_refuses_is_named_with_the_file(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    _, code = message_of(OSError(number, os.strerror(number), "results/x"), capsys)
    assert code == (
        f"error: {os.strerror(number)}: results/x: free some space or mend the permissions, then run it again"
    )


def test_an_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert message_of(KeyboardInterrupt(), capsys) == ("interrupted: the same command goes on from here", 130)


def test_a_fault_of_ours_is_not_hidden() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_cuda_asked_for_and_missing_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="set device: auto or cpu"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"
