"""params.yaml: what is well-formed is read, and every mistake is one clear line that names the key."""

import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.project.console import UserError
from pipeline.project.files import PARAMS
from pipeline.settings.mistakes import MOST_SHOWN, NEXT_LINE
from pipeline.settings.params import load_params, parse_params, parse_yaml
from pipeline.settings.schema import Params
from tests.small import COMMITTED, committed_document, committed_params, default_params

DOCUMENT = committed_document()

# key, wrong value, what the message must also say
WRONG_VALUES: list[tuple[str, Any, str]] = [
    *[
        (f"train.{key}", value, "integer")
        for key in ("num_layers", "hidden_size", "epochs", "batch_size", "bptt", "seed")
        for value in (2.5, "20", True, None, [1])
    ],
    *[
        (f"train.{key}", value, "greater than or equal to 1")
        for key in ("num_layers", "hidden_size", "embedding_size", "epochs", "batch_size", "bptt")
        for value in (0, -3)
    ],
    *[(f"train.{key}", value, "greater than 0") for key in ("learning_rate", "init_range") for value in (0, -0.1)],
    *[
        (f"train.{key}", value, "number")
        for key in ("learning_rate", "dropout", "init_range", "optimizer.momentum", "schedule.decay")
        for value in ("fast", "1e-3", True, float("nan"), float("inf"))
    ],
    ("train.cell", "rnn", "'lstm', 'gru' or 'gru_textbook'"),
    ("train.cell", "LSTM", "'lstm', 'gru' or 'gru_textbook'"),
    ("train.dropout", 1, "less than 1"),
    ("train.dropout", 1.5, "less than 1"),
    ("train.dropout", -0.1, "greater than or equal to 0"),
    ("train.loss", "sum", "'mean' or 'sum_over_time'"),
    ("train.device", "gpu", "'cpu' or 'cuda'"),
    ("train.precision", "float16", "'float32' or 'bfloat16'"),
    ("train.max_grad_norm", 0, "greater than 0"),
    ("train.optimizer", "sgd", "a group of settings"),
    ("train.optimizer.name", "adamm", "'sgd', 'adamw'"),
    ("train.optimizer.momentum", 1.0, "less than 1"),
    ("train.optimizer.weight_decay", -1e-6, "greater than or equal to 0"),
    ("train.schedule.decay", 0, "greater than 0"),
    ("train.schedule.decay", 1.1, "less than or equal to 1"),
    ("train.schedule.constant_epochs", -1, "greater than or equal to 0"),
    ("train.schedule.name", "exponential", "'decay', 'linear'"),
    ("train.tied_weights", "yes", "boolean"),
    ("train.embedding_dropout", 1.0, "less than 1"),
    ("train.weight_dropout", None, "number"),
    ("train.seed", -1, "greater than or equal to 0"),
    ("train.seed", 2**32, "less than"),
    ("train.hidden_size", 2**21, "less than or equal to 1048576"),
    ("train.num_layers", 10**5, "less than or equal to 1000"),
    ("train.batch_size", 10**12, "less than or equal to 1000000"),
    ("train.epochs", 10**7, "less than or equal to 1000000"),
    ("train.init_range", 1e300, "less than or equal to 100"),
    ("train.learning_rate", 1e300, "less than or equal to 1000000"),
    ("train.max_grad_norm", 1e300, "less than or equal to"),
    ("train.optimizer.weight_decay", 1e300, "less than or equal to 1000000"),
    ("train.schedule.constant_epochs", 10**30, "less than or equal to 1000000"),
    ("download.timeout_seconds", 1e300, "less than or equal to 86400"),
    ("preprocess.expected.train_tokens", 2**64, "less than"),
    ("report.course_report.lstm.test", 1e300, "less than or equal to"),
    ("processes", 10**6, "less than or equal to 1024"),
    ("train", None, "a group of settings"),
    ("train", [], "a group of settings"),
    ("models", None, "a group of settings"),
    ("models", {}, "at least 1"),
    ("models", ["lstm"], "a group of settings"),
    ("models.gru", None, "expected a group of settings"),
    ("models.gru", "gru", "expected a group of settings"),
    ("models.gru.dropout", 1.0, "less than 1"),
    ("models.gru.optimizer", "sgd", "a group of settings"),
    ("download.sources", [], "at least 1"),
    ("download.sources", "data/ptb", "list"),
    ("download.timeout_seconds", 0, "greater than 0"),
    ("download.files.test.sha256", "dd65", "match"),
    ("download.files.test.name", "../../etc/passwd", "match"),
    ("preprocess.expected.train_tokens", 0, "greater than or equal to 1"),
    ("recipe", "My recipe", "match"),
    ("processes", 0, "greater than or equal to 1"),
    ("evaluate.dynamic", "yes", "a group of settings"),
    ("report.course_report.lstm.test", "low", "number"),
]
UNKNOWN_KEYS = [
    ("train.dropuot", "did you mean dropout?"),
    ("train.learning_rates", "did you mean learning_rate?"),
    ("train.locked_droput", "did you mean locked_dropout?"),
    ("train.xyz", "known here: cell,"),
    ("train.schedule.gamma", "known here: name, constant_epochs, decay"),
    ("models.lstm.hiden_size", "did you mean hidden_size?"),
    ("download.source", "did you mean sources?"),
    ("trian", "did you mean train?"),
]
REQUIRED = [
    *("recipe", "download", "preprocess", "train", "models", "evaluate", "report"),
    *("train.cell", "train.bptt", "download.files.valid"),
]


