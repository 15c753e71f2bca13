"""From text to token ids and back, and an error in one line for every text that cannot be used."""

import codecs
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import preprocess
from pipeline.corpus.ids import Corpus, id_dtype, load_corpus, write_corpus
from pipeline.corpus.numbered import NumberedText
from pipeline.corpus.vocabulary import build_vocabulary
from pipeline.corpus.words import EOS, UNK, read_lines, read_tokens
from pipeline.project.console import UserError
from pipeline.project.files import CORPUS_METRICS, PROCESSED, RAW, SPLITS, sha256
from pipeline.settings.params import parse_yaml
from pipeline.settings.schema import CorpusSizes
from tests.small import ROOT, committed_document, committed_params

WORDS = st.text(min_size=1, max_size=6).filter(lambda word: word.split() == [word] and "\0" not in word and word != EOS)
LINES = st.lists(st.lists(WORDS, max_size=6), min_size=2, max_size=12)


def put(split: str, text: str | bytes) -> Path:
    RAW.mkdir(parents=True, exist_ok=True)
    path = RAW / f"{split}.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path: Path) -> NumberedText:
    return NumberedText(str(path), read_tokens(path, "get it"), BytesIO())


def vocabulary_of(path: Path) -> list[str]:
    return build_vocabulary(read(path).counts)


def words_of(path: Path, vocabulary: list[str]) -> list[str]:
    return [vocabulary[number] for part in read(path).ids(vocabulary, "") for number in part]


def expect(sizes: str, vocabulary: str = "{}") -> None:
    given = {"expected": parse_yaml(sizes, Path()), "vocabulary": parse_yaml(vocabulary, Path())}
    Path("params.yaml").write_text(json.dumps(committed_document() | {"preprocess": given}))


def run_stage(
    monkeypatch: pytest.MonkeyPatch,
    train: str | bytes,
    valid: str = "a\n",
    test: str = "a\n",
    *,
    expected: str = "null",
    vocabulary: str = "{}",
) -> Corpus:
    """Run the stage on three texts -> the corpus that later stages load."""
    expect(expected, vocabulary)
    for split, text in zip(SPLITS, (train, valid, test), strict=True):
        put(split, text)
    monkeypatch.setattr(sys, "argv", ["preprocess"])
    preprocess.main()
    return load_corpus()


