"""The page's plots: errors along the depth, latency, weight ranges. Each for wide and narrow screens.

No text from a model appears in a plot: layers have numbers, and the table below the plot has their names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.errors import MissingExtraError
from bnfold.report.page import svg
from bnfold.report.page.svg import BAD, CONTROL, FOLDED, INK, LINE, MUTED, ORIGINAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDE, _NARROW = 9.4, 3.6  # inches
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_POINTS = 256  # along a density


@dataclass(frozen=True)
class Plot:
    """One plot in two forms; the page shows the one that fits."""

    wide: str
    narrow: str


@dataclass(frozen=True)
class LayerError:
    """Errors of one layer relative to its scale; None where not measured or not finite.

    Attributes:
        original: Of the original in the runtime, against the oracle.
        folded: Of the folded model, likewise.
        fold: What the fold alone changes, in float64.
        bound: The part of `fold` that one rounding explains.
        site: Whether something was folded here.
    """

    original: float | None
    folded: float | None
    fold: float | None
    bound: float | None
    site: bool = False

    @property
    def beyond(self) -> bool:
        """Whether the fold changes more than rounding explains."""
        return self.bound is not None and (self.fold is None or self.fold > self.bound)


@dataclass(frozen=True)
class Ratio:
    """A ratio of latencies with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Latency:
    """Latency at one setting; times are milliseconds per run and may be empty."""

    setting: str
    original: Sequence[float]
    folded: Sequence[float]
    control: Sequence[float]
    ratio: Ratio
    control_ratio: Ratio | None


@dataclass(frozen=True)
class Spread:
    """The positive per-channel ranges of one weight, ascending, and the bits that a common step loses."""

    live: Sequence[float]
    bits: float


@dataclass(frozen=True)
class LayerRange:
    """One layer's weight before the fold (None where it had none) and after it."""

    before: Spread | None
    after: Spread
    worse: bool


