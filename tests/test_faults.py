"""What is said when MLflow fails: each cause by its own name, with a remedy that works, in time, and no secret."""

import errno
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.store.db.utils import _get_alembic_config

from pipeline.demo import workspace_environment
from pipeline.project.console import UserError
from pipeline.restore import restore
from pipeline.tracking import database, store
from pipeline.tracking.faults import REMEDY, explain, fault_message
from pipeline.tracking.finished import publish
from pipeline.tracking.location import public_address
from pipeline.tracking.registry import register
from pipeline.tracking.store import within
from pipeline.tracking.sweeps import close_sweep, open_sweep
from pipeline.ui import _answers
from tests.small import ROOT
from tests.tracked import FACTS, epochs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with our experiment and nothing in it."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store.connect()
    return folder / "mlflow.db"


@pytest.fixture
def here(made: Path) -> Path:
    return Path(shutil.copy(made, "mlflow.db"))


def message() -> str:
    """What the restoration, the first half of `make ui`, says of the store."""
    with pytest.raises(UserError) as fault:
        restore()
    text = str(fault.value)
    assert "\n" not in text
    assert REMEDY not in text  # make ui itself sends nobody to make ui
    return text


def run_remedy(text: str) -> None:
    """Run the command that a message has between backquotes."""
    command = text.split("`")[1]
    result = subprocess.run(
        command, shell=True, env=workspace_environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.long
def test_a_deleted_experiment_is_brought_back_by_the_command_that_is_named(here: Path) -> None:
    client, experiment = store.connect()
    client.delete_experiment(experiment)
    text = message()
    assert "the experiment recurrent-lm was deleted in mlflow.db" in text
    run_remedy(text)
    assert store.connect()[1] == experiment


def test_what_is_not_a_file_is_not_replaced_by_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mlflow.db").mkdir()
    Path("mlflow.db/file").touch()
    assert "mlflow.db is not a file: move it away, or set MLFLOW_TRACKING_URI to another" in message()
    os.mkfifo("pipe")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///pipe")
    assert "pipe is not a file: move it away, or set MLFLOW_TRACKING_URI to another" in message()
    assert Path("pipe").is_fifo()


@pytest.mark.parametrize("address", ["garbage", "127.0.0.1:5000", "localhost:5000", "ftp://files.invalid"])
def test_an_address_that_names_no_store_is_to_be_corrected(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert message().startswith(
        "MLflow is behind: MLFLOW_TRACKING_URI is not an MLflow store: set it to a server's address, which "
        "starts with http://, or to sqlite:///FILE"
    )


def test_so_is_that_of_the_registry(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "ftp://files.invalid")
    with pytest.raises(MlflowException) as error:
        store.connect()[0].get_registered_model("lstm")
    assert explain(error.value).startswith("MLFLOW_REGISTRY_URI is not an MLflow store: set it to")


@pytest.mark.parametrize("content", [b"not a database" * 99, b"SQLite format 3\0" + b"\1" * 5000])
def test_a_damaged_database_is_rebuilt_once_it_is_moved_away(content: bytes) -> None:
    Path("mlflow.db").write_bytes(content)
    text = message()
    assert "mlflow.db is damaged" in text
    assert "move the file away, then `make ui` rebuilds it from results/" in text
    Path("mlflow.db").rename("damaged.db")
    assert store.connect()[1] == "1"


def test_a_database_that_loses_its_pages_is_called_damaged_too(here: Path) -> None:
    with here.open("r+b") as file:
        file.truncate(here.stat().st_size // 2)
    assert "mlflow.db is damaged" in message()


def test_a_database_of_something_else_is_not_filled_with_our_tables() -> None:
    with closing(sqlite3.connect("mlflow.db")) as other, other:
        other.execute("create table songs (title)")
    before = Path("mlflow.db").read_bytes()
    assert "mlflow.db is not an MLflow store" in message()
    assert Path("mlflow.db").read_bytes() == before


@pytest.mark.long
def test_the_tables_of_an_older_mlflow_are_brought_up_to_date_by_the_command_that_is_named() -> None:
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    config = _get_alembic_config("sqlite:///mlflow.db")
    older = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()][6]
    engine = create_engine("sqlite:///mlflow.db")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, older)
    engine.dispose()
    text = message()
    assert f"mlflow.db has the tables of an older MLflow ({older})" in text
    run_remedy(text)
    assert store.connect()[1] == "1"


def test_the_tables_of_a_newer_mlflow_are_called_that_and_those_of_none_are_not(here: Path) -> None:
    with closing(sqlite3.connect(here)) as newer, newer:
        newer.execute("update alembic_version set version_num = 'f00d'")
    text = message()
    assert "mlflow.db has the tables of a newer MLflow (f00d)" in text
    assert "move the file away" in text
    with closing(sqlite3.connect(here)) as emptied, emptied:
        emptied.execute("delete from alembic_version")
    assert "mlflow.db is not an MLflow store, or not a complete one: move the file" in message()


def test_a_database_that_another_program_holds_is_called_locked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.1)
    with closing(sqlite3.connect(here, isolation_level=None)) as holder:
        holder.execute("begin exclusive")
        text = message()
    assert "mlflow.db is locked by another program: stop that program (`fuser mlflow.db` shows which)" in text
    assert store.connect()


