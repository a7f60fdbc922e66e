"""Draws `kernels.svg`, the figure of docs/kernels.md: `python docs/figures/draw_kernels.py`.

The same file on every run of one version of matplotlib.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

WIDTH, HEIGHT = 900, 826
INK, SOFT, GREY = "#1a1a1a", "#555555", "#8a8a8a"
# Okabe and Ito's colours, told apart by colour-blind readers too; pale ones for the kernels' backgrounds.
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
PALE = {BLUE: "#e9f3fa", ORANGE: "#fdf0e6", GREEN: "#e6f5f0"}
SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gss kernels",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
}
Point = tuple[float, float]


class Drawing:
    """A page with pixels for units and the origin at the top left."""

    def __init__(self) -> None:
        figure = Figure(figsize=(WIDTH / 96, HEIGHT / 96), facecolor="white")
        self.figure = figure
        self.axes: Axes = figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        self.axes.set_axis_off()

    def text(self, x: float, y: float, words: str, size: float = 12, colour: str = INK, **style: Any) -> None:
        """Words around a point; size in pixels. A hyphen is a minus sign."""
        placed: dict[str, Any] = {"ha": "center", "va": "center_baseline"} | style
        self.axes.text(x, y, words.replace("-", "\N{MINUS SIGN}"), fontsize=0.75 * size, color=colour, **placed)

    def box(self, left: float, top: float, width: float, height: float, lines: list[str], edge: str = INK) -> None:
        """A step: its first line says what, the others how."""
        shape = FancyBboxPatch((left, top), width, height, boxstyle="round,pad=0,rounding_size=5", fc="white", ec=edge)
        self.axes.add_patch(shape)
        first = top + height / 2 - 8.5 * (len(lines) - 1)
        for number, line in enumerate(lines):
            style: dict[str, Any] = {"weight": "bold"} if number == 0 else {}
            self.text(left + width / 2, first + 17 * number, line, **style)

    def memory(self, left: float, top: float, width: float, lines: list[str]) -> None:
        """A tensor in memory, between two kernels."""
        self.axes.add_patch(Rectangle((left, top), width, 40, fc="white", ec=SOFT, lw=1, ls=(0, (4, 2))))
        for number, line in enumerate(lines):
            self.text(left + width / 2, top + 12 + 17 * number, line, weight="bold" if number == 0 else "normal")

    def kernel(self, top: float, height: float, colour: str, title: str, note: str) -> None:
        """The background of all that one kernel does."""
        shape = FancyBboxPatch(
            (10, top), WIDTH - 20, height, boxstyle="round,pad=0,rounding_size=8", fc=PALE[colour], ec=colour, lw=1.2
        )
        self.axes.add_patch(shape)
        self.text(24, top + 19, title, size=14, colour=colour, weight="bold", ha="left")
        self.text(WIDTH - 24, top + 19, note, colour=SOFT, ha="right")

    def arrow(self, *points: Point, colour: str = INK) -> None:
        """A line with corners, its head at the last point."""
        for start, end in itertools.pairwise(points[:-1]):
            xs, ys = zip(start, end, strict=True)
            self.axes.plot(xs, ys, color=colour, lw=1.3, solid_capstyle="projecting")
        self.axes.add_patch(
            FancyArrowPatch(
                points[-2], points[-1], arrowstyle="-|>", mutation_scale=11, lw=1.3, color=colour, shrinkA=0, shrinkB=0
            )
        )

    def volumes(self, left: float, top: float, colour: str, caption: list[str]) -> None:
        """Four volumes, one behind the other."""
        size, depth, step = 50, 6, 14
        for number in reversed(range(4)):
            x, y = left + step * number, top + step * (3 - number)
            front = [(x, y), (x + size, y), (x + size, y + size), (x, y + size)]
            lid = [(x, y), (x + depth, y - depth), (x + size + depth, y - depth), (x + size, y)]
            side = [(x + size, y), (x + size + depth, y - depth), (x + size + depth, y + size - depth)]
            for corners, shade in (
                (front, "white"),
                (lid, PALE[colour]),
                ([*side, (x + size, y + size)], PALE[colour]),
            ):
                self.axes.add_patch(Polygon(corners, fc=shade, ec=colour, lw=1, joinstyle="round"))
        for number, line in enumerate(caption):
            style: dict[str, Any] = {"weight": "bold"} if number == 0 else {"colour": SOFT}
            self.text(left + 49, top + 112 + 17 * number, line, **style)

    def voters(self, left: float, middle: float, leaders: str, members: str) -> None:
        """A circle for each leader and a square for each member, filled where confident ("1")."""
        for number, filled in enumerate(leaders):
            fill = INK if filled == "1" else "white"
            self.axes.add_patch(Circle((left + 15 * number, middle), 5, fc=fill, ec=INK, lw=1))
        for number, filled in enumerate(members):
            fill = {"1": INK, "0": "white", "?": "#c8c8c8"}[filled]
            x = left + 15 * len(leaders) + 6 + 15 * number
            self.axes.add_patch(Rectangle((x - 4.5, middle - 4.5), 9, 9, fc=fill, ec=INK, lw=1))


def draw_vote(page: Drawing, left: float, top: float) -> None:
    """The box of the vote with its four routes."""
    width, height = 534, 176
    shape = FancyBboxPatch((left, top), width, height, boxstyle="round,pad=0,rounding_size=5", fc="white", ec=INK)
    page.axes.add_patch(shape)
    page.text(left + 14, top + 17, "Vote of every voxel, category by category", weight="bold", ha="left")
    page.text(left + 14, top + 39, "route", colour=SOFT, ha="left")
    page.text(left + 106, top + 39, "confident: p above a threshold", colour=SOFT, ha="left")
    page.text(left + 328, top + 39, "vote s, made of q", colour=SOFT, ha="left")
    page.axes.plot([left + 12, left + width - 12], [top + 49] * 2, color=GREY, lw=0.8)
    routes = (
        ("leaders agree", "11", "??", "every leader", "max of leaders"),
        ("leaders split", "10", "??", "some, not all", "max - leader_blend (max - min)"),
        ("members", "00", "11", "no leader, every member", "mean of members"),
        ("minimum", "00", "10", "otherwise", "min of all"),
    )
    for number, (route, leaders, members, condition, vote) in enumerate(routes):
        middle = top + 64 + 23 * number
        page.text(left + 14, middle, route, ha="left")
        page.voters(left + 112, middle, leaders, members)
        page.text(left + 174, middle, condition, size=11, ha="left")
        page.text(left + 328, middle, vote, size=11, ha="left")
    page.voters(left + 19, top + height - 15, "0", "")
    page.text(left + 30, top + height - 15, "leader", size=11, colour=SOFT, ha="left")
    page.voters(left + 73, top + height - 15, "", "0")
    page.text(left + 89, top + height - 15, "member; black: confident, white: not, grey: either", 11, SOFT, ha="left")


def draw_forward(page: Drawing) -> None:
    """The first kernel and the sums that it writes."""
    page.kernel(10, 366, BLUE, "1  Forward kernel", "reads the logits once, block by block, and writes sums only")
    page.volumes(32, 68, BLUE, ["logits z", "[B, M, C, voxels]"])
    page.box(172, 74, 140, 46, ["sharp", "p = softmax(z)"], BLUE)
    page.box(172, 150, 140, 46, ["tempered", "q = softmax(z / T)"], BLUE)
    draw_vote(page, 340, 46)
    page.arrow((136, 115), (154, 115), (154, 97), (172, 97))
    page.arrow((136, 115), (154, 115), (154, 173), (172, 173))
    page.arrow((312, 97), (340, 97))
    page.arrow((312, 173), (340, 173))
    page.box(660, 260, 214, 46, ["target, a constant", "t = s / sum of s over categories"], BLUE)
    page.arrow((767, 222), (767, 260))
    page.box(180, 252, 400, 62, ["every modality is a student of t", "d = k t (log t - log max(q, clamp))"], BLUE)
    page.text(260, 226, "students q", colour=SOFT, ha="left")
    page.arrow((250, 196), (250, 252))
    page.arrow((660, 283), (580, 283))
    page.box(30, 252, 110, 62, ["mask k", "per modality,", "from a seed"], BLUE)
    page.arrow((140, 283), (180, 283))
    page.text(392, 345, "Σ over the voxels, in registers", colour=SOFT, ha="left", style="italic")
    page.text(534, 414, "with labels, the segmentation losses' sums too", colour=SOFT, ha="left", style="italic")
    page.arrow((380, 314), (380, 394))
    page.memory(240, 394, 280, ["sums", "Σ k [B, M],  Σ k t and Σ d [B, M, C]"])


def draw_finish(page: Drawing) -> None:
    """The tiny kernel in the middle, the loss and the coefficients."""
    page.kernel(452, 100, ORANGE, "2  Finish kernel", "one program; numbers, no volumes")
    page.arrow((380, 434), (380, 490))
    page.box(240, 490, 280, 46, ["weight of a category", "W = 1 - Σ k t / Σ k"], ORANGE)
    page.box(614, 490, 260, 46, ["loss", "(sum over b, m, c of W Σ d) / (B N)"], ORANGE)
    page.arrow((520, 513), (614, 513))
    page.arrow((380, 536), (380, 570))
    page.memory(240, 570, 280, ["coefficients W [B, M, C]", "all that is kept besides the inputs"])


def draw_backward(page: Drawing) -> None:
    """The last kernel."""
    page.kernel(
        628, 186, GREEN, "3  Backward kernel", "reads the logits again, writes the gradient, recomputes the rest"
    )
    page.volumes(32, 672, GREEN, ["the same logits", "read again"])
    page.box(172, 688, 162, 62, ["once more", "softmaxes, vote,", "mask of the same seed"], GREEN)
    page.box(390, 688, 320, 62, ["a = W k t  where q ≥ clamp, else 0", "dl/dz = (q · Σ a - a) / (N T)"], GREEN)
    page.volumes(772, 672, GREEN, ["gradient", "written once"])
    page.arrow((136, 719), (172, 719))
    page.arrow((334, 719), (390, 719))
    page.arrow((710, 719), (764, 719))
    page.arrow((455, 610), (455, 688))


def main(path: Path) -> None:
    """Write the figure."""
    with mpl.rc_context(SETTINGS):
        page = Drawing()
        draw_forward(page)
        draw_finish(page)
        draw_backward(page)
        page.figure.savefig(path, metadata={"Date": None, "Creator": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("kernels.svg"))
