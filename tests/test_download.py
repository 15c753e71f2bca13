"""Every way in which a source can fail, against real servers and files: the next one is used, nothing partial stays."""

import gzip
import hashlib
import io
import json
import os
import re
import socket
import stat
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from ruamel.yaml import YAML

from pipeline import download, sample
from pipeline.corpus import archives
from pipeline.project.console import UserError
from pipeline.project.files import PARAMS, RAW, SPLITS
from pipeline.settings.schema import Download
from tests.small import default_params, recipe_text

TEXTS = {split: f" a text of the {split} split \n".encode() * 2000 for split in SPLITS}
NAMES = {split: f"corpus.{split}.txt" for split in SPLITS}
GOOD = {NAMES[split]: TEXTS[split] for split in SPLITS}


def settings(*sources: str, timeout_seconds: float = 20.0, prefix: str = "", known: bool = True) -> Download:
    files = {
        split: {"name": prefix + NAMES[split], "sha256": hashlib.sha256(TEXTS[split]).hexdigest() if known else None}
        for split in SPLITS
    }
    return Download.model_validate({"timeout_seconds": timeout_seconds, "sources": list(sources), "files": files})


def folder(path: str, **changed: bytes) -> str:
    """A folder with the right files, except for the changed ones -> its name."""
    Path(path).mkdir()
    for split in SPLITS:
        (Path(path) / NAMES[split]).write_bytes(changed.get(split, TEXTS[split]))
    return path


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, io.BytesIO(content)


def archive(*members: tuple[tarfile.TarInfo, io.BytesIO]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.GNU_FORMAT) as file:
        for info, content in members:
            file.addfile(info, content)
    return buffer.getvalue()


def zip_archive(members: dict[str, bytes], link: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            if name == link:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(info, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def zip_with_all(prefix: str) -> bytes:
    return zip_archive({"readme": b"x" * 9999} | {prefix + name: text for name, text in GOOD.items()})


def archive_with_all(prefix: str) -> bytes:
    return archive(member("readme", b"x" * 9999), *(member(prefix + name, text) for name, text in GOOD.items()))


def raw_files() -> dict[str, bytes]:
    """Everything under data/raw, unfinished files included."""
    return {path.name: path.read_bytes() for path in RAW.iterdir()} if RAW.exists() else {}


RAW_FILES = {f"{split}.txt": TEXTS[split] for split in SPLITS}


ERROR_PAGE = b"<!DOCTYPE html><title>Sign in to this network</title>"

# How a server may respond

Respond = Callable[[BaseHTTPRequestHandler], None]
Serve = Callable[[Respond], str]


def send(body: bytes, status: int = 200, **headers: str | int) -> Respond:
    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), str(value))
        handler.end_headers()
        handler.wfile.write(body)

    return respond


def serve_files(handler: BaseHTTPRequestHandler) -> None:
    send(GOOD[handler.path.rsplit("/")[-1]])(handler)


def redirect_to_itself(handler: BaseHTTPRequestHandler) -> None:
    send(b"", 302, Location=handler.path)(handler)


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def endless(handler: BaseHTTPRequestHandler) -> None:
    send(b"")(handler)
    while True:
        handler.wfile.write(bytes(100_000))


def trickle_the_body(handler: BaseHTTPRequestHandler) -> None:
    send(b"", Content_Length=10**6)(handler)
    trickle(handler, b"a")


def trickle_the_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
    trickle(handler, b"X-Header: a\r\n")


def trickle(handler: BaseHTTPRequestHandler, piece: bytes) -> None:
    for _ in range(100):
        handler.wfile.write(piece)
        time.sleep(0.05)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A function that starts a server with one answer to everything -> its address."""
    monkeypatch.setenv("NO_PROXY", "*")
    servers: list[ThreadingHTTPServer] = []

    def start(respond: Respond) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with suppress(ConnectionError):  # when the client closes the connection
                    respond(self)

            def log_message(self, *arguments: object) -> None:
                """Print nothing: the tests look at what the client prints."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("ending", ["", "/", "/some/folder/"])
def test_the_address_of_a_folder_delivers(serve: Serve, ending: str) -> None:
    source = serve(serve_files) + ending
    assert download.fetch(settings(source)) == (source, {split: len(TEXTS[split]) for split in SPLITS})
    assert raw_files() == RAW_FILES


