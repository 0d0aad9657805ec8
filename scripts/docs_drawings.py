"""Draws the two pictures of docs/why.md as SVG, legible on a light and on a dark page.

python scripts/docs_drawings.py
"""

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from distributed_pg.training.schedule import EpisodeTask, Schedule

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDTH = 480
"""Of the drawings, in their own units: narrow, so that a phone shows the text large enough."""
_STYLE = """
text { font: 15px sans-serif; fill: #1d2430 }
.small { font-size: 13px }
.head { font-weight: bold }
.middle { text-anchor: middle }
.box { fill: #eef1f6; stroke: #6b7a90 }
.group { fill: none; stroke: #6b7a90; stroke-dasharray: 4 4 }
.line { fill: none; stroke: #6b7a90; stroke-width: 1.5 }
.tip { fill: #6b7a90 }
.v0 { fill: #c9d7ee } .v1 { fill: #f6d9a8 } .v2 { fill: #bfe3cb } .v3 { fill: #eac5dd }
.v4 { fill: #d9d2c4 }
.game { stroke: #6b7a90 }
@media (prefers-color-scheme: dark) {
  text { fill: #e3e7ee }
  .box { fill: #2b3442; stroke: #98a5b8 }
  .group, .line, .game { stroke: #98a5b8 }
  .tip { fill: #98a5b8 }
  .v0 { fill: #31507f } .v1 { fill: #75551c } .v2 { fill: #276040 } .v3 { fill: #703c5d }
  .v4 { fill: #5a5548 }
}
"""
BATCH, WORKERS = 3, 3
GAMES = (7, 11, 8, 10, 6.5, 8.5, 7.5, 9, 12, 8, 7, 9.5, 11, 7.5, 9, 8, 10, 7, 9, 8, 8)
"""Duration of each episode."""
END = 42.5
"""When the drawing of the schedule ends."""
_LEFT, _ROW = 76, 30
_SCALE = (WIDTH - _LEFT - 4) / END


@dataclass(frozen=True)
class Game:
    """An episode that was played."""

    task: EpisodeTask
    worker: int
    begin: float

    @property
    def end(self) -> float:
        """When its gradient was there."""
        return self.begin + GAMES[self.task.episode]


def main() -> None:
    """Write the drawings."""
    for name, draw in DRAWINGS.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")


def played(lag: int) -> tuple[list[Game], list[float]]:
    """Play as the learner's schedule says; the games begun and the times of the updates made."""
    schedule = Schedule(BATCH, lag)
    idle, playing, now = list(range(WORKERS)), list[tuple[float, int, Game]](), 0.0
    games, updates = list[Game](), list[float]()
    while now < END:
        while idle and (task := schedule.next_task()):
            game = Game(task, heapq.heappop(idle), now)
            games.append(game)
            heapq.heappush(playing, (game.end, game.worker, game))
        now, worker, game = heapq.heappop(playing)
        heapq.heappush(idle, worker)
        schedule.finish(game.task.episode)
        for episode in schedule.next_to_sum(BATCH):
            schedule.mark_summed(episode)
        if schedule.batch_complete:
            schedule.advance()
            updates.append(now)
    return games, [moment for moment in updates if moment <= END]


def schedule_drawing() -> str:
    """The same games with a policy lag of 0 and of 1."""
    lines, top = [], 20
    titles = ("Policy lag 0: every update waits for its slowest game", "Policy lag 1: nobody waits")
    for lag, title in enumerate(titles):
        lines += [text(0, top, title, "head"), *_panel(*played(lag), top + 14)]
        top += 14 + (WORKERS + 1) * _ROW + 22
    lines += [text(0, top, "episodes, played with the weights after", "small"), *_key(top + 8)]
    return svg(top + 36, lines)


def _panel(games: list[Game], updates: list[float], top: float) -> Iterator[str]:
    for worker in range(WORKERS):
        yield text(0, top + worker * _ROW + 19, f"worker {worker + 1}", "small")
    below = top + WORKERS * _ROW
    yield text(0, below + 19, "update", "small")
    for number, moment in enumerate(updates, 1):
        x = _LEFT + moment * _SCALE
        yield path(f"M{x:.1f} {top:g} V{below + 6:g}")
        yield text(x, below + 19, str(number), "small middle")
    for game in games:
        x, y = _LEFT + game.begin * _SCALE, top + game.worker * _ROW
        width = (min(game.end, END) - game.begin) * _SCALE
        yield rect(x, y, width, _ROW - 4, f"game v{game.task.version}")
        if game.end <= END:
            yield text(x + width / 2, y + 18, str(game.task.episode), "small middle")


def _key(top: float) -> Iterator[str]:
    labels = ("no update", "1 update", "2", "3", "4")
    for version, (label, x) in enumerate(zip(labels, (0, 120, 232, 300, 368), strict=True)):
        yield rect(x, top, 18, 18, f"game v{version}")
        yield text(x + 26, top + 14, label, "small")


def gradient_drawing() -> str:
    """A gradient's way from a worker to the weights."""
    at_work = (
        "emulator: 2 frames a step",
        "what has changed: about 30 of 6400 pixels",
        "add these 30 rows of W1, choose an action",
        "when the game ends: returns, advantages",
        "gradient of the rows that were touched",
    )
    learning = (
        "put in the order of the episodes",
        "sum of batch_size gradients",
        "RMSProp's step: the next weights",
    )
    lines = [text(12, 24, "a worker, one of many; the same for each of them", "head")]
    lines += [rect(1, 1, WIDTH - 2, 276, "group"), *_boxes(at_work, 40)]
    lines += [*_arrow(150, 262, 322), text(162, 304, "0.4 MB after a beginner's game", "small")]
    lines += [rect(1, 323, WIDTH - 2, 180, "group"), text(12, 346, "the learner", "head")]
    lines += _boxes(learning, 360)
    lines += [*_back(), text(428, 304, "weights", "small middle")]
    return svg(506, lines)


def _boxes(labels: tuple[str, ...], top: float) -> Iterator[str]:
    for number, label in enumerate(labels):
        y = top + 47 * number
        yield rect(24, y, 366, 34, "box")
        yield text(207, y + 22, label, "middle")
        if number:
            yield from _arrow(207, y - 13, y)


def _arrow(x: float, top: float, bottom: float) -> Iterator[str]:
    yield path(f"M{x:g} {top:g} V{bottom - 6:g}")
    yield f'<path class="tip" d="M{x - 4:g} {bottom - 7:g} h8 l-4 7 z"/>'


def _back() -> Iterator[str]:
    """The way of the weights, from the last box of the learner up to the worker's choice."""
    yield path("M390 471 H428 V312 M428 288 V151 H398")
    yield '<path class="tip" d="M398 147 v8 l-7 -4 z"/>'


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Words whose line begins at (x, y)."""
    return f'<text x="{x:.1f}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A box with round corners."""
    size = f'width="{width:.1f}" height="{height:g}"'
    return f'<rect x="{x:.1f}" y="{y:g}" {size} rx="3" class="{kind}"/>'


def path(way: str) -> str:
    """A line."""
    return f'<path class="line" d="{way}"/>'


def svg(height: float, lines: list[str]) -> str:
    """The file of a drawing."""
    size = f'viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH * 4 // 3}"'
    inside = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{_STYLE}</style>\n{inside}\n'
        "</svg>\n"
    )


DRAWINGS: Mapping[str, Callable[[], str]] = {
    "schedule.svg": schedule_drawing,
    "gradient.svg": gradient_drawing,
}
"""What draws each file."""

if __name__ == "__main__":
    main()