def with_value(key: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    *path, last = key.split(".")
    place = document
    for part in path:
        place = place[part]
    place[last] = value
    return document


def complaints(document: Any) -> list[str]:
    """What is said of a document, a line for each mistake."""
    with pytest.raises(UserError) as error:
        parse_params(document)
    lines = str(error.value).split(NEXT_LINE)
    assert all(line.startswith("params.yaml") and "\n" not in line for line in lines)
    assert len(set(lines)) == len(lines) <= MOST_SHOWN
    return lines


def complaint(document: Any) -> str:
    """What is said of a document with one mistake."""
    (line,) = complaints(document)
    return line


def test_the_params_of_older_commits_are_read() -> None:
    document = json.loads(default_params())
    document["report"] = {"published": document["report"]["course_report"]}
    assert parse_params(document) == parse_params(json.loads(default_params()))


def test_the_projects_own_params_are_valid() -> None:
    params = committed_params()
    assert params.model("lstm_dropout").dropout == 0.4
    assert params.model("gru").cell == "gru"
    assert params.model("gru").epochs == params.train.epochs == 70


@pytest.mark.parametrize(("key", "value", "allowed"), WRONG_VALUES)
def test_a_wrong_value_is_named_with_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    message = complaint(with_value(key, value))
    assert f"{key} = {value!r}: " in message
    assert allowed in message


DYNAMIC = {"learning_rate": 0.1, "decay": 0.1, "epsilon": 0.1, "bptt": 5}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "evaluate.dynamic",
            {"lstm": DYNAMIC | {"epsilon": 1e-45}},
            "dynamic.lstm.epsilon = 1e-45: input should be gr",
        ),
        ("evaluate.dynamic", {"lstm": DYNAMIC | {"decay": 1e300}}, "dynamic.lstm.decay = 1e+300: input should be less"),
        ("download.files.test.name", "a" * 201, "at most 200 characters"),
        ("download.sources", ["a" * 5000], "at most 4096 characters"),
        ("download.files.test.name", "ptb.valid.txt", "different files: give each its own name"),
        ("download.files.test.name", "data/ptb.valid.txt", "different files: give each its own name"),
    ],
)
def test_what_is_within_a_value_has_its_bounds_too(key: str, value: Any, message: str) -> None:
    assert message in complaint(with_value(key, value))


