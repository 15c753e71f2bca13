"""A digest of what code means. It ignores comments, docstrings, layout, parentheses and kinds of quotes."""

import ast
import hashlib
from functools import lru_cache
from pathlib import Path

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
MEANINGLESS = {"ctx", "kind", "type_comment"}


def code_digest(folder: Path) -> str:
    """The SHA-256 of all modules below a folder: their names and their syntax trees without docstrings.

    Skips files whose names cannot be imported, such as those of editors and systems: `.#model.py`, `._model.py`.

    The digest is the same on Python 3.11 to 3.14. That of `ast.dump` is not: later versions have new fields, leave out
    empty ones, and split f-strings differently. Raises SyntaxError for a file that is not Python.
    """
    digest = hashlib.sha256()
    modules = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    for name, path in sorted(modules.items()):
        if not all(part.isidentifier() for part in name.removesuffix(".py").split("/")):
            continue
        digest.update(f"{name!a}: {_form_of_module(path.read_bytes(), path)}\n".encode())
    return digest.hexdigest()


@lru_cache  # asked for after every epoch
def _form_of_module(source: bytes, path: Path) -> str:
    return _form(ast.parse(source, path))


def _form(part: object) -> str:
    """A node, a list of nodes or a plain value as text; in ASCII, because `repr` depends on the version of Unicode."""
    if isinstance(part, list):
        return f"[{', '.join(map(_form, part))}]"
    if isinstance(part, ast.JoinedStr):
        return _f_string(part.values)
    if not isinstance(part, ast.AST):
        return ascii(part)
    fields = {name: value for name, value in ast.iter_fields(part) if name not in MEANINGLESS}
    if isinstance(part, DOCUMENTED) and ast.get_docstring(part, clean=False) is not None:
        fields["body"] = part.body[1:]
    if isinstance(part, ast.ClassDef):  # a string below an attribute describes it
        fields["body"] = [statement for statement in part.body if not _is_string(statement)]
    filled = [f"{name}={_form(value)}" for name, value in fields.items() if value is not None and value != []]
    return f"{type(part).__name__}({', '.join(filled)})"


def _is_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _f_string(pieces: list[ast.expr]) -> str:
    """Text + value + ... + text: some Python versions split texts, add empty ones, or make a single one a constant."""
    forms, text = [], ""
    for piece in pieces:
        if isinstance(piece, ast.Constant):
            text += str(piece.value)
        else:
            forms += [_form(ast.Constant(text)), _form(piece)]
            text = ""
    return " + ".join([*forms, _form(ast.Constant(text))])
