"""How pytest-xdist shares the tests among its workers."""

from xdist.scheduler import LoadScopeScheduling

# What these modules set up takes longer than most tests.
DEALT_OUT_WHOLE = {"tests/test_pipeline.py", "tests/test_server.py", "tests/test_shared_stores.py"}


class Dealing(LoadScopeScheduling):
    """Deals out one test at a time to the workers, and some modules whole, which come first.

    As `--dist loadgroup` would, if it still did with this pytest; by file, the slowest ones came last, on one worker.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if module in DEALT_OUT_WHOLE else nodeid
