"""A tree of Python sources that is read and never imported.

Invariant: a name is found as Python would find it, through imports of other modules and through base classes, so that a definition that
moved behind its old name counts as there.
"""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign | ast.AnnAssign


class Sources:
    """The modules below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tree = cache(self._parse)

    def find(self, module: str, name: str) -> Definition | None:
        """The definition of `name`, or of `Class.member`, that a module offers; None if there is none."""
        first, _, member = name.partition(".")
        for node in (*_named(self._tree(module), first), *_named(self._tree(module), "*")):
            if isinstance(node, ast.ImportFrom):
                alias = next(alias for alias in node.names if (alias.asname or alias.name) in (first, "*"))
                origin = resolve_name("." * node.level + (node.module or ""), self._package(module))
                original = first if alias.name == "*" else alias.name
                found = self.find(origin, f"{original}.{member}" if member else original)
            elif member and isinstance(node, ast.ClassDef):
                found = self._member(module, node, member)
            else:
                found = None if member else node
            if found is not None:
                return found
        return None

    def has_module(self, module: str) -> bool:
        """Whether there is such a module."""
        return self._path(module) is not None

    def _member(self, module: str, owner: ast.ClassDef, member: str) -> Definition | None:
        for node in (*_named(owner, member), *_attributes(owner, member)):
            if not isinstance(node, ast.ImportFrom):
                return node
        bases = (ast.unparse(base).partition("[")[0] for base in owner.bases)
        return next((found for base in bases if (found := self.find(module, f"{base}.{member}")) is not None), None)

    def _path(self, module: str) -> Path | None:
        place = self.root / module.replace(".", "/")
        return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()), None)

    def _package(self, module: str) -> str:
        path = self._path(module)
        return module if path is not None and path.stem == "__init__" else module.rpartition(".")[0]

    def _parse(self, module: str) -> ast.Module:
        path = self._path(module)
        return ast.Module([], []) if path is None else ast.parse(path.read_text())


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The parameters that can be given by position, a default behind its own: `["self", "scale", "softcap=None"]`."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    defaults = [f"={ast.unparse(default)}" for default in function.args.defaults]
    return [name + default for name, default in zip(names, [""] * (len(names) - len(defaults)) + defaults, strict=True)]


def _named(scope: ast.Module | ast.ClassDef, name: str) -> Iterator[Definition | ast.ImportFrom]:
    """The statements of a scope that bind a name, also those under conditions; definitions come before imports."""
    found = [node for node in _statements(scope) if name in _bound(node)]
    yield from sorted(found, key=lambda node: isinstance(node, ast.ImportFrom))


def _statements(scope: ast.AST) -> Iterator[Definition | ast.ImportFrom]:
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, Definition | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            yield from _statements(node)


def _bound(node: Definition | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    return [ast.unparse(target) for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]


def _attributes(owner: ast.ClassDef, member: str) -> Iterator[ast.Assign | ast.AnnAssign]:
    """Assignments to an attribute of an instance."""
    for node in ast.walk(owner):
        if isinstance(node, ast.Assign | ast.AnnAssign) and f"self.{member}" in _bound(node):
            yield node