def test_a_database_that_must_not_be_written_is_called_that(here: Path) -> None:
    with closing(sqlite3.connect(f"file:{here}?mode=ro", uri=True)) as reader:
        try:
            reader.execute("delete from runs")
        except sqlite3.Error as error:
            wrapped = MlflowException(str(error))
            wrapped.__cause__ = error
    assert "mlflow.db cannot be written (attempt to write a readonly database): fix the perm" in fault_message(wrapped)


def test_a_database_that_has_no_room_is_called_that(here: Path) -> None:
    with closing(sqlite3.connect(here)) as writer:
        writer.execute("pragma max_page_count = 1")
        with pytest.raises(sqlite3.OperationalError) as full:
            writer.execute("create table more as select randomblob(1000000)")
    assert fault_message(full.value).startswith("MLflow is behind: no space is left for mlflow.db: free some; ")


@pytest.mark.parametrize(
    ("number", "name", "said"),
    [
        (errno.EACCES, "/data/mlruns/x", "Permission denied: /data/mlruns/x: fix the permissions"),
        (errno.ENOSPC, None, "No space left on device: mlflow.db: free some space"),
        (
            errno.EFBIG,
            "/data/mlruns/x",
            "File too large: /data/mlruns/x: raise the limit of a file's size (`ulimit -f`)",
        ),
    ],
)
def test_what_the_system_refuses_is_told_with_its_place(number: int, name: str | None, said: str) -> None:
    assert fault_message(OSError(number, os.strerror(number), name)) == f"MLflow is behind: {said}; {REMEDY}"


