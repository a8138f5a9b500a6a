"""Makes mutants of a module: each its syntax tree with one place changed, as a small slip would change it.

What no test can be asked to notice is left alone: docstrings, annotations, asserts (guards of what can't
happen), keywords of a class, and decorators.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

COMPARED: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
COMPUTED: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
UNTOUCHED = {"annotation", "returns", "decorator_list", "type_params"}


@dataclass
class Mutant:
    """One change: `key` names it by the text of its place, so that it stays the same as lines move."""

    key: str
    apply: Callable[[], None]


def mutants_of(tree: ast.Module, only: frozenset[str] = frozenset()) -> list[Mutant]:
    """Return all mutants of a tree, or those inside the functions named `only`. Apply one to each tree."""
    seen: Counter[str] = Counter()
    found = []
    for function, old, new, apply in _changes(tree, ""):
        if only and function.split(".")[-1] not in only:
            continue
        key = f"{function or 'module'}: {old} -> {new}"
        seen[key] += 1
        found.append(Mutant(key if seen[key] == 1 else f"{key} ({seen[key]})", apply))
    return found


def compiled(path: Path, number: int, only: frozenset[str] = frozenset()) -> CodeType:
    """Compile the module with its mutant of that number."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    mutants_of(tree, only)[number].apply()
    return compile(ast.fix_missing_locations(tree), str(path), "exec")


Change = tuple[str, str, str, Callable[[], None]]


def _changes(node: ast.AST, inside: str) -> Iterator[Change]:
    for field, value in ast.iter_fields(node):
        if field in UNTOUCHED or (isinstance(node, ast.ClassDef) and field in {"keywords", "bases"}):
            continue
        places = value if isinstance(value, list) else [value]
        for place, child in enumerate(places):
            if not isinstance(child, ast.AST) or isinstance(child, ast.Assert | ast.Import | ast.ImportFrom):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):  # a docstring
                continue
            if isinstance(child, ast.Subscript) and ast.unparse(child.value) == "Literal":  # a type
                continue

            def put(new: ast.AST, place: int = place, value: object = value, field: str = field) -> None:
                if isinstance(value, list):
                    value[place] = new
                else:
                    setattr(node, field, new)

            for new in (*_expressions(child), *_statements(child)):
                yield inside, _text(child), _text(new), lambda put=put, new=new: put(new)
            name = inside
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{inside}.{child.name}" if inside else child.name
            yield from _changes(child, name)


def _expressions(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left, [op], [right]):
            for other in COMPARED[type(op)]:
                yield ast.Compare(left, [other()], [right])
        case ast.Compare(left, [first, second], rights):
            yield from (ast.Compare(left, [other(), second], rights) for other in COMPARED[type(first)])
            yield from (ast.Compare(left, [first, other()], rights) for other in COMPARED[type(second)])
        case ast.BinOp(left, op, right) if type(op) in COMPUTED:
            yield ast.BinOp(left, COMPUTED[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() as value):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case ast.Constant(str() as value):
            yield ast.Constant(f"{value}~")
        case ast.Constant(bytes() as value):
            yield ast.Constant(value + b"~")
        case ast.IfExp(test, body, orelse) if not isinstance(test, ast.Compare | ast.UnaryOp):
            yield ast.IfExp(test, orelse, body)
        case ast.Call(ast.Name("max" | "min"), _, _):  # in any order the same
            return
        case ast.Call(function, [first, second, *rest], keywords) if not isinstance(first, ast.Starred):
            yield ast.Call(function, [second, first, *rest], keywords)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.If(test, body, orelse) if not isinstance(test, ast.Compare | ast.UnaryOp):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Return(value) if value is not None and not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(ast.Call() | ast.Await()) | ast.AugAssign() | ast.Break() | ast.Delete() | ast.Raise():
            yield ast.Pass()
        case ast.Assign([ast.Attribute() | ast.Subscript()], _):
            yield ast.Pass()


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.If):
        node = node.test
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= 70 else f"{text[:45]} .. {text[-20:]}"
