"""Check params.yaml, alone or with settings for `dvc exp run -S`, before anything runs. The file is not changed.

python -m pipeline.params train.learning_rate=0.5 +models.gru.epochs=20
"""

import argparse
import shutil
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.project.console import UserError, run, say, warn
from pipeline.project.files import PARAMS
from pipeline.settings.mistakes import close_to, raise_mistakes
from pipeline.settings.params import load_params, parse_yaml, read_text
from pipeline.settings.schema import Params


def check(settings: Sequence[str] = ()) -> Params:
    """params.yaml as it would be with these settings. Raises UserError, with a line for each mistake."""
    if not settings:
        return load_params()
    parse_yaml(read_text(PARAMS), PARAMS)
    with TemporaryDirectory() as folder:
        copy = Path(shutil.copy(PARAMS, folder))
        lines = {setting.partition("=")[0]: line for setting in settings if (line := _apply(copy, setting))}
        try:
            params = load_params(copy)
        except UserError as error:
            text = str(error).replace(str(copy), str(PARAMS))
            raise_mistakes([text, *(line for key, line in lines.items() if not _is_refused(key, text))])
    raise_mistakes(list(lines.values()))
    return params


def _is_refused(key: str, text: str) -> bool:
    """Whether it is said already that a key, or a group that it is in, does not exist."""
    return any(f" {part}: no such setting" in text for part in accumulate(key.split("."), "{}.{}".format))


def _apply(copy: Path, setting: str) -> str | None:
    """Write a setting into the copy as DVC would, even a new one without its + -> what is wrong, if anything."""
    if "=" not in setting:
        return f"{setting}: expected KEY=VALUE, or +KEY=VALUE for a new key"
    from dvc.exceptions import InvalidArgumentError  # type: ignore[import-untyped]
    from dvc.utils.hydra import apply_overrides  # type: ignore[import-untyped]
    from omegaconf.errors import OmegaConfBaseException

    refused = (InvalidArgumentError, OmegaConfBaseException, TypeError)  # the last for a list in place of a group
    try:
        apply_overrides(copy, [setting])
        return None
    except refused as error:
        why = " ".join(str(error.__cause__ or error).split())
    try:
        apply_overrides(copy, [f"+{setting}"])
    except refused:
        return f"{setting}: {why}: write KEY=VALUE, +KEY=VALUE for a new key"
    key = setting.partition("=")[0]
    return f"{PARAMS}: {key} does not exist yet: {_likely_model(key)}write +{setting}"


def _likely_model(key: str) -> str:
    """A hint if the key is that of a new model whose name is like one in params.yaml."""
    group, *names = key.split(".")
    document = parse_yaml(read_text(PARAMS), PARAMS)
    models = document.get("models") if isinstance(document, dict) else None
    if group != "models" or not names or not isinstance(models, dict) or names[0] in models:
        return ""
    likely = close_to(names[0], list(models))
    return f"did you mean {likely}? For a new model, " if likely else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.params", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="as for `dvc exp run -S`")
    params = check(parser.parse_args().settings)
    if misnamed := params.misnamed():
        warn(misnamed)
    say(f"{PARAMS}: no mistakes; models: {', '.join(params.models)}")


if __name__ == "__main__":
    run(main)