@given(lines=LINES)
def test_ids_can_be_turned_back_into_the_text(tmp_path_factory: pytest.TempPathFactory, lines: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("text") / "train.txt"
    path.write_bytes("".join(" " + " ".join(words) + " \n" for words in lines).encode("utf-8"))
    text = words_of(path, vocabulary_of(path))
    assert text == [word for words in lines for word in [*words, EOS]]


PIECES = st.sampled_from(["a", "\u03a3", "\u00c4", EOS, EOS.upper(), f"x{EOS}", " ", "\t", "\x85", "\u2028"])
MARKS = st.sampled_from([b"\n", b"\r\n", b"\r", b"\0", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, b"\xff", b"\xc3"])
BYTES = st.lists(PIECES.map(str.encode) | st.just(b"\n") | MARKS, max_size=30).map(b"".join)


@given(text=BYTES, block=st.integers(1, 40), longest=st.integers(20, 60), lower_case=st.booleans())
def test_blocks_of_lines_are_read_like_single_lines(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, block: int, longest: int, lower_case: bool
) -> None:
    path = tmp_path_factory.mktemp("text") / "train.txt"
    path.write_bytes(text)

    def tokens_or_error(parts: Iterator[list[str]]) -> list[str] | str:
        try:
            return list(chain.from_iterable(parts))
        except UserError as error:
            return str(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.corpus.words.BLOCK", block)
        patch.setattr("pipeline.corpus.words.LONGEST_LINE", longest)
        lines = ([*words, EOS] for words in read_lines(path, "get it", lower_case=lower_case))
        of_lines = tokens_or_error(lines)
        of_blocks = tokens_or_error(read_tokens(path, "get it", lower_case=lower_case))
    assert of_blocks == of_lines


def test_the_vocabulary_is_ordered_by_frequency_then_by_code_point() -> None:
    path = put("train", "b a a\nc b a\né B\n")
    assert vocabulary_of(path) == [EOS, "a", "b", "B", "c", "é"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a b\na\n", ["a", "b", EOS, "a", EOS]),
        ("a b\na", ["a", "b", EOS, "a", EOS]),
        ("a b\r\na\r\n", ["a", "b", EOS, "a", EOS]),
        ("\ufeffa b\r\r\n\ufeffa", ["a", "b", EOS, "a", EOS]),
        ("a\n\nb\n", ["a", EOS, EOS, "b", EOS]),
        ("  a \t b  \n", ["a", "b", EOS]),
    ],
)
def test_each_line_end_is_one_token(text: str, tokens: list[str]) -> None:
    assert words_of(put("train", text), [EOS, "a", "b"]) == tokens


def test_the_vocabulary_is_of_the_train_split_and_other_words_become_unk(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = run_stage(monkeypatch, f"a {UNK} b\na\n", "a new b\n", "b other\n")
    assert corpus.vocabulary == (EOS, "a", UNK, "b")
    assert [corpus.vocabulary[number] for number in corpus.valid] == ["a", UNK, "b", EOS]
    assert [corpus.vocabulary[number] for number in corpus.test] == ["b", UNK, EOS]
    assert json.loads(CORPUS_METRICS.read_text()) == {
        "train_tokens": 6,
        "valid_tokens": 4,
        "test_tokens": 3,
        "vocabulary_size": 4,
    }


@pytest.mark.parametrize("part", [1, 2, 2**18])
def test_an_unknown_word_without_unk_is_named_with_its_line(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.corpus.numbered.PART", part)
    with pytest.raises(UserError, match=r"valid\.txt, line 2: .*'new'"):
        run_stage(monkeypatch, "a b\n", "a\na new\nnew\n")
    assert not list(PROCESSED.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "train.txt is empty"),
        (b"a\n\xff\xfe\n", "line 2: not text in UTF-8"),
        (b"a b\ra\r", "line 1: has CR alone as line ends"),
        (b"a\nb\0c\n", "line 2: not text but binary"),
        (b"a <eos>\n", "line 1: has the word <eos>"),
    ],
)
def test_an_unusable_text_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch, text: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        run_stage(monkeypatch, text)
    assert "\n" not in str(error.value)
    assert not PROCESSED.exists()


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (lambda: put("test", "b\n"), "data/raw"),
        (lambda: Path("code/words.py").write_text("edited = True"), "pipeline/corpus"),
        (lambda: expect("{train_tokens: 3, valid_tokens: 2, test_tokens: 2, vocabulary_size: 3}"), r"params\.yaml"),
    ],
)
def test_an_edit_during_the_run_is_noticed(
    edit: Callable[[], object], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("code").mkdir()
    monkeypatch.setattr(preprocess, "CODE", Path("code"))
    monkeypatch.setattr(preprocess, "write_corpus_sizes", lambda _: edit())
    with pytest.raises(UserError, match=f"^preprocess: {place}.* edited while this ran"):
        run_stage(monkeypatch, "a b\n")


def test_the_advice_on_a_missing_unk_works(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("a b a\n", "a\na new\n")
    with pytest.raises(UserError, match=r"set preprocess\.vocabulary of params\.yaml to \{min_count: 2\}"):
        run_stage(monkeypatch, *texts)
    corpus = run_stage(monkeypatch, *texts, vocabulary="{min_count: 2}")
    assert corpus.vocabulary == ("a", EOS, UNK)
    assert [corpus.vocabulary[number] for number in corpus.valid] == ["a", EOS, "a", UNK, EOS]


@given(lines=LINES, max_size=st.none() | st.integers(3, 9), min_count=st.integers(1, 3))
def test_a_bounded_vocabulary_is_that_of_the_text_with_unk_in_place_of_dropped_words(
    lines: list[list[str]], max_size: int | None, min_count: int
) -> None:
    counts = Counter(chain.from_iterable([*words, EOS] for words in lines))
    vocabulary = build_vocabulary(counts, max_size, min_count)
    assert len(vocabulary) <= (max_size or len(counts) + 1)
    assert all(counts[word] >= min_count for word in set(vocabulary) - {EOS, UNK})
    written = Counter(word if word in vocabulary else UNK for word in counts.elements())
    assert [word for word in vocabulary if word in written] == build_vocabulary(written)
    frequencies = [counts[word] for word in set(vocabulary) - {EOS, UNK}]
    if max_size is None:
        assert {word for word in counts if counts[word] >= min_count} <= set(vocabulary)
    elif len(vocabulary) == max_size and frequencies:
        assert all(counts[word] <= min(frequencies) for word in counts.keys() - set(vocabulary))


def test_words_are_converted_to_lower_case_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = run_stage(monkeypatch, "The cat\nthe \u00c9t\u00e9\n", "CAT\n", "THE\n", vocabulary="{lower_case: true}")
    assert corpus.vocabulary == (EOS, "the", "cat", "\u00e9t\u00e9")
    assert [corpus.vocabulary[number] for number in corpus.valid] == ["cat", EOS]
    assert corpus.lower_case
    assert not run_stage(monkeypatch, "a\n").lower_case
    with pytest.raises(UserError, match="has the word <eos>"):
        run_stage(monkeypatch, "a <EOS>\n", vocabulary="{lower_case: true}")


@given(st.text())
def test_a_lines_lower_case_is_that_of_its_words(text: str) -> None:
    assert text.lower().split() == [word.lower() for word in text.split()]
    assert text.lower().lower() == text.lower()


def test_ids_written_in_parts_give_the_same_file_as_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    path = put("train", "a b a\n" * 50)
    words = vocabulary_of(path)
    monkeypatch.setattr("pipeline.corpus.numbered.PART", 10)
    parts = list(read(path).ids(words, ""))
    assert {len(part) for part in parts[:-1]} == {10}
    write_corpus(dict.fromkeys(SPLITS, parts), words)
    np.save("whole.npy", np.concatenate(parts))
    assert {(PROCESSED / f"{split}.npy").read_bytes() for split in SPLITS} == {Path("whole.npy").read_bytes()}


def test_a_missing_text_is_named() -> None:
    with pytest.raises(UserError, match=r"train\.txt not found"):
        vocabulary_of(RAW / "train.txt")


def test_every_unexpected_size_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = "{train_tokens: 3, valid_tokens: 2, test_tokens: 2, vocabulary_size: 3}"
    run_stage(monkeypatch, "a b\n", expected=right)
    wrong = right.replace("train_tokens: 3", "train_tokens: 4").replace("size: 3", "size: 9")
    with pytest.raises(UserError, match="train_tokens is 3 instead of 4, vocabulary_size is 3 instead of 9") as error:
        run_stage(monkeypatch, "a b\n", expected=wrong)
    assert "valid_tokens" not in str(error.value)


def test_the_files_do_not_depend_on_the_hash_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = set()
    run_stage(monkeypatch, " ".join(f"w{number % 37}" for number in range(500)) + " a\n")
    for seed in ("0", "1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "pipeline.preprocess"], check=True, env=environment, capture_output=True)
        digests.add(tuple(sha256(path) for path in sorted(PROCESSED.iterdir())))
    assert len(digests) == 1


def test_the_stage_does_not_import_torch() -> None:
    code = "import sys, pipeline.preprocess; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.parametrize(("size", "dtype"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_ids_have_the_smallest_type_that_fits(size: int, dtype: type[np.unsignedinteger]) -> None:
    assert id_dtype(size) == dtype


def damage_ids(content: bytes) -> None:
    (PROCESSED / "valid.npy").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda: (PROCESSED / "valid.npy").unlink(), "valid.npy not found"),
        (lambda: (PROCESSED / "vocabulary.txt").unlink(), "vocabulary.txt not found"),
        (lambda: damage_ids(b""), "damaged"),
        (lambda: damage_ids((PROCESSED / "valid.npy").read_bytes()[:-1]), "damaged"),
        (lambda: damage_ids(b"PK\3\4" + bytes(50)), "damaged"),
        (lambda: np.save(PROCESSED / "valid.npy", np.array([0, -1])), "damaged"),
        (lambda: np.save(PROCESSED / "valid.npy", np.array([0, 3], np.uint16)), "has the id 3, but"),
        (lambda: (PROCESSED / "vocabulary.txt").write_text("a\nb\n"), "damaged"),
        (lambda: (PROCESSED / "vocabulary.txt").write_text("<eos>\na\na\n"), "damaged"),
        (lambda: (PROCESSED / "vocabulary.txt").write_bytes(b"<eos>\n\xff\n"), "damaged"),
    ],
)
def test_a_missing_or_damaged_corpus_is_named_with_the_remedy(damage: Callable[[], object], message: str) -> None:
    write_corpus(dict.fromkeys(SPLITS, np.array([1, 2, 0], np.uint16)), [EOS, "a", "b"])
    damage()
    with pytest.raises(UserError, match=rf"{message}.*dvc checkout"):
        load_corpus()