@pytest.mark.parametrize(("key", "hint"), UNKNOWN_KEYS)
def test_an_unknown_key_is_named_with_the_likely_one(key: str, hint: str) -> None:
    message = complaint(with_value(key, 1))
    assert f"{key}: no such setting; {hint}" in message


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named(key: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    *path, last = key.split(".")
    place = document
    for part in path:
        place = place[part]
    del place[last]
    assert f"{key} is missing" in complaint(document)


@pytest.mark.parametrize("name", ["LSTM", "two words", "../up", "a.b", "a/b", "_x", ""])
def test_a_model_name_that_no_folder_should_have_is_refused(name: str) -> None:
    assert "lower-case letters" in complaint(with_value("models", {name: {"cell": "gru"}}))


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_document_that_is_no_mapping_is_refused(document: Any) -> None:
    assert f"expected the sections {', '.join(Params.model_fields)}" in complaint(document)


def test_what_one_reader_makes_of_a_file_is_not_seen_by_the_next() -> None:
    text = "train: {epochs: 70, optimizer: {name: sgd}}\n"
    parse_yaml(text, PARAMS)["train"]["optimizer"]["name"] = "adamw"
    assert parse_yaml(text, PARAMS) == {"train": {"epochs": 70, "optimizer": {"name": "sgd"}}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train: {cell: lstm", "not valid YAML"),
        ("train:\n\tcell: lstm", "line 2: not valid YAML"),
        ("seed: 1\nseed: 2", "duplicate key"),
        ("train: &shared {}\nmodels: *other", "undefined alias"),
        ("a: 1\n---\nb: 2", "another document"),
        ("!!python/object/apply:os.system [id]", "not valid YAML"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        ("[" * 3000, "groups nested too deeply"),
        ("", "expected the sections"),
    ],
)
def test_a_file_that_is_no_yaml_is_one_clear_line(text: str | bytes, problem: str) -> None:
    Path("params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=problem) as error:
        load_params()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        *("!!int abc", "!!int ''", "!!float x", "!!bool x", "!!binary é", "!other 1", "!!python/name:os.system"),
        *("9" * 5000, "[" * 3000, "{a: " * 3000, "2001-99-99", "2001-01-01T00:00:00+99:99", "\x07"),
        *(
            "0x" + "f" * 5000,
            "2001-01-01",
            "&a [*a]",
            "&a {b: *a}",
            "[[[[[[" + "x" * 500 + "]]]]]]",
            ".inf",
            '"\\ud800"',
        ),
    ],
)
def test_what_a_parser_cannot_make_of_a_value_is_one_short_line(value: str) -> None:
    Path("params.yaml").write_text(COMMITTED.replace("hidden_size: 200", f"hidden_size: {value}"))
    with pytest.raises(UserError) as error:
        load_params()
    message = str(error.value)
    assert message.startswith("params.yaml")
    assert message.isprintable()
    assert len(message) < 500


def test_aliases_of_aliases_take_neither_time_nor_memory() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))]
    Path("params.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match="more than 1,000,000 values"):
        load_params()


def test_a_name_too_long_for_a_folder_is_refused() -> None:
    message = complaint(with_value("models", {"a" * 300: {"cell": "gru"}}))
    assert "100 at most" in message
    assert parse_params(with_value("models", {"a" * 100: {"cell": "gru"}})).models


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers() | st.none(), inner),
        max_leaves=8,
    ),
    st.sampled_from(
        ["", "train", "models", "models.gru", "download", "train.optimizer", "report.course_report", "evaluate"]
    ),
)
def test_no_document_is_anything_but_valid_or_one_line(value: Any, place: str) -> None:
    document = with_value(place, value) if place else value
    with suppress(UserError):
        parse_params(document)
        return
    complaints(document)


def test_a_missing_file_says_where_to_run() -> None:
    with pytest.raises(UserError, match="run from the repository"):
        load_params()


def test_an_optimizer_of_another_kind_is_checked_by_its_own_rules() -> None:
    adamw = {"name": "adamw", "weight_decay": 0.01}
    gru = with_value("models.gru", {"cell": "gru", "optimizer": adamw, "learning_rate": 0.001})
    assert parse_params(gru).model("gru").optimizer.model_dump() == adamw
    assert "train.optimizer.momentum: no such setting" in complaint(
        with_value("train.optimizer", {"name": "adamw", "weight_decay": 0.01, "momentum": 0.8})
    )


ADAMW = {"name": "adamw", "weight_decay": 0.01}
TOO_HIGH = "too high for adamw, whose rate is usually 0.001 to 0.01: give learning_rate beside the optimizer"


def test_adamw_does_not_take_over_the_rate_of_sgd() -> None:
    assert complaint(with_value("models.lstm.optimizer", ADAMW)) == (
        f"params.yaml: models.lstm.learning_rate = 1.0: {TOO_HIGH}"
    )
    assert complaints(with_value("train.optimizer", ADAMW)) == [  # the GRUs have a rate of their own
        f"params.yaml: {key} = {rate}: {TOO_HIGH}"
        for key, rate in {
            "train.learning_rate": 1.0,
            "models.gru_dropout.learning_rate": 0.5,
            "models.gru.learning_rate": 0.5,
        }.items()
    ]
    nobody = complaint(with_value("models.gru.distillation", {"share": 0.5, "teachers": []}))
    assert nobody.endswith("models.gru.distillation.teachers = []: give at least 1")
    teacher = {"share": 0.5, "teachers": [{"optimizer": ADAMW}]}
    assert "models.gru.distillation.teachers.0.learning_rate = 0.5" in complaint(
        with_value("models.gru.distillation", teacher)
    )
    parse_params(with_value("models.lstm", {"optimizer": ADAMW, "learning_rate": 0.008}))


