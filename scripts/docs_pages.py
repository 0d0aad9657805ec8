"""Writes the parts of the documentation's pages that are made from the code, such as tables.

    python scripts/docs_pages.py

Such a part of a page stands between two comments, ``<!-- NAME: made by scripts/docs_pages.py -->``
and ``<!-- end -->``.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from distributed_pg.cli.main import COMMANDS, EXIT_CODES
from distributed_pg.cli.train import TrainArgs
from distributed_pg.config import TrainConfig, may_change, of_the_place
from distributed_pg.fields import Range, types_in
from distributed_pg.presets import PRESETS, preset
from distributed_pg.shapes import MOST_USEFUL, SHAPES
from distributed_pg.storage.metrics import UpdateRecord

DOCS = Path(__file__).resolve().parents[1] / "docs"
_PART = re.compile(
    r"(?P<begin><!-- (?P<name>[a-z ]+): made by scripts/docs_pages\.py -->\n)"
    r".*?(?P<end><!-- end -->)",
    re.DOTALL,
)
_ENDLESS = 2**53
"""An upper limit that nobody reaches is left out."""


def main() -> None:
    """Bring all pages up to date."""
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        made = with_parts(text)
        if made != text:
            page.write_text(made, encoding="utf-8")
            print(f"Wrote {page.relative_to(DOCS.parent)}")


def with_parts(page: str) -> str:
    """The page with each part made anew.

    Raises:
        KeyError: there is no such part.
    """

    def part(match: re.Match[str]) -> str:
        return f"{match['begin']}\n{PARTS[match['name']]()}\n{match['end']}"

    return _PART.sub(part, page)


def presets_table() -> str:
    """A row for each setting in which the presets differ."""
    names = list(dict.fromkeys(name for changes in PRESETS.values() for name in changes))
    rows = [[code(name), *(shown(getattr(preset(p), name)) for p in PRESETS)] for name in names]
    return table(["setting", *map(code, PRESETS)], rows)


def shapes_table() -> str:
    """The flags that ``train`` chooses by the number of workers."""
    rows, lowest = [], 1
    for most, settings in SHAPES.items():
        flags = [f"--{name.replace('_', '-')} {value}" for name, value in settings.items()]
        workers = f"{lowest} and more" if most == MOST_USEFUL else f"{lowest} to {most}"
        rows.append([workers, code(" ".join(flags)) if flags else "those of the preset"])
        lowest = most + 1
    return table(["workers at the start", "settings"], rows)


def metrics_table() -> str:
    """A row for each field of a record."""
    hints = typing.get_type_hints(UpdateRecord, include_extras=True)
    rows = []
    for name, text in described(UpdateRecord):
        kind = kind_of(hints[name])
        rows.append([code(name), kind, text.replace("None", "null") if "null" in kind else text])
    return table(["field", "value", "what it is"], rows)


def run_settings() -> str:
    """The settings that make a run what it is."""
    return settings_table(TrainConfig, leave_out=may_change())


def free_settings() -> str:
    """The settings that may differ when a run is resumed."""
    kept = may_change() - of_the_place()
    return settings_table(TrainConfig, leave_out={f.name for f in _flags(TrainConfig)} - kept)


def place_settings() -> str:
    """The settings that describe where a run trains."""
    kept = of_the_place()
    return settings_table(TrainConfig, leave_out={f.name for f in _flags(TrainConfig)} - kept)


def display_settings() -> str:
    """What ``train`` takes besides the settings of a run."""
    return settings_table(TrainArgs)


def commands() -> str:
    """A section with a table of the arguments for each of the other commands."""
    sections = []
    for name, (kind, _) in COMMANDS.items():
        if kind is not TrainArgs:
            first = (inspect.getdoc(kind) or "").partition("\n")[0]
            sections.append(f"### {name}\n\n{first}\n\n{settings_table(kind)}")
    return "\n".join(sections)


def exit_codes_table() -> str:
    """A row for each exit code."""
    return table(["exit code", "meaning"], [[str(c), text] for c, text in EXIT_CODES.items()])


PARTS: Mapping[str, Callable[[], str]] = {
    "presets": presets_table,
    "shapes": shapes_table,
    "metrics": metrics_table,
    "run settings": run_settings,
    "free settings": free_settings,
    "place settings": place_settings,
    "display settings": display_settings,
    "commands": commands,
    "exit codes": exit_codes_table,
}
"""The parts by the name in their comment."""


def settings_table(kind: type, leave_out: Collection[str] = ()) -> str:
    """A row for each flag of a dataclass of settings, except those named."""
    hints, texts = typing.get_type_hints(kind, include_extras=True), dict(described(kind))
    rows = []
    for field in _flags(kind):
        if field.name not in leave_out:
            values = [allowed(hints[field.name]), _default(field)]
            limits = "; ".join(text for text in values if text)
            rows.append([_flag(field, hints[field.name]), f"{texts[field.name]}<br>({limits})"])
    return table(["flag", "meaning (values; default)"], rows)


def described(kind: type) -> Iterator[tuple[str, str]]:
    """The fields of a dataclass, each with the docstring below it."""
    body = next(
        node.body
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind))))
        if isinstance(node, ast.ClassDef)
    )
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            yield ast.unparse(field.target), " ".join(ast.literal_eval(text.value).split())


def allowed(hint: Any) -> str:
    """The values that a type allows, as the page says it."""
    parts = [text for member, limits in types_in(hint) if (text := _allowed(member, limits))]
    return " or ".join(part for part in dict.fromkeys(parts) if part != "path" or len(parts) == 1)


def kind_of(hint: Any) -> str:
    """The JSON values of a type."""
    names = {int: "whole number", float: "number", str: "text", type(None): "null"}
    if typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint)
        return f"list of {names[item]}s"
    return " or ".join(names[member] for member, _ in types_in(hint))


def shown(value: Any) -> str:
    """A value as one writes it on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    values = value if isinstance(value, tuple) else (value,)
    text = " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
    return code(text) if text else "none"


def code(text: str) -> str:
    """The text in a fixed width."""
    return f"`{text}`"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in r] for r in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _flags(kind: type) -> list[dataclasses.Field[Any]]:
    """The fields that are flags of their own."""
    nested = ("config", "train")
    fields = dataclasses.fields(kind)
    return [f for f in fields if f.name not in nested and f.metadata.get("flag", True)]


def _flag(field: dataclasses.Field[Any], hint: Any) -> str:
    notes = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    if tyro.conf.Positional in notes:
        metavars = [note.metavar for note in notes if getattr(note, "metavar", None)]
        return code(metavars[0] if metavars else field.name.upper())
    flag = field.name.replace("_", "-")
    return code(f"--no-{flag}" if field.default is True else f"--{flag}")


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"default: {shown(field.default)}"
    made = field.default_factory is not dataclasses.MISSING
    return "" if made else "must be given"


def _allowed(member: Any, limits: Range | None) -> str:
    if typing.get_origin(member) is Literal:
        return ", ".join(map(code, typing.get_args(member)))
    if typing.get_origin(member) is tuple:
        item, *rest = typing.get_args(member)
        if rest != [...]:
            return f"{len(rest) + 1} whole numbers"
        return "several" if item is str else f"several of {allowed(item)}"
    if member in (int, float):
        number = "whole number" if member is int else "number"
        if limits is None:
            return number
        if limits.high >= _ENDLESS or limits.high >= 1e9:
            return f"{number} {'above' if limits.open_low else 'from'} {limits.low:g}"
        return f"{number} {limits}"
    return {str: "text", Path: "path", bool: ""}.get(member, "")


if __name__ == "__main__":
    main()
