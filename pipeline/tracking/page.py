"""MLflow's server with an additional page, `/start`, which sets MLflow's settings in the browser and then opens MLflow.

They make it show the menu for model training, instead of the one for generative AI, and keep its assistant closed,
which would cover a quarter of the first page.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # takes a second to import
    from fastapi import FastAPI

PATH = "/start"
APP = "start"
SETTINGS = {"mlflow.workflowType_v1": '"machine_learning"', "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}
PAGE = f"""<!doctype html><meta charset="utf-8"><title>MLflow</title><script>
Object.assign(localStorage, {SETTINGS})
location.replace("/" + location.hash)
</script>"""


def app() -> "FastAPI":
    """What MLflow's server runs, for its option `--app-name`."""
    from mlflow.server.fastapi_app import app as mlflow
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    page = HTMLResponse(PAGE, headers={"cache-control": "no-store"})
    mlflow.router.routes.insert(0, Route(PATH, lambda _: page))  # before the last, which takes all other addresses
    return mlflow


@contextmanager
def plugin() -> Iterator[dict[str, str]]:
    """The environment variable that makes MLflow find the app, which it looks for among the installed packages."""
    with TemporaryDirectory() as folder:
        package = Path(folder) / f"{APP}-0.dist-info"
        package.mkdir()
        (package / "entry_points.txt").write_text(f"[mlflow.app]\n{APP} = {__name__}:{app.__name__}\n")
        places = [folder, str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        yield {"PYTHONPATH": os.pathsep.join(filter(None, places))}
