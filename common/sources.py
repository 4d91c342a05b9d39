"""What code computes with: the source of classes and functions, and of what they name."""

import ast
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import partial
from types import CodeType, ModuleType

MADE = {"__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__replace__"}
MADE |= {"__lt__", "__le__", "__gt__", "__ge__"}  # what `dataclass` may make


def is_common(thing: type | Callable) -> bool:
    """Whether a class or function is this library's, and not a notebook's or someone's own."""
    return (thing.__module__ or "").split(".")[0] == "common"


def spell_code(thing: type | Callable) -> str:
    """Code of a class's methods or of a function, without docstrings and comments.

    Python finds it for what a notebook defines as well. Of one's own code what it names is spelled
    too: functions and classes beside it, and the values of the others, attributes among them.
    """
    functions = _list_functions(thing)
    settled = {} if is_common(thing) else _spell_attributes(thing)
    for function in [] if is_common(thing) else functions:  # which grows meanwhile
        for name, value in _list_named(function):
            beside, text = _spell_value(value, thing.__module__)
            for part in beside:
                functions += [one for one in _list_functions(part) if one not in functions]
                settled |= _spell_attributes(part)
            if text is not None:
                settled[name] = text
    settings = [f"{name} = {text}" for name, text in settled.items()]
    return f"{thing.__name__}\n" + "\n\n".join([*map(_strip_source, functions), *settings])


def _list_functions(thing: type | Callable) -> list[Callable]:
    """List the function, or the methods of the class, but those that a dataclass makes."""
    items = vars(thing).values() if isinstance(thing, type) else [thing]
    members = [getattr(item, "fget", getattr(item, "__func__", item)) for item in items]
    functions = [one for member in filter(callable, members) for one in _unwrap(member)]
    return [one for one in functions if not (is_dataclass(thing) and _is_made(one))]


def _unwrap(member: Callable) -> Iterator[Callable]:
    """Give what one's own decorators put around a function, and then the function.

    `wraps` gives a wrapper the module of what it wraps; its globals are those of its own.
    """
    inner = inspect.unwrap(member)
    while member is not inner and not is_common(inner):
        if inspect.isfunction(member) and member.__globals__["__name__"] == inner.__module__:
            yield member
        member = member.__wrapped__
    yield from filter(inspect.isfunction, [inner])


def _is_made(function: Callable) -> bool:
    """Whether `dataclass` made it, such as `__init__`; which ones there are depends on Python."""
    made = function.__module__ == "dataclasses" or function.__code__.co_filename == "<string>"
    return made and function.__name__ in MADE


def _spell_attributes(thing: type | Callable) -> dict[str, str]:
    """Spell what a class holds beside its methods."""
    held = vars(thing) if isinstance(thing, type) else {}
    kept = {name: value for name, value in held.items() if not name.startswith(("__", "_abc_"))}
    spelled = {name: _spell_value(value, thing.__module__)[1] for name, value in kept.items()}
    return {f"{thing.__name__}.{name}": text for name, text in spelled.items() if text is not None}


def _list_named(function: Callable) -> Iterator[tuple[str, object]]:
    """List the values that a function names outside of itself, by name."""
    names = set(_list_names(function.__code__))
    scope = {name: function.__globals__[name] for name in names & function.__globals__.keys()}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    scope |= {name: cell.cell_contents for name, cell in cells if name != "__class__"}
    yield from sorted(scope.items())


def _list_names(code: CodeType) -> Iterator[str]:
    """List the names that are looked up outside, not those of attributes."""
    looked_up = ("LOAD_GLOBAL", "LOAD_NAME")
    yield from (step.argval for step in dis.get_instructions(code) if step.opname in looked_up)
    for part in filter(inspect.iscode, code.co_consts):  # comprehensions, lambdas
        yield from _list_names(part)


def _spell_value(
    value: object, module: str, outer: tuple = ()
) -> tuple[list[type | Callable], str | None]:
    """Give classes and functions of the module that are in a value, and the rest of it as text.

    The text is None where nothing is left: what other modules define is named where it is used.
    `outer` are the values that this one lies in.
    """
    if any(value is one for one in outer):
        return [], "itself"
    outer = (*outer, value)
    origin = inspect.unwrap(value) if callable(value) else value
    if isinstance(value, ModuleType | property | classmethod | staticmethod):
        return [], None
    if isinstance(origin, type):
        return [kind for kind in origin.__mro__ if kind.__module__ == module], None
    if inspect.isfunction(origin):
        return [value] * (origin.__module__ == module), None
    if isinstance(value, partial):
        parts, text = _spell_value([value.func, value.args, value.keywords], module, outer)
    elif isinstance(value, list | tuple | dict) and not _is_constant(value):
        items = [*value, *value.values()] if isinstance(value, dict) else value
        found = [_spell_value(item, module, outer) for item in items]
        parts = [part for inside, _ in found for part in inside]
        text = str([rest for _, rest in found])
    elif type(value).__module__ == module:
        parts, text = _spell_value(vars(value), module, outer)
        parts = [*_spell_value(type(value), module)[0], *parts]
    else:
        parts, text = [], repr(value) if _is_constant(value) else _hash(value)
    return parts, text


def _is_constant(value: object) -> bool:
    """Whether it is written alike in every session: numbers, text, and lists of them."""
    if isinstance(value, dict):
        return all(map(_is_constant, [*value, *value.values()]))
    if isinstance(value, tuple | list):
        return all(map(_is_constant, value))
    return isinstance(value, bool | int | float | str | None)


def _hash(value: object) -> str:
    from joblib import hash as hash_value  # takes a tenth of a second

    try:
        return hash_value(value)
    except Exception:  # whatever pickling raises
        return type(value).__qualname__


def _strip_source(function: Callable) -> str:
    try:
        text = textwrap.dedent(inspect.getsource(function.__code__))
    except (OSError, TypeError):  # typed at a prompt
        defaults = _hash((function.__defaults__, function.__kwdefaults__))
        return " ".join([*_spell_bytes(function.__code__), defaults])
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a lambda in the middle of a line
        return text
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _spell_bytes(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    for part in code.co_consts:
        yield from _spell_bytes(part) if inspect.iscode(part) else [_hash(part)]