def test_the_fingerprint_changes_with_any_id_word_or_boundary() -> None:
    def fingerprint(train: list[int], valid: list[int], vocabulary: list[str]) -> str:
        splits = {"train": train, "valid": valid, "test": [1, 0]}
        write_corpus({split: np.array(ids, np.uint16) for split, ids in splits.items()}, vocabulary)
        return load_corpus().fingerprint

    words = [EOS, "a", "b"]
    corpora = [([1, 1, 0], [2, 0], words), ([1, 2, 0], [2, 0], words), ([1, 1], [0, 2, 0], words)]
    corpora.append(([1, 1, 0], [2, 0], [EOS, "a", "c"]))
    assert fingerprint(*corpora[0]) == fingerprint(*corpora[0])
    assert len({fingerprint(*corpus) for corpus in corpora}) == 4


def penn_treebank() -> Path | None:
    """The first folder among the sources of params.yaml that has the corpus."""
    download = committed_params().download
    folders = [ROOT / source for source in download.sources if "://" not in source]
    return next((folder for folder in folders if (folder / download.files.train.name).is_file()), None)


@pytest.mark.skipif(penn_treebank() is None, reason="needs Penn Treebank in a folder named in params.yaml")
def test_penn_treebank_has_the_sizes_that_params_expects() -> None:
    params, folder = committed_params(), penn_treebank()
    assert folder
    texts = {split: folder / getattr(params.download.files, split).name for split in SPLITS}
    vocabulary = vocabulary_of(texts["train"])
    tokens = {f"{split}_tokens": read(path).counts.total() for split, path in texts.items()}
    assert CorpusSizes(**tokens, vocabulary_size=len(vocabulary)) == params.preprocess.expected
    assert vocabulary[:3] == ["the", UNK, EOS]