@pytest.mark.parametrize("name", ["corpus.tgz", "corpus.tar.gz"])
@pytest.mark.parametrize("prefix", ["./simple-examples/data/", "data/", "/data/", "../../data/"])
def test_the_address_of_an_archive_delivers_and_writes_nowhere_else(
    serve: Serve, tmp_path: Path, name: str, prefix: str
) -> None:
    # Some servers call an archive's own compression a content encoding: it must not be undone twice.
    source = f"{serve(send(archive_with_all(prefix), Content_Encoding='x-gzip'))}/{name}"
    assert download.fetch(settings(source))[0] == source
    assert raw_files() == RAW_FILES
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != tmp_path / RAW] == []


@pytest.mark.parametrize("prefix", ["data/", "/x/data/", "../../data/"])
def test_the_address_of_a_zip_archive_delivers_and_writes_nowhere_else(
    serve: Serve, tmp_path: Path, prefix: str
) -> None:
    source = f"{serve(send(zip_with_all(prefix)))}/corpus.zip"
    assert download.fetch(settings(source))[0] == source
    assert raw_files() == RAW_FILES
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != tmp_path / RAW] == []


@pytest.mark.parametrize("name", ["corpus.zip", "corpus.tgz"])
def test_an_archive_may_be_local_and_files_are_found_by_their_paths(name: str) -> None:
    make = zip_with_all if name.endswith(".zip") else archive_with_all
    Path(name).write_bytes(make("some/corpus-2/"))
    assert download.fetch(settings(name, prefix="corpus-2/"))[0] == name
    assert raw_files() == RAW_FILES
    with pytest.raises(UserError, match=r"corpus\.\w+: the archive does not contain other/corpus\.train\.txt, other/"):
        download.fetch(settings(name, prefix="other/"))


