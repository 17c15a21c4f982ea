"""Line charts as SVG by a few lines of our own: panels side by side, one legend, at home on dark and light pages.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 30, 76, 50
_LEGEND = 26
_LEGEND_GAP, _CHARACTER = 40, 6.6
_COLOURS = ("#2f6fde", "#d9822b", "#2e9e5b", "#a855c7", "#c9405d", "#7c8794", "#0f9ba8")
_STYLE = """
text { font: 12px system-ui, -apple-system, 'Segoe UI', sans-serif; fill: #59636e }
.title { font-size: 15px; font-weight: 600; fill: #1f2328 } .panel { font-weight: 600; fill: #1f2328 }
.page { fill: #ffffff; stroke: #d1d9e0 } .grid { stroke: #e4e8ec } .axis { stroke: #8c959f } .band { fill: #2e9e5b22 }
@media (prefers-color-scheme: dark) {
text { fill: #9aa4af } .title, .panel { fill: #e6edf3 }
.page { fill: #0d1117; stroke: #3d444d } .grid { stroke: #262c34 } .axis { stroke: #59636e } .band { fill: #2e9e5b33 }
}
"""


@dataclass(frozen=True, slots=True)
class Line:
    """A named line through points; lines of one name have one colour in all panels."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart. `ticks`: where the x axis is labelled, and how; places between the first and the last are by
    logarithm where `log` says so. `band`: what of the y axis is within the target."""

    title: str
    x_label: str
    y_label: str
    ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    log: bool = False
    band: tuple[float, float] | None = None


def svg(title: str, panels: Sequence[Panel], width: int = 300, height: int = 330) -> str:
    """The picture; each panel is `width` wide, all have the y axis in common, which begins at 0."""
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    highest = max((y for panel in panels for line in panel.lines for _, y in line.points), default=1.0)
    highest = max(highest, *(panel.band[1] for panel in panels if panel.band), 0.0) or 1.0
    marks = steps(highest * 1.05)
    whole = width * len(panels)
    legend, rows = _legend(colours, whole, height)
    tall = height + _LEGEND * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {tall}" width="{whole}" height="{tall}">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="page" x=".5" y=".5" width="{whole - 1}" height="{tall - 1}" rx="8"/>',
        f'<text class="title" x="{_LEFT - 30}" y="30">{escape(title)}</text>',
    ]
    for index, panel in enumerate(panels):
        parts += _panel(panel, index * width, width, height, marks, colours)
    return "\n".join([*parts, *legend, "</svg>\n"])


def steps(highest: float) -> list[float]:
    """Round numbers from 0 to at least `highest`, about five of them."""
    rough = highest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    return [step * n for n in range(math.ceil(highest / step - 1e-9) + 1)]


def _panel(
    panel: Panel, offset: int, width: int, height: int, marks: list[float], colours: dict[str, str]
) -> Iterable[str]:
    left, right = offset + _LEFT, offset + width - _RIGHT
    top, bottom = _TOP, height - _BOTTOM
    first, last = panel.ticks[0][0], panel.ticks[-1][0]
    scale = math.log if panel.log else float

    def x_of(x: float) -> float:
        return round(left + (right - left) * (scale(x) - scale(first)) / ((scale(last) - scale(first)) or 1.0), 1)

    def y_of(y: float) -> float:
        return round(bottom - (bottom - top) * y / marks[-1], 1)

    yield f'<text class="panel" x="{left}" y="{top - 22}">{escape(panel.title)}</text>'
    yield f'<text x="{left}" y="{top - 7}">{escape(panel.y_label)}</text>'
    if panel.band is not None:
        low, high = (y_of(y) for y in panel.band)
        yield f'<rect class="band" x="{left}" y="{high}" width="{right - left}" height="{round(low - high, 1)}"/>'
    for mark in marks:
        kind = "grid" if mark else "axis"
        yield f'<line class="{kind}" x1="{left}" x2="{right}" y1="{y_of(mark)}" y2="{y_of(mark)}"/>'
        yield f'<text x="{left - 8}" y="{y_of(mark) + 4}" text-anchor="end">{mark:g}</text>'
    for x, label in panel.ticks:
        yield f'<text x="{x_of(x)}" y="{bottom + 18}" text-anchor="middle">{escape(label)}</text>'
    yield f'<text x="{(left + right) / 2}" y="{bottom + 37}" text-anchor="middle">{escape(panel.x_label)}</text>'
    for line in panel.lines:
        at = [(x_of(x), y_of(y)) for x, y in line.points]
        through = " ".join(f"{x},{y}" for x, y in at)
        yield f'<polyline points="{through}" fill="none" stroke="{colours[line.name]}" stroke-width="2"/>'
        if len(at) <= 12:
            yield from (f'<circle cx="{x}" cy="{y}" r="3" fill="{colours[line.name]}"/>' for x, y in at)


def _legend(colours: dict[str, str], width: int, top: int) -> tuple[list[str], int]:
    """The names beside their colours, in as many rows as they need."""
    parts: list[str] = []
    x, row = float(_LEFT - 30), 0
    for name, colour in colours.items():
        needed = _LEGEND_GAP + len(name) * _CHARACTER
        if parts and x + needed > width:
            x, row = float(_LEFT - 30), row + 1
        y = top + _LEGEND * row
        parts.append(f'<line x1="{x:g}" x2="{x + 16:g}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 22:g}" y="{y + 4}">{escape(name)}</text>')
        x += needed
    return parts, row + 1
