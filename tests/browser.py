"""A page in a real Chromium, with what it complained of and whatever it asked of other machines."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import ConsoleMessage, Page, Request, Route, expect, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 120_000  # a page may be slow to come on a busy machine
LOCAL_SCHEMES = {"file", "data", "blob"}


@dataclass
class Visit:
    """A page, light and of 1440 x 900 pixels; `page.emulate_media` and `page.set_viewport_size` change that.

    errors: what the console showed as an error, and exceptions that nothing caught
    asked_elsewhere: addresses asked for that are not on this machine; none of them is answered
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    asked_elsewhere: list[str] = field(default_factory=list)

    def note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def pass_on(self, route: Route, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in LOCAL_SCHEMES or parts.hostname == "127.0.0.1":
            route.continue_()
        else:
            self.asked_elsewhere.append(request.url)
            route.abort()


@contextmanager
def visit() -> Iterator[Visit]:
    """Start a browser of its own. The test fails where there is none."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program())
        page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
        visit = Visit(page)
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page.on("console", visit.note_message)
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.route("**/*", visit.pass_on)
        yield visit
        browser.close()


def _program() -> str:
    for name in PROGRAMS:
        if program := shutil.which(name):
            return program
    pytest.fail(f"no browser is installed ({' or '.join(PROGRAMS)}): apt install chromium", pytrace=False)