def test_a_file_without_a_known_sha256_is_accepted_and_its_sha256_shown(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings(serve(send(ERROR_PAGE)), serve(send(b"")), folder("by_hand"), known=False)
    monkeypatch.setattr(sys, "argv", ["download"])
    PARAMS.write_text(json.dumps(json.loads(default_params()) | {"download": given.model_dump()}))
    download.main()
    assert raw_files() == RAW_FILES
    *skipped, _, _, valid, _ = capsys.readouterr().out.splitlines()
    assert ["web page" in skipped[0], "0 bytes" in skipped[1]] == [True, True]
    line = valid.partition("valid: ")[2]
    assert YAML(typ="safe").load(line) == settings("x").files.valid.model_dump()


def test_a_relative_folder_starts_at_the_real_repository_even_in_a_temporary_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy").mkdir()
    folder("by_hand")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.chdir("copy")
    download.fetch(settings("by_hand"))
    assert raw_files() == RAW_FILES


@pytest.mark.parametrize("form", ["~/by_hand", "file://{}/by_hand", "file://localhost{}/by_hand", "FILE://{}/by_hand/"])
def test_a_folder_may_be_given_as_in_a_shell_or_a_browser(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder("by_hand")
    source = form.format(tmp_path)
    assert download.fetch(settings(source))[0] == source


def test_a_digest_may_be_in_capitals() -> None:
    capitals = settings(folder("by_hand")).model_dump()
    for file in capitals["files"].values():
        file["sha256"] = file["sha256"].upper()
    download.fetch(Download.model_validate(capitals))
    assert raw_files() == RAW_FILES


def test_a_destination_that_cannot_be_written_is_not_the_fault_of_a_source() -> None:
    RAW.parent.mkdir()
    RAW.touch()
    with pytest.raises(FileExistsError):
        download.fetch(settings(folder("by_hand")))
    RAW.unlink()
    (RAW / "valid.txt").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        download.fetch(settings("by_hand"))


TRAIN = "data/corpus.train.txt"
SERVER_FAULTS = {
    "not found": ("/", send(b"gone", 404), "HTTP status 404"),
    "server error": ("/", send(b"broken", 503), "HTTP status 503"),
    "web page": ("/", send(ERROR_PAGE, Content_Type="text/html"), "is a web page"),
    "wrong checksum": ("/", send(TEXTS["train"] + b" "), r"not the expected file \(.* SHA-256 [0-9a-f]{64}"),
    "empty body": ("/", send(b""), r"not the expected file \(0 bytes"),
    "only the first file": ("/", send(TEXTS["train"]), r"corpus\.valid\.txt is not"),
    "truncated body": ("/", send(TEXTS["train"][:-9], Content_Length=len(TEXTS["train"])), "9 more expected"),
    "endless body": ("/", endless, "more than 1,000,000 bytes"),
    "oversized body": ("/", send(b"", Content_Length=2**40), "more than 1,000,000 bytes"),
    "redirect loop": ("/", redirect_to_itself, "redirects"),
    "redirect elsewhere": ("/", send(b"", 302, Location="file:///etc/passwd"), "connection adapters"),
    "not HTTP": ("/", lambda handler: handler.wfile.write(b"\0\33[31m\r\n\r\n"), r": \S+$"),
    "closed at once": ("/", lambda handler: None, "closed connection"),
    "not an archive": ("/a.tgz", send(ERROR_PAGE), "[Nn]ot a gzipped file"),
    "archive cut off": ("/a.tgz", send(archive_with_all("data/")[:-200]), "ended before"),
    "archive damaged": ("/a.tgz", send(archive_with_all("data/")[:20] + b"\xff" * 999), "invalid"),
    "gzip without archive": ("/a.tgz", send(gzip.compress(b"text" * 500)), "header|archive does not contain"),
    "archive without the files": (
        "/a.tgz",
        send(archive_with_all("elsewhere/")),
        r"not contain data/corpus\.train\.txt",
    ),
    "archive without one": (
        "/a.tgz",
        send(archive(member("data/corpus.train.txt", TEXTS["train"]))),
        "not contain .*valid",
    ),
    "archive of other texts": ("/a.tgz", send(archive(member("data/corpus.train.txt", b"other"))), "not the expected"),
    "archive of links": (
        "/a.tgz",
        send(
            archive(
                member("data/corpus.train.txt", kind=tarfile.SYMTYPE, link="/etc/passwd"),
                member("data/corpus.valid.txt", kind=tarfile.LNKTYPE, link="../../etc/passwd"),
                member("data/corpus.test.txt", kind=tarfile.FIFOTYPE),
            )
        ),
        "archive does not contain",
    ),
    "not a zip archive": ("/a.zip", send(ERROR_PAGE), "not a zip file"),
    "zip archive cut off": ("/a.zip", send(zip_with_all("data/")[:-99]), "not a zip file"),
    "zip archive damaged": ("/a.zip", send(zip_with_all("data/").replace(b"PK\3\4", b"PK\3\5", 2)), "magic number"),
    "zip archive without one": (
        "/a.zip",
        send(zip_archive({TRAIN: TEXTS["train"]})),
        "not contain .*valid",
    ),
    "zip archive of links": (
        "/a.zip",
        send(zip_archive({TRAIN: b"/etc"}, link=TRAIN)),
        "does not contain",
    ),
    "zip archive that swells": (
        "/a.zip",
        send(zip_archive({TRAIN: bytes(10**7)})),
        "more than 1,000,000 bytes",
    ),
    "archive that swells": ("/a.tgz", send(archive(member("data/zeros", bytes(10**7)))), "more than 1,000,000 bytes"),
    "archive with a name that swells": (
        "/a.tgz",
        send(archive(member("name", bytes(10**7), kind=tarfile.GNUTYPE_LONGNAME))),
        "more than 1,000,000 bytes",
    ),
    "archive of nested names": (
        "/a.tgz",
        send(archive(*(member("name", b"name", kind=tarfile.GNUTYPE_LONGNAME) for _ in range(900)))),
        "recursion|header",
    ),
}


@pytest.mark.parametrize(("ending", "respond", "reason"), SERVER_FAULTS.values(), ids=SERVER_FAULTS)
def test_after_a_fault_of_a_server_the_next_source_is_used(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ending: str,
    respond: Respond,
    reason: str,
) -> None:
    for module in (archives, download):
        monkeypatch.setattr(module, "MAX_BYTES", 10**6)
    check_that_the_next_is_used(serve(respond) + ending, folder("by_hand"), reason, capsys)


@pytest.mark.parametrize(
    ("respond", "factor", "reason"),
    [
        (hang, 20, "no answer within 1 s"),
        (trickle_the_body, 1, "too slow: not finished after 1 s"),
        (trickle_the_headers, 1, "too slow: not finished after 1 s"),
    ],
)
def test_after_a_server_takes_too_long_the_next_source_is_used(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    respond: Respond,
    factor: int,
    reason: str,
) -> None:
    monkeypatch.setattr(download, "DEADLINE_FACTOR", factor)
    check_that_the_next_is_used(serve(respond), folder("by_hand"), reason, capsys, timeout_seconds=1.0)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def folder_of_folders() -> str:
    Path("folders", NAMES["train"]).mkdir(parents=True)
    return "folders"


OTHER_FAULTS = {
    "refused": (closed_port, "Connection refused"),
    "no such host": (lambda: "http://corpus.invalid/", "known|resol|address"),
    "not an address": (lambda: "http://[/", "IPv6|parse|URL"),
    "no folder": (lambda: "nowhere", r"no file .*corpus\.train\.txt"),
    "another scheme": (lambda: "ftp://corpus.invalid/", "neither a folder nor an address with http, https or file"),
    "nobody's home": (lambda: "~nobody-of-this-name/x", "no such user here has a home folder"),
    "folder of folders": (folder_of_folders, "no file"),
    "folder with another text": (lambda: folder("other", test=b"other"), r"corpus\.test\.txt is not the expected file"),
    "folder with a saved web page": (lambda: folder("page", valid=b"\n<html>"), r"corpus\.valid\.txt is a web page"),
}


@pytest.mark.parametrize(("make", "reason"), OTHER_FAULTS.values(), ids=OTHER_FAULTS)
def test_after_a_missing_or_wrong_source_the_next_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], make: Callable[[], str], reason: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    check_that_the_next_is_used(make(), folder("by_hand"), reason, capsys)


def test_after_a_plain_server_at_an_https_address_the_next_source_is_used(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = serve(serve_files).replace("http:", "https:")
    check_that_the_next_is_used(bad, folder("by_hand"), "SSL", capsys)


def check_that_the_next_is_used(
    bad: str, good: str, reason: str, capsys: pytest.CaptureFixture[str], timeout_seconds: float = 20.0
) -> None:
    assert download.fetch(settings(bad, good, timeout_seconds=timeout_seconds))[0] == good
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"skipped {bad}: ")
    assert re.search(reason, line)
    assert line.isprintable()
    assert raw_files() == RAW_FILES


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_at_once_and_leaves_no_partial_file(capsys: pytest.CaptureFixture[str]) -> None:
    RAW.mkdir(parents=True)
    (RAW / f".valid.txt.{os.getpid()}.partial").symlink_to("/dev/full")  # the file that it writes
    with pytest.raises(OSError, match=r"No space left on device: 'data/raw'$"):
        download.fetch(settings(folder("first"), folder("second")))
    assert capsys.readouterr().out == ""
    assert raw_files() == {}


def test_if_no_source_delivers_earlier_files_stay_and_the_remedy_is_named(serve: Serve) -> None:
    before = {f"{split}.txt": b"before" for split in SPLITS}
    RAW.mkdir(parents=True)
    for name, content in before.items():
        (RAW / name).write_bytes(content)
    sources = [serve(send(b"", 404)), folder("by_hand", test=b"other"), serve(send(archive())) + "/a.tgz"]
    with pytest.raises(UserError) as error:
        download.fetch(settings(*sources))
    assert raw_files() == before
    lines = str(error.value).split("\n  ")
    assert [line.split(": ")[0] for line in lines[1:4]] == sources
    assert "by hand into the folder by_hand" in lines[4]
    assert "dvc repro" in lines[4]
    assert lines[5:] == [f"{NAMES[s]} with SHA-256 {hashlib.sha256(TEXTS[s]).hexdigest()}" for s in SPLITS]


def test_the_stage_prints_the_source_and_the_sizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    PARAMS.write_text(recipe_text("demo"))
    sample.write(Path("data/sample"))
    monkeypatch.setattr(sys, "argv", ["download"])
    download.main()
    sizes = {split: Path(f"data/sample/sample.{split}.txt").stat().st_size for split in SPLITS}
    printed = ", ".join(f"{split} {size:,}" for split, size in sizes.items())
    assert capsys.readouterr().out == f"data/raw: {printed} bytes from data/sample\n"


def test_settings_edited_during_the_run_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    PARAMS.write_text(recipe_text("demo"))
    monkeypatch.setattr(sys, "argv", ["download"])
    edited = PARAMS.read_text().replace('"timeout_seconds": 30', '"timeout_seconds": 31')
    monkeypatch.setattr(download, "fetch", lambda _: (PARAMS.write_text(edited), {}))
    with pytest.raises(UserError, match=r"^download: params\.yaml edited while this ran"):
        download.main()
