"""The commands that the README and the pages of the documentation show."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from command import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<language>sh|python)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_INLINE = re.compile(r"`distributed-pg ([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of commands."""

    page: Path
    line: int
    """The line of its first command."""
    language: str
    """``sh`` or ``python``."""
    text: str
    why_not: str | None
    """What running it needs that a test does not have; None: it is run."""

    @property
    def commands(self) -> list[str]:
        """The commands of a shell's block, without comments; those joined by && are apart."""
        lines = self.text.replace("\\\n", " ").splitlines()
        whole = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
        return [command for line in whole for command in line.split(" && ") if command]


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start("text")) + 1,
            match["language"],
            match["text"],
            match["why"],
        )
        for match in _BLOCK.finditer(text)
    ]


def inline_commands(page: Path) -> list[list[str]]:
    """The arguments of the ``distributed-pg`` commands within the text of a page."""
    return [shlex.split(found) for found in _INLINE.findall(page.read_text(encoding="utf-8"))]


def arguments_of(command: str) -> list[str] | None:
    """The arguments of a ``distributed-pg`` command; None if it is another one."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    return words[1:] if words and Path(words[0]).name == "distributed-pg" else None
