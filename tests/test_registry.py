"""MLflow's registry: what is in it, who is champion, and the model loaded and served for real."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import requests
import torch
from mlflow import MlflowClient

from pipeline import generate, score
from pipeline.corpus.ids import Corpus
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.finished import publish
from pipeline.tracking.registry import register
from tests.histories import history
from tests.services import answers, free_port, running
from tests.small import save_small_model
from tests.tracked import CORPUS, VOCABULARY, store, store_address

pytestmark = pytest.mark.usefixtures("empty_store")

TEXT = ["the cat sat", "", "the  dog sat on the cat", "<unk>", "the cat " * 60]


def evaluated(valid: float, corpus: Corpus = CORPUS, corpus_name: str = "ptb") -> None:
    """What `evaluate` does at its end, for a training that came to this validation perplexity."""
    weights, settings = save_small_model("lstm", corpus.vocabulary)
    facts = RunFacts("lstm", "f1a9", settings, corpus, corpus_name=corpus_name)
    run_id = publish(facts, history([valid]), [], {"valid_perplexity": valid})
    assert run_id
    register(facts, run_id, weights, valid)


def champion() -> tuple[int, float]:
    """The champion's version, and its validation perplexity."""
    version = store().get_model_version_by_alias("ptb-lstm", "champion")
    return int(version.version), float(version.tags["valid_perplexity"])


def test_every_training_is_a_version_and_the_best_of_its_corpus_is_champion() -> None:
    evaluated(100.0)
    assert champion() == (1, 100.0)
    evaluated(90.0)
    assert champion() == (2, 90.0)
    evaluated(95.0)
    assert champion() == (2, 90.0)
    evaluated(120.0, replace(CORPUS, train=torch.arange(4)))  # perplexities of two corpora do not compare
    assert champion() == (4, 120.0)


def test_run_dataset_and_registered_model_have_the_name_of_the_corpus() -> None:
    evaluated(100.0, corpus_name="mine")
    client = store()
    (registered,) = client.search_registered_models()
    assert registered.name == "mine-lstm"
    run = client.get_run(client.get_model_version("mine-lstm", "1").run_id)
    assert run.data.tags["corpus"] == "mine"
    assert [given.dataset.name for given in run.inputs.dataset_inputs] == ["mine"]


def test_a_training_is_registered_once() -> None:
    evaluated(100.0)
    client = store()
    for tag in ("valid_perplexity", "data_sha256"):
        client.delete_model_version_tag("ptb-lstm", "1", tag)  # which its next evaluation puts back
    for valid in (90.0, 100.0, 90.0):
        evaluated(valid)
    versions = client.search_model_versions("name = 'ptb-lstm'")
    assert sorted(version.version for version in versions) == [1, 2]
    assert len({version.run_id for version in versions}) == 2
    for version in versions:
        assert client.get_run(version.run_id).info.run_name == "lstm"
        assert version.tags["fingerprint"] == "f1a9"
        assert version.tags["data_sha256"] == CORPUS.fingerprint
        assert float(version.tags["valid_perplexity"]) in (100.0, 90.0)


@pytest.mark.parametrize("value", [None, "", "not a number", "nan"])
def test_a_version_whose_tag_somebody_removed_or_spoilt_blocks_nobody(
    value: str | None, capsys: pytest.CaptureFixture
) -> None:
    evaluated(100.0)
    client = store()
    if value is None:
        client.delete_model_version_tag("ptb-lstm", "1", "valid_perplexity")
    else:
        client.set_model_version_tag("ptb-lstm", "1", "valid_perplexity", value)
    evaluated(110.0)
    assert client.get_model_version_by_alias("ptb-lstm", "champion").version == 1  # as its run says
    evaluated(90.0)
    assert champion() == (2 + 1, 90.0)
    client.delete_run(client.get_model_version("ptb-lstm", "1").run_id)
    evaluated(100.0, replace(CORPUS, valid=torch.arange(2)))
    assert capsys.readouterr().err == ""


def test_model_and_version_say_what_they_are_and_how_to_use_them_unless_somebody_says_it_otherwise() -> None:
    client = store()
    evaluated(100.0)
    assert client.get_registered_model("ptb-lstm").description.startswith("A language model of `ptb`: ")
    client.update_model_version(
        "ptb-lstm", "1", "Perplexity 100.00 (valid): the best weights of lstm."
    )  # as it once was
    evaluated(100.0)
    card = client.get_model_version("ptb-lstm", "1").description
    assert card.startswith("**Perplexity** of the best weights: valid 100.00.")
    for part in (
        "- Corpus: `ptb`, 5 tokens to train on, 5 words.",
        "- Settings: `cell` lstm, `num_layers` 2, `hidden_size` 16, ",
        "- Not for: ",
        "`python -m pipeline.score lstm my.txt`",
        'mlflow.pyfunc.load_model("models:/ptb-lstm@champion")',
        "mlflow models serve --model-uri models:/ptb-lstm/1 ",
    ):
        assert part in card
    assert len(card.splitlines()) < 20
    client.update_registered_model("ptb-lstm", "mine")
    client.update_model_version("ptb-lstm", "1", "ours")
    evaluated(100.0)
    assert client.get_registered_model("ptb-lstm").description == "mine"
    assert client.get_model_version("ptb-lstm", "1").description == "ours"


