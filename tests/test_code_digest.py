"""The digest of code: what it ignores, what changes it, and that it is the same in every version of Python."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.artifacts.code_digest import code_digest
from tests.small import ROOT

LM = ROOT / "pipeline/lm"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# Syntax that Pythons have different trees for, or had.
TRICKY = r'''
"""A docstring,
    over two lines."""

from __future__ import annotations
import os.path as p, sys
from . import (a as b, c,)

x: int = -1; (y): "float" = -0.5e-3; z = 1_000 + 0x_ff, 1e999, 2 - 3.5j, ..., None, b"\x00" b'b', "é\N{BULLET}\ud800"
ªﬁ = u"a" 'b' """c
d"""
w = f"", f"a{{b}}" "c", "a" f"b{x}" r"\d" f"{y!r}{z=}", rf"\d{x}\N{{y}}", f"{'é' 'x'}{{{x:}"
w = f"{x:>{y}}", f"{x:{y}.{z}f}", f"{x:{y!r}{z}}", f"{x = !s:^{y}}", f"{f'{x:{y}}':{z}}", f"{x:%H:%M}", f"{x!a:\x20}"
w = f"{x:\N{BULLET}}", f"{x:a\N{BULLET}b}", f"{x:\N{BULLET}{y}a}", f"""{
    x, *y}{lambda_ if not x else (lambda: 1)():
    }"""


@p.wraps(sys)
@(lambda f, /, a=1, *b, c, d=None, **e: (yield))
class C(p.A, *c, metaclass=M, **kw):
    'A docstring' " in two"
    a: int
    b.c: list[int | None] = []
    "no docstring"


async def f(a: int, /, b: T = 2, *args: *Ts, c=3, d, **kwargs: str) -> x[1:, ::2, *a, ()]:
    """A docstring."""
    global g, h
    async with a as b, c(): await d
    async for *i, j in k: break
    else: continue
    return [l async for l in m if n if not o], {**p, None: q}, {*r, s}, (t for t in u)


def g():
    n = 1
    def h() -> None:
        f"""no {docstring}"""
        nonlocal n
        yield
        n = yield from (i := 1,)
        return
    if (n := h()) and n or not n is not n <= n < -n ** -n @ ~n: pass
    elif n not in (): del n[0], (n.a, n)
    else: assert n, "message"
    try: raise E(f"error {n}") from None
    except* (A, B) as e: raise
    else: n @= n
    finally: print(*a, sep="", **k)


match x, *y:
    case -1 | 1.5 - 2j | "a" 'b' | None | True: pass
    case [1, *_] | [*r]: pass
    case {"k": v, -1: _, **r} if r: pass
    case {}: pass
    case C(1, (2), x=a.b) as z: pass
    case _: match = case = type = _
'''
TRICKY_DIGEST = "ca0ce90973db75ae8e8bd473ac1c5838892fa9c196ab4a1763a8a686a37d3443"

SAME = {
    "a comment": ("x = 1", "# one\nx = 1  # two"),
    "blank lines": ("x = 1\ny = 2", "\n\nx = 1\n\n\ny = 2\n\n"),
    "line breaks": ("x = f(1, 2)", "x = f(\r\n    1,\r\n    2,\r\n)"),
    "parentheses": ("x = a + b * c", "x = (a + (b * c))"),
    "quotes": ("x = 'it', f'{y}'", 'x = """it""", f"{y}"'),
    "a string in pieces": ("x = f'a{y}b'", "x = 'a' f'{y}' 'b'"),
    "a number's spelling": ("x = 1000, 1e3", "x = 1_000, 1000.0"),
    "a module's docstring": ("x = 1", "'What x is.'\nx = 1"),
    "a module's only docstring": ("", "'Nothing.'"),
    "an attribute's docstring": ("class A:\n    a: int\n    'One.'", "class A:\n    a: int\n    'Two.'"),
    "a class's docstring": ("class A: 'One.'", "class A: 'Two.'"),
    "a function's docstring": ("def f(): return 1", "def f():\n    'One.'\n    return 1"),
    "a coroutine's docstring": ("async def f(): return 1", "async def f():\n    'One.'\n    return 1"),
}
DIFFERENT = {
    "an annotation": ("x: int = 1", "x: float = 1"),
    "a decorator": ("@a\ndef f(): pass", "def f(): pass"),
    "an async function": ("async def f(): pass", "def f(): pass"),
    "a default": ("def f(*, a, b=1): pass", "def f(*, a=1, b): pass"),
    "a default of None": ("def f(*, a, b=None): pass", "def f(*, a=None, b=None): pass"),
    "an unpacked dictionary": ("{**a}", "{None: a}"),
    "grouping": ("x = a + b + c", "x = a + (b + c)"),
    "a number's type": ("x = 1", "x = 1.0"),
    "a truth value": ("x = 1", "x = True"),
    "a zero's sign": ("x = 0.0", "x = -0.0"),
    "a string's type": ("x = 'a'", "x = b'a'"),
    "a string for a name": ("x = 'a'", "x = a"),
    "a text in an f-string": ("f'a{x}b{y}'", "f'a{x}{y}b'"),
    "a format": ("f'{x:>5}'", "f'{x:<5}'"),
    "a conversion": ("f'{x!r}'", "f'{x!s}'"),
    "nesting": ("if a:\n    b\n    c", "if a:\n    b\nc"),
    "a string that is no docstring": ("x = 1\n'one'", "x = 1\n'two'"),
}


def digest(folder: Path, source: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "module.py").write_bytes(source.encode())
    return code_digest(folder)


@pytest.mark.parametrize(("before", "after"), SAME.values(), ids=SAME)
def test_layout_and_wording_do_not_count(tmp_path: Path, before: str, after: str) -> None:
    assert digest(tmp_path, before) == digest(tmp_path, after)


@pytest.mark.parametrize(("before", "after"), DIFFERENT.values(), ids=DIFFERENT)
def test_everything_else_counts(tmp_path: Path, before: str, after: str) -> None:
    assert digest(tmp_path, before) != digest(tmp_path, after)


def docstrings(tree: ast.AST) -> list[ast.AST]:
    documented = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
    found = [node.body[0].value for node in documented if ast.get_docstring(node) is not None]
    in_classes = [statement for node in documented if isinstance(node, ast.ClassDef) for statement in node.body]
    texts = [statement.value for statement in in_classes if isinstance(statement, ast.Expr)]
    return found + [text for text in texts if text not in found]


def reworded(source: str) -> str:
    """The source with other docstrings, no comments, and lines, quotes and parentheses as `ast.unparse` has them."""
    tree = ast.parse(source)
    for docstring in docstrings(tree):
        docstring.value = "In other\n\n    words."
    return ast.unparse(tree)


def changed(source: str) -> Iterator[str]:
    """Variants of the source with one change each: of a name, a text, a number, an operator or the order of a list."""
    tree = ast.parse(source)
    original = ast.unparse(tree)
    words = docstrings(tree)
    for node in (node for node in ast.walk(tree) if node not in words):
        for field, value in ast.iter_fields(node):
            match value:
                case str():
                    change = value + "_"
                case int() | float() if field == "value":
                    change = value + 1
                case list():
                    change = value[::-1]
                case ast.operator():
                    change = ast.LShift()
                case _:
                    continue
            setattr(node, field, change)
            if (variant := ast.unparse(tree)) != original:
                yield variant
            setattr(node, field, value)


def test_the_language_models_code_may_be_reworded(tmp_path: Path) -> None:
    copy = shutil.copytree(LM, tmp_path / "lm")
    for module in copy.glob("*.py"):
        before = module.read_text(encoding="utf-8")
        module.write_text(reworded(before), encoding="utf-8")
        assert module.read_text(encoding="utf-8") != before
    assert code_digest(copy) == code_digest(LM)


@pytest.mark.parametrize("module", ["batching.py", "distributed.py", "schedule.py"])
def test_every_change_of_a_formula_constant_name_message_or_order_counts(tmp_path: Path, module: str) -> None:
    source = (LM / module).read_text(encoding="utf-8")
    variants = set(changed(source))
    assert len(variants) > 50
    assert len({digest(tmp_path, variant) for variant in [source, *variants]}) == 1 + len(variants)


def test_the_names_of_files_and_folders_count(tmp_path: Path) -> None:
    digests = {digest(tmp_path / "a", "x = 1")}
    for name in ("other.py", "module/__init__.py", "sub/module.py"):
        shutil.rmtree(tmp_path / "a")
        (tmp_path / "a" / name).parent.mkdir(parents=True)
        (tmp_path / "a" / name).write_text("x = 1")
        digests.add(code_digest(tmp_path / "a"))
    assert len(digests) == 4


def test_the_place_of_the_folder_and_other_files_in_it_do_not_count(tmp_path: Path) -> None:
    before = digest(tmp_path / "a", "x = 1")
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "c")
    for name in ("notes.txt", "._module.py", ".ipynb_checkpoints/module-checkpoint.py"):
        (tmp_path / "b" / "c" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "b" / "c" / name).write_bytes(b"x = \0")
    (tmp_path / "b" / "c" / ".#module.py").symlink_to("an editor's lock, which leads nowhere")
    assert code_digest(tmp_path / "b" / "c") == before


def test_a_file_that_is_not_python_is_named(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError, match=r"module\.py"):
        digest(tmp_path, "def f(:")


def test_every_version_of_python_gives_this_digest(tmp_path: Path) -> None:
    assert digest(tmp_path, TRICKY) == TRICKY_DIGEST