def errors(layers: Sequence[LayerError], name: str) -> Plot:
    """Draw both errors along the depth of the network, on a logarithmic axis."""

    def draw(figure: Figure, _: bool) -> None:
        axes = figure.subplots()
        places = np.arange(1, len(layers) + 1)
        keys = ("bound", "fold", "original", "folded")
        curves = {key: _positive([getattr(layer, key) for layer in layers]) for key in keys}
        size = (
            _marker(len(layers)) if len(layers) <= 300 else 0.0
        )  # with more layers, only curves can be distinguished
        axes.plot(places, curves["bound"], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.plot(places, curves["fold"], color=CONTROL, linewidth=0.9, marker="o", markersize=0.8 * size)
        axes.plot(places, curves["original"], color=ORIGINAL, linewidth=1.1, marker="o", markersize=size)
        axes.plot(places, curves["folded"], color=FOLDED, linewidth=1.1, marker="s", markersize=size)
        beyond = np.array([layer.beyond for layer in layers], bool)
        axes.plot(places[beyond], curves["fold"][beyond], "D", color=BAD, markersize=size + 2)
        marked = [place for place, layer in enumerate(layers, start=1) if layer.site]
        foot = axes.get_xaxis_transform()
        axes.vlines(marked, 0, 0.03, color=FOLDED, linewidth=1, transform=foot)
        axes.set_title("error relative to the layer’s scale")
        _depth(axes, len(layers))
        _logarithmic(axes, np.concatenate(list(curves.values())))

    return _both(draw, 2.7, 2.7, name)


def latency(rows: Sequence[Latency], name: str) -> Plot | None:
    """Draw how the single timings are distributed; None without timings."""
    timed = [row for row in rows if len(row.original) and len(row.folded)]
    if not timed:
        return None

    across = min(len(timed), 3)
    down = math.ceil(len(timed) / across)

    def draw(figure: Figure, narrow: bool) -> None:
        shape = (len(timed), 1) if narrow else (down, across)
        for number, row in enumerate(timed, start=1):
            _densities(figure.add_subplot(*shape, number), row)

    return _both(draw, 2.3 * down, 2.0 * len(timed), name)


def ratios(rows: Sequence[Latency], threshold: float, name: str) -> Plot:
    """Draw every ratio original / folded with its interval, and the control's next to it."""

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.subplots()
        axes.axvspan(1 / (1 + threshold), 1 + threshold, color=LINE, alpha=0.55, linewidth=0)
        axes.axvline(1, color=MUTED, linewidth=0.9)
        for place, row in enumerate(rows):
            _interval(axes, place - 0.14, row.ratio, FOLDED, "s", bold=True)
            if row.control_ratio:
                _interval(axes, place + 0.2, row.control_ratio, CONTROL, "o", bold=False)
        axes.set_yticks(range(len(rows)), [row.setting for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_title("original’s time / folded model’s time")
        axes.set_xlabel("← slower\N{EM SPACE}·\N{EM SPACE}faster →")
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, 0.95), max(high, 1.05))
        axes.locator_params(axis="x", nbins=4 if narrow else 8)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")

    height = 0.85 + 0.42 * len(rows)
    return _both(draw, height, height, name)


def ranges(layers: Sequence[LayerRange], name: str) -> Plot:
    """Draw the ranges of all channels and the bits lost, before and after, along the depth."""

    def draw(figure: Figure, narrow: bool) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        width = min(3.0, 72 * (_NARROW if narrow else _WIDE) * 0.27 / max(len(layers), 1))
        for offset, key, colour in ((-0.19, "before", ORIGINAL), (0.19, "after", FOLDED)):
            found = [
                (place + offset, spread)
                for place, layer in enumerate(layers, start=1)
                if (spread := getattr(layer, key)) is not None
            ]
            _bars(upper, found, colour, width)
            marker = "o" if key == "before" else "s"
            size = _marker(len(layers))
            places, bits = [place for place, _ in found], [spread.bits for _, spread in found]
            lower.plot(places, bits, marker, color=colour, markersize=size)
        worse = [(i + 0.19, layer.after.bits) for i, layer in enumerate(layers, start=1) if layer.worse]
        lower.plot(*zip(*worse, strict=True) if worse else ([], []), "D", color=BAD, markersize=5)
        upper.set_title("largest weight of each channel")
        lower.set_title("bits lost by one step for the whole tensor")
        most = max(spread.bits for layer in layers for spread in (layer.before, layer.after) if spread)
        lower.set_ylim(0, 1.15 * max(most, 0.5))
        _logarithmic(upper, np.array([value for layer in layers for value in _ends(layer)]))
        _depth(lower, len(layers))

    return _both(draw, 3.7, 3.7, name)


def _both(draw: Callable[[Figure, bool], None], wide: float, narrow: float, name: str) -> Plot:
    """Draw for both widths; `wide` and `narrow` are heights in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtraError("matplotlib", "report", "draw the page's plots") from None
    made = []
    with mpl.rc_context(svg.style()):
        for form, width, height in (("wide", _WIDE, wide), ("narrow", _NARROW, narrow)):
            figure = svg.figure(width, height)
            draw(figure, form == "narrow")
            made.append(svg.text(figure, f"{name}-{form}"))
    return Plot(*made)


def _densities(axes: Any, row: Latency) -> None:
    """One curve for each model, one above the other, over the range of nearly all timings."""
    series = [
        (label, np.asarray(times), colour)
        for label, times, colour in (
            ("original", row.original, ORIGINAL),
            ("folded", row.folded, FOLDED),
            ("control", row.control, CONTROL),
        )
        if len(times)
    ]
    # a few timings that were interrupted would leave no room for the others
    first = min(float(times.min()) for _, times, _ in series)
    last = max(_last(times) for _, times, _ in series)
    margin = max(0.06 * (last - first), 1e-3 * last)
    grid = np.linspace(first - margin, last + margin, _POINTS)
    for place, (_, times, colour) in enumerate(series):
        base, median = len(series) - 1 - place, float(np.median(times))
        curve = base + 0.82 * _density(times, grid)
        axes.fill_between(grid, base, curve, color=colour, alpha=0.28, linewidth=0)
        axes.plot(grid, curve, color=colour, linewidth=1.1)
        axes.plot([median, median], [base, base + 0.82], color=colour, linewidth=1.6)
    heights = [len(series) - 1 - place + 0.3 for place in range(len(series))]
    axes.set_yticks(heights, [label for label, _, _ in series])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_ylim(0, len(series))
    axes.set_xlim(grid[0], grid[-1])
    axes.locator_params(axis="x", nbins=5)
    axes.set_title(f"optimizer {row.setting}")
    axes.set_xlabel("ms per run")


def _last(times: Any) -> float:
    """Where most timings end, on the slow side."""
    low, middle, high, most = np.quantile(times, [0.25, 0.5, 0.75, 0.97])
    return min(float(most), float(middle + 5 * (high - low))) if high > low else float(most)


def _density(times: Any, grid: Any) -> Any:
    """A kernel density by Silverman's rule on a robust spread, scaled to a peak of 1."""
    low, high = np.quantile(times, [0.25, 0.75])
    spread = min(float(np.std(times)), float(high - low) / 1.349) or float(np.std(times))
    width = 0.9 * spread * len(times) ** -0.2
    width = max(width, (grid[-1] - grid[0]) / _POINTS)  # also for equal timings
    distance = (grid[:, None] - np.asarray(times)[None, :]) / width
    curve = np.exp(-0.5 * distance**2).sum(axis=1)
    return curve / max(float(curve.max()), 1e-300)


def _interval(axes: Any, place: float, ratio: Ratio, colour: str, marker: str, *, bold: bool) -> None:
    axes.plot([ratio.low, ratio.high], [place, place], color=colour, linewidth=2.4 if bold else 1.3)
    axes.plot([ratio.value], [place], marker, color=colour, markersize=6 if bold else 4)


def _bars(axes: Any, spreads: Sequence[tuple[float, Spread]], colour: str, width: float) -> None:
    """A bar from the smallest to the largest channel of every layer, its median a dot."""
    drawn = [(place, spread.live) for place, spread in spreads if len(spread.live)]
    if not drawn:
        return
    places = [place for place, _ in drawn]
    lows, highs = [live[0] for _, live in drawn], [live[-1] for _, live in drawn]
    axes.vlines(places, lows, highs, color=colour, linewidth=width, alpha=0.5)
    middles = [float(np.median(live)) for _, live in drawn]
    axes.plot(places, middles, "o", color=colour, markersize=max(1.5, min(3.5, width + 1)))


def _ends(layer: LayerRange) -> list[float]:
    spreads = [spread for spread in (layer.before, layer.after) if spread is not None and len(spread.live)]
    return [spread.live[end] for spread in spreads for end in (0, -1)]


def _positive(values: Sequence[float | None]) -> Any:
    """The values that a logarithmic axis can show, with gaps for the others."""
    shown = [value if value is not None and 0 < value < math.inf else math.nan for value in values]
    return np.array(shown, np.float64)


def _marker(count: int) -> float:
    return 3.6 if count <= 40 else 2.4 if count <= 120 else 1.4


def _depth(axes: Any, count: int) -> None:
    """The axis along the layers, which are numbered from 1."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0.4, count + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("layer, from input to output")


def _logarithmic(axes: Any, shown: Any) -> None:
    """A logarithmic axis with about seven powers of ten at most; linear if there is nothing to show."""
    from matplotlib.ticker import FixedLocator, FuncFormatter

    values = shown[np.isfinite(shown) & (shown > 0)]
    if not values.size:
        axes.set_yticks([])
        return
    axes.set_yscale("log")
    low, high = math.floor(math.log10(values.min())), math.ceil(math.log10(values.max()))
    high = max(high, low + 1)
    axes.set_ylim(10.0**low * 0.8, 10.0**high * 1.25)
    step = max(1, math.ceil((high - low) / 6))
    axes.yaxis.set_major_locator(FixedLocator([10.0**power for power in range(low, high + 1, step)]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axes.minorticks_off()


def _power(value: float) -> str:
    exponent = round(math.log10(value))
    return {0: "1", 1: "10", -1: "0.1"}.get(exponent, "10" + str(exponent).translate(_SUPERSCRIPTS))