@contextmanager
def server_of(status: int) -> Iterator[ThreadingHTTPServer]:
    """A server whose every answer has one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_server_that_fails_is_told_from_one_that_is_silent_and_no_proxy_is_asked_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://user:XQZ0@127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with server_of(500) as server:
        failing = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", failing)
        assert f"{failing} answers with error 500: look at that server's log" in message()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.invalid:5000")
    assert "http://mlflow.invalid:5000 does not answer through the proxy http://127.0.0.1:9: set no_proxy" in message()


def test_a_registry_that_is_down_is_not_taken_for_the_database(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://127.0.0.1:9")
    client, _ = store.connect()
    with pytest.raises(MlflowException) as down:
        client.search_registered_models()
    assert explain(down.value) == "http://127.0.0.1:9 (MLFLOW_REGISTRY_URI) does not answer"


def test_an_experiment_may_be_named_by_its_name_or_its_number(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "  ")
    assert store.connect()[1] == "1"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "x" * 600)
    assert "'name' exceeds the maximum length of 500" in message()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    assert store.connect()[1] == "0"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    assert "No Experiment with id=77 exists" in message()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_with_the_file(
    number: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    Path(".mlflow.db.lock").touch()  # of an earlier process
    monkeypatch.setattr("fcntl.flock", without_locks)
    assert f".mlflow.db.lock cannot be locked ({os.strerror(number)}): keep the project on a file" in message()


@pytest.fixture
def dripping(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that answers a byte at a time, for ever."""
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not ended.wait(0.1):
                connection.sendall(b" ")

    def serve(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=drip, args=[connection], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=[server], daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
        yield address
        ended.set()
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def test_a_server_that_drips_holds_neither_evaluation_nor_restoration_nor_a_sweep(
    dripping: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(store, "DEADLINE_SECONDS", 1.5)
    monkeypatch.setattr(store, "SILENT_SECONDS", 0.2)
    beginning = time.monotonic()
    assert publish(FACTS, epochs(2), [], {"test_perplexity": 140.5}) is None
    assert capsys.readouterr().out == (
        f"waiting for {dripping}, at most 1.5 seconds\n"
        f"warning: MLflow is behind: {dripping} did not accept everything within 1.5 seconds: {REMEDY}\n"
    )
    assert (
        "did not accept everything within 1.5 seconds: run the same command again to write what is missing" in message()
    )
    register(FACTS, "a run", Path("model.safetensors"), 100.0)
    assert f"lstm is not registered: {dripping} did not accept everything within 1.5 seconds" in capsys.readouterr().err
    assert open_sweep("study", "small") is None
    close_sweep("study", "small", [], [], {})
    assert (
        capsys.readouterr().out.count(
            f"{dripping} did not accept everything within 1.5 seconds: `python -m pipeline.sweep"
        )
        == 2
    )
    assert time.monotonic() - beginning < 60


def test_a_command_ends_although_work_goes_on_beyond_its_deadline() -> None:
    program = (
        "import time; from concurrent.futures import ThreadPoolExecutor; from pipeline.tracking import store;"
        "store.DEADLINE_SECONDS = 0.5; store.SILENT_SECONDS = 0; pool = ThreadPoolExecutor();"
        "store.within(lambda: pool.submit(time.sleep, 10_000).result())"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 1
    assert "did not accept everything within 0.5 seconds" in result.stderr


def test_work_in_time_gives_what_it_gives_and_raises_what_it_raises() -> None:
    assert within(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(lambda: 1 // 0)


# Secrets that would tell: of letters that no message of ours is made of, and of all that upsets a parser.
SECRET = st.text("XQZ0189", min_size=4, max_size=8).flatmap(
    lambda core: st.text("XQZ/ ?#@:%&=[]\\äß\"'", max_size=4).map(lambda odd: f"{odd[:2]}{core}{odd[2:]}")
)
SHAPES = [
    "http://user:{}@host:5000",
    "https://{}@host/path",
    "http://:{}@host",
    "user:{}@host:5000",
    "{}@host",
    "http://host:5000/path?token={}",
    "http://host?token={}&a=b",
    "http://host/#{}",
    "http:user:{}@host",
    "//user:{}@host",
    "http://us er:{}@[::1]:99999",
    "postgresql+psycopg://user:{}@host/database",
    "postgresql://user:{}@host/database?sslpassword={}",
]
TEXTS = [
    "API request to {} failed with exception 503",
    "Could not connect\nto {}",
    "unsupported URI '{}' for model registry store",
    "HTTPConnectionPool(host='{}', port=80): Max retries exceeded",
]


@given(SECRET, st.sampled_from(SHAPES), st.sampled_from(TEXTS), st.sampled_from([str, repr, quote, unquote, ascii]))
def test_no_part_of_a_secret_in_an_address_comes_out(secret: str, shape: str, text: str, form: object) -> None:
    address = shape.replace("{}", secret)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        refused = MlflowException(text.replace("{}", form(address)))
        broken = MlflowException(text.replace("{}", form(secret)))
        broken.__context__ = OSError(f"connection to {address} refused")
        for error in (refused, broken):
            said = explain(error).lower()
            words = [word for word in secret.lower().replace("%", " ").split() if len(word) > 3]
            assert not any(word in said for word in words), said
            assert not any(part in said for part in ("xq", "qz", "zx", "qx", "zq", "xz")), said


def test_a_secret_does_not_come_out_in_another_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:%58%51%5A%30@host")
    assert "XQZ0" not in explain(MlflowException("refused: XQZ0"))


@pytest.mark.parametrize("address", ["", "sqlite:///other.db", "http://host:5000"])
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_no_secret_beside_the_address_comes_out(variable: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv(variable, "x7Zq secret")
    said = explain(MlflowException("refused: Authorization x7Zq%20secret", PERMISSION_DENIED))
    assert re.fullmatch("(mlflow.db|other.db|http://host:5000): PERMISSION_DENIED", said)


def test_where_there_is_no_secret_an_error_has_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("", "sqlite:///other.db", "http://host:5000/path"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert explain(MlflowException("refused: no such user\nand more")) == "refused: no such user"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:pass@host:5000/path", "http://host:5000"),
        ("https://token@host", "https://host"),
        ("https://Host.example/mlflow?token=abc#x", "https://Host.example"),
        ("postgresql+psycopg://user:pass@127.0.0.1:5432/mlflow", "postgresql+psycopg://127.0.0.1:5432"),
        ("http://[::1]:5000/", "http://[::1]:5000"),
        ("http://user:pa/ss@host", None),
        ("http://user:pa ss@host", None),
        ("http://user:p@ss@host", None),
        ("http://user:pa?ss@host", None),
        ("http://user:pass", None),
        ("http://user&pass:80", None),
        ("http://", None),
        ("user:pass@host:5000", None),
    ],
)
def test_of_an_address_the_host_alone_is_shown_and_nothing_in_doubt(address: str, shown: str | None) -> None:
    assert public_address(address) == shown


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY"])
def test_our_own_page_is_found_behind_a_dead_proxy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with server_of(200) as server:
        assert _answers(server.server_port)