def test_all_mistakes_are_told_at_once_each_where_it_stands() -> None:
    document = with_value("train.hidden_size", "many")  # inherited by four models and a teacher
    document["train"]["clip"] = 5
    del document["train"]["bptt"]
    document["models"]["lstm"] |= {"dropout": 2, "distillation": {"share": 0.5, "teachers": [{"lr": 1}]}}
    document["processes"] = 0
    document["evaluate"]["dynamic"] = {"gruu": DYNAMIC}
    keys = {line.split(": ")[1].partition(" ")[0] for line in complaints(document)}
    assert keys == {
        "train.hidden_size",
        "train.clip",
        "models.lstm.dropout",
        "models.lstm.distillation.teachers.0.lr",
        "processes",
        "evaluate.dynamic.gruu",
    }


def test_more_mistakes_than_anyone_reads_are_cut() -> None:
    document = with_value("models", {f"m{number}": {"epochs": 0} for number in range(100)})
    assert len(complaints(document)) == MOST_SHOWN


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("train.lr", "learning_rate"),
        ("train.hidden", "hidden_size"),
        ("train.layers", "num_layers"),
        ("train.clip", "max_grad_norm"),
        ("train.momentum", "optimizer.momentum"),
        ("models.lstm.LR", "learning_rate"),
    ],
)
def test_a_name_that_is_usual_elsewhere_leads_to_ours(key: str, ours: str) -> None:
    assert complaint(with_value(key, 1)) == f"params.yaml: {key}: no such setting; did you mean {ours}?"


@pytest.mark.parametrize(
    ("key", "value", "ours"), [("train.optimizer.name", "adam", "adamw"), ("train.cell", "GRU", "gru")]
)
def test_a_choice_that_is_nearly_right_leads_to_the_right_one(key: str, value: str, ours: str) -> None:
    assert complaint(with_value(key, value)).endswith(f"; did you mean {ours}?")


def test_a_schedule_of_another_kind_is_checked_by_its_own_rules() -> None:
    assert parse_params(with_value("models.gru.schedule", {"name": "linear", "warmup": 0.1})).model("gru").schedule
    message = complaint(with_value("train.schedule", {"name": "linear", "warmup": 1.0}))
    assert "train.schedule.warmup = 1.0: input should be less than 1" in message
    assert "train.schedule.name is missing" in complaint(with_value("train.schedule", {"decay": 0.5}))


def test_tied_weights_need_layers_of_one_size() -> None:
    document = with_value("train.tied_weights", True)
    assert parse_params(document).train.tied_weights
    document["models"]["gru"]["embedding_size"] = 100
    assert "models.gru.tied_weights = True: embedding_size and hidden_size must be equal" in complaint(document)


def test_dynamic_evaluation_is_of_models_that_there_are() -> None:
    how = {"learning_rate": 0.002, "decay": 0.02, "epsilon": 0.001, "bptt": 5}
    dynamic = parse_params(with_value("evaluate.dynamic", {"gru": how})).evaluate.dynamic
    assert dynamic is not None
    assert dynamic["gru"].model_dump() == how
    message = complaint(with_value("evaluate.dynamic", {"gruu": how}))
    assert "evaluate.dynamic.gruu: no such model; there are lstm_dropout, lstm, gru_dropout, gru" in message
    message = complaint(with_value("evaluate.dynamic", {"gru": how | {"decay": -1}}))
    assert "evaluate.dynamic.gru.decay = -1: " in message
    lines = complaints(with_value("evaluate.dynamic", how))
    assert len(lines) == len(how)
    assert "evaluate.dynamic.learning_rate = 0.002: expected a group of settings, {name: value, ...}" in lines[0]


def test_an_unknown_model_lists_those_there_are() -> None:
    with pytest.raises(UserError, match=r"no model 'lstmm'.*lstm_dropout, lstm, gru_dropout, gru"):
        committed_params().model("lstmm")


def test_a_number_in_exponent_form_is_a_number() -> None:
    Path("params.yaml").write_text(COMMITTED.replace("learning_rate: 1.0", "learning_rate: 1e-3"))
    assert load_params().train.learning_rate == 0.001


def test_a_models_override_is_laid_over_the_shared_settings() -> None:
    params = parse_params(with_value("models.gru.schedule", {"decay": 0.5}))
    assert params.model("gru").schedule.decay == 0.5
    assert params.model("gru").schedule.constant_epochs == params.train.schedule.constant_epochs
    assert params.model("lstm").schedule == params.train.schedule


@pytest.mark.parametrize(("name", "warned"), [("wikitext", True), ("ptb", False), ("penn_lower", False)])
def test_penn_treebank_by_another_name_is_warned_of(name: str, warned: bool) -> None:
    assert ("Penn Treebank" in parse_params(with_value("preprocess.corpus", name)).misnamed()) == warned


def test_another_text_may_have_any_name() -> None:
    document = with_value("preprocess.corpus", "wikitext")
    document["download"]["files"]["train"]["sha256"] = None
    assert not parse_params(document).misnamed()
