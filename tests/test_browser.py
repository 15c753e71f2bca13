"""The browser of the tests: what it notes, which the other tests rely on."""

from pathlib import Path

import pytest

from tests.browser import Visit

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><title>A page</title><link rel="icon" href="data:,">
<img src="http://elsewhere.invalid/picture.png">
<script>console.error("complaint"); setTimeout(() => { throw new Error("uncaught") })</script>"""


def test_what_a_page_complains_of_and_asks_of_other_machines_is_noted(visit: Visit) -> None:
    Path("page.html").write_text(PAGE)
    visit.page.goto(Path("page.html").resolve().as_uri())
    visit.page.wait_for_load_state("networkidle")
    assert visit.page.title() == "A page"
    assert visit.asked_elsewhere == ["http://elsewhere.invalid/picture.png"]
    assert {"complaint", "uncaught"} <= {error.split(" (")[0] for error in visit.errors}
