"""Every command in the README and the documentation is run, with shorter runs where they are long.

Blocks that need a person or a cloud say so in a comment above them, and are only parsed.
"""

import contextlib
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from command import ROOT, run
from documented import PAGES, Block, arguments_of, blocks, inline_commands
from learner_runs import run as run_without_ray

from distributed_pg.cli.main import COMMANDS, main, parse_command
from distributed_pg.config import TrainConfig

RUNS = ("A", "B", "C", "a", "b", "2026-11-21_03-53-50_default")
"""Runs that the pages speak of as if they were there, in runs/."""
FIRST = TrainConfig(frame_limit=400, batch_size=1, stop_episodes=1, num_workers=1)
SHORT = {"--num-workers": "1", "--frame-limit": "400", "--batch-size": "2"}
INSTEAD = {
    "train": {"--stop-minutes": "5"},
    "sweep": {"--seeds": "0"},
    "evaluate": {"--episodes": "1", "--num-workers": "1"},
    "record": {"--best-of": "1", "--max-seconds": "1"},
    "report": {"--episodes": "1"},
}
"""By command, the values of some flags that make it short, in place of those on the page."""
ALSO = {"evaluate": "--episodes", "record": "--max-seconds", "report": "--episodes"}
"""By command, the flag that is given even where the page leaves it out."""
INSTALLED = re.compile(
    r"python3 -m venv \.venv|\. \.venv/bin/activate|\.venv/bin/pytest"
    r"|(\.venv/bin/)?pip install .+"
)
"""What has been done already where tests run, and would need a network."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Iterator[Path]:
    """The current folder: one with what the pages take for granted."""
    folder = tmp_path_factory.mktemp("documented")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        first, *others = (Path("runs") / name for name in RUNS)
        run_without_ray(FIRST, first)
        for other in others:
            shutil.copytree(first, other)
            checkpoints = other / "checkpoints"
            shutil.copy(max(checkpoints.iterdir()), checkpoints / "best.safetensors")
        _succeeds(["export", "pretrained", "--out", "save.p"])
        yield folder


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """What has been run already: pages repeat some commands, perhaps on another run."""
    return set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page: Path, workspace: Path, seen: set[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.why_not is None and block.language == "python":
            _run_python(block, names, seen)
        elif block.why_not is None:
            for command in block.commands:
                _run_command(block, command, seen)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_not_run_are_allowed(page: Path) -> None:
    commands = [c for block in blocks(page) if block.why_not for c in block.commands]
    given = [arguments_of(command) for command in commands] + [*inline_commands(page)]
    for arguments in given:
        # What resumes reads the run, help ends, and one capital is for the reader to replace.
        other = arguments and re.search(r"--resume|--help|\.\.\.| [A-Z]( |$)", " ".join(arguments))
        if arguments and not other:
            assert isinstance(parse_command([*arguments]), COMMANDS[arguments[0]][0])


def test_the_readme_repeats_a_run(workspace: Path) -> None:
    """Its block about equal bits has just been run, with fewer episodes."""
    last = [(workspace / "runs" / name / "metrics.jsonl").read_text() for name in ("one", "two")]
    assert last[0].splitlines()[-1][-19:] == last[1].splitlines()[-1][-19:]


def _run_command(block: Block, command: str, seen: set[str]) -> None:
    where, arguments = f"{block.page.name}:{block.line}: {command}", arguments_of(command)
    if INSTALLED.fullmatch(command):
        _check_extras(command)
    elif arguments is None:
        assert run("bash", "-c", command, cwd=Path.cwd()).returncode == 0, where
    elif (key := _key(short := shortened(block, arguments))) not in seen:
        seen |= {key, re.sub(r" --run-dir \S+", "", key)}  # with a name or without, it is the same
        _succeeds(short, where)


def _key(arguments: list[str]) -> str:
    """What a command is; which of the runs it reads makes no difference."""
    name, *words = arguments
    reads = name not in ("train", "sweep")
    is_run = [reads and (Path(word) / "config.json").exists() for word in words]
    return shlex.join([name, *("RUN" if run else w for w, run in zip(words, is_run, strict=True))])


def _run_python(block: Block, names: dict[str, Any], seen: set[str]) -> None:
    """Run a block after the page's earlier ones, unless another page has had the same."""
    if block.text in seen:
        exec("import distributed_pg as pg", names)  # noqa: S102
        return
    seen.add(block.text)
    code = block.text.replace('preset("default",', 'preset("default", num_workers=1,')
    code = code.replace("num_workers=1,", "num_workers=1, frame_limit=400, batch_size=2,")
    code = re.sub(r"(?<=stop_episodes=)\d+", lambda n: _fewer(block, n[0]), code)
    code = re.sub(r"(?=stop_minutes=)", "stop_episodes=2, ", code)
    code = re.sub(r"(?<=\bepisodes=)\d+", "1", code)
    exec(compile(code, f"{block.page.name}:{block.line}", "exec"), names)  # noqa: S102
    plt.close("all")


def _succeeds(arguments: list[str], where: str = "") -> None:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert main(arguments) == 0, f"{where}\n{errors.getvalue()}"


def shortened(block: Block, arguments: list[str]) -> list[str]:
    """The same command with a run of a few episodes, or with a few games."""
    name, *rest = arguments
    instead, short, words = INSTEAD.get(name, {}), [name], iter(rest)
    for word in words:
        short.append(word)
        if word in instead:
            next(words)
            short.append(instead[word])
        elif word == "--stop-episodes":
            short.append(_fewer(block, next(words)))
        elif word == "--set":
            short.append(next(words).partition(",")[0])
    more = {ALSO[name]: instead[ALSO[name]]} if name in ALSO else {}
    if name in ("train", "sweep") and ("--resume" not in short or "auto" in short):
        more = {**SHORT, "--stop-episodes": "2"}
    return short + [word for flag in more.items() if flag[0] not in short for word in flag]


def _fewer(block: Block, episodes: str) -> str:
    """A small number of episodes; a larger one of the same block gets a larger one."""
    numbers = {int(number) for number in re.findall(r"stop.episodes[= ](\d+)", block.text)}
    return str(2 + 2 * sorted(numbers).index(int(episodes)))


def _check_extras(command: str) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    known = re.findall(r"^(\w+) = \[", text.partition("optional-dependencies]")[2], re.MULTILINE)
    for extras in re.findall(r"'\.\[([\w,]+)\]'", command):
        assert set(extras.split(",")) <= set(known), command
