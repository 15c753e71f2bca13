"""Check params.yaml, alone or with settings as `dvc exp run -S` takes them, before anything runs. It is left as it is.

python -m pipeline.params --check train.learning_rate=0.5 +models.gru.epochs=20
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.project.console import UserError, run, say
from pipeline.project.files import PARAMS
from pipeline.project.params import load_params, parse_yaml, read_text
from pipeline.project.schema import Params


def check(settings: Sequence[str] = ()) -> Params:
    """params.yaml as it would be with these settings. Raises UserError."""
    if not settings:
        return load_params()
    from dvc.exceptions import InvalidArgumentError  # type: ignore[import-untyped]
    from dvc.utils.hydra import apply_overrides  # type: ignore[import-untyped]
    from omegaconf.errors import OmegaConfBaseException

    parse_yaml(read_text(PARAMS), PARAMS)
    with TemporaryDirectory() as folder:
        copy = Path(shutil.copy(PARAMS, folder))
        try:
            apply_overrides(copy, list(settings))
        except (InvalidArgumentError, OmegaConfBaseException) as error:
            why = " ".join(str(error.__cause__ or error).split())
            raise UserError(f"{' '.join(settings)}: {why}: write KEY=VALUE, +KEY=VALUE for a new key") from None
        try:
            return load_params(copy)
        except UserError as error:
            raise UserError(str(error).replace(str(copy), str(PARAMS))) from None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.params", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", required=True, help="refuse the first mistake, in one line")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="as for `dvc exp run -S`")
    params = check(parser.parse_args().settings)
    say(f"{PARAMS}: no mistakes; models: {', '.join(params.models)}")


if __name__ == "__main__":
    run(main)
