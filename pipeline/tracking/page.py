"""MLflow's server with one page more, `/start`, which sets what MLflow keeps in the browser and goes on to MLflow.

Kept there: whether the menu is that of generative AI, as it is at first, or of model training; and whether the
assistant, which takes up a quarter of the first page that one opens, has done so before.
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
KEPT = {"mlflow.workflowType_v1": '"machine_learning"', "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}
PAGE = f"""<!doctype html><meta charset="utf-8"><title>MLflow</title><script>
Object.assign(localStorage, {KEPT})
location.replace("/" + location.hash)
</script>"""


def app() -> "FastAPI":
    """What MLflow's server runs, for its option `--app-name`."""
    from mlflow.server.fastapi_app import app as mlflow
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    page = HTMLResponse(PAGE, headers={"cache-control": "no-store"})
    mlflow.router.routes.insert(0, Route(PATH, lambda _: page))  # the last takes all addresses that are left
    return mlflow


@contextmanager
def plugin() -> Iterator[dict[str, str]]:
    """The variable by which MLflow finds the app, for which it looks among the packages that are installed."""
    with TemporaryDirectory() as folder:
        package = Path(folder) / f"{APP}-0.dist-info"
        package.mkdir()
        (package / "entry_points.txt").write_text(f"[mlflow.app]\n{APP} = {__name__}:{app.__name__}\n")
        places = [folder, str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        yield {"PYTHONPATH": os.pathsep.join(filter(None, places))}