def test_the_champion_is_found_among_runs_whose_figures_have_their_earlier_names() -> None:
    evaluated(90.0)
    client = store()
    old = client.get_model_version("ptb-lstm", "1")
    run = client.create_run(client.get_run(old.run_id).info.experiment_id)
    client.log_metric(run.info.run_id, "valid_perplexity", 80.0)
    client.create_model_version("ptb-lstm", old.source, run.info.run_id, {"data_sha256": CORPUS.fingerprint})
    evaluated(85.0)
    assert client.get_model_version_by_alias("ptb-lstm", "champion").version == 2


def test_what_a_failed_registration_left_is_used_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("the registry is out of order")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", fail)
        evaluated(100.0)
    evaluated(100.0)
    assert champion() == (1, 100.0)
    assert len(list(Path("mlruns/models").iterdir())) == 1


def test_a_registry_that_fails_fails_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    weights, settings = save_small_model("lstm", VOCABULARY)
    facts = RunFacts("lstm", "f1a9", settings, CORPUS)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    register(facts, "a run", weights, 100.0)
    warning = capsys.readouterr().err
    assert warning.startswith("warning: lstm is not registered:")
    assert len(warning.splitlines()) == 1


def scores(capsys: pytest.CaptureFixture) -> list[tuple[float, int, int]]:
    """What `score` says of the text's lines."""
    Path("text.txt").write_text("".join(f"{line}\n" for line in TEXT))
    capsys.readouterr()
    score.score("lstm", Path("text.txt"), words=False, as_json=True)
    lines = json.loads(capsys.readouterr().out)["lines"]
    return [(pytest.approx(line["perplexity"], rel=1e-5), line["tokens"], line["unknown_words"]) for line in lines]


def generated(prompt: str, capsys: pytest.CaptureFixture) -> list[str]:
    """What `generate` says with the prompt and the options of the requests here."""
    capsys.readouterr()
    options = ["--prompt", prompt, "--lines", "3", "--seed", "7", "--max-words", "5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["generate", "lstm", *options])
        generate.main()
    return capsys.readouterr().out.splitlines()


def test_the_champion_loads_as_a_pyfunc_model_without_a_pickle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    evaluated(100.0)
    files = [path for path in Path("mlruns/models").rglob("*") if path.is_file()]  # before loading adds compiled code
    assert {path.suffix for path in files} == {".json", ".py", ".safetensors", ".txt", ".yaml", ""}
    assert {path.name for path in files if not path.suffix} == {"MLmodel"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_address())
    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code in front
    model = mlflow.pyfunc.load_model("models:/ptb-lstm@champion")
    found = model.predict(pd.DataFrame({"text": TEXT}))
    assert list(found.itertuples(index=False, name=None)) == scores(capsys)
    assert model.metadata.signature.inputs.input_names() == ["text"]
    assert model.metadata.signature.outputs.input_names() == list(found.columns)
    assert list(model.predict(model.input_example)["unknown_words"]) == [0]
    options = {"sentences": 3, "seed": 7, "max_words": 5}
    found = model.predict(pd.DataFrame({"text": ["the cat", ""]}), params=options)
    assert list(found["text"]) == [*generated("the cat", capsys), *generated("", capsys)]
    with pytest.raises(Exception, match="line 2: has the word <eos>"):
        model.predict(pd.DataFrame({"text": ["the", "<eos>"]}))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the champion, started where another `pipeline` lies in the way."""
    evaluated(100.0)
    elsewhere = tmp_path / "elsewhere/pipeline/__init__.py"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text("raise ImportError('not the code of the model')")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/ptb-lstm@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["MLFLOW_TRACKING_URI"] = store_address()
    address = f"http://127.0.0.1:{port}"
    with running(command, lambda: answers(f"{address}/ping"), cwd=tmp_path / "elsewhere", env=environment):
        yield address


@pytest.mark.slow
def test_the_served_model_gives_the_perplexities_of_score(served: str, capsys: pytest.CaptureFixture) -> None:
    def ask(body: Any) -> requests.Response:
        return requests.post(f"{served}/invocations", json=body, timeout=100)

    answer = ask({"dataframe_records": [{"text": line} for line in TEXT]})
    assert answer.ok, answer.text
    found = [(row["perplexity"], row["tokens"], row["unknown_words"]) for row in answer.json()["predictions"]]
    assert found == scores(capsys)
    assert ask({"inputs": {"text": TEXT}}).json() == answer.json()
    options = {"sentences": 3, "seed": 7, "max_words": 5}
    drawn = ask({"dataframe_records": [{"text": "the cat"}], "params": options}).json()["predictions"]
    assert [row["text"] for row in drawn] == generated("the cat", capsys)
    assert ask({"dataframe_records": [{"text": "the"}], "params": {"sentences": -1}}).status_code == 400

    for text, fault in [("the cat <eos>", "line 2: has the word <eos>"), (None, "line 2: has no text")]:
        refused = ask({"dataframe_records": [{"text": "the"}, {"text": text}]})
        assert refused.status_code == 400
        assert fault in refused.text
    assert ask({"dataframe_records": [{"sentence": "the cat"}]}).status_code == 400
