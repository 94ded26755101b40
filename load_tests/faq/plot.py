"""Calibration as an SVG, by hand: predicted against observed shares of wrong answers, both on a square-root scale so
that the small shares, which matter, are wide. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

SIZE, MARGIN = 420, 60
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#8250df")
TICKS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


class Curve(NamedTuple):
    """Points are (predicted share, observed share, outcomes)."""

    name: str
    points: Sequence[tuple[float, float, int]]


def calibration_svg(curves: Sequence[Curve]) -> str:
    """One square; the dashed diagonal is a score that says what happens."""
    edge = SIZE + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {edge + 20} {edge + 40 + 18 * len(curves)}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{edge + 20}" height="{edge + 40 + 18 * len(curves)}" fill="white"/>',
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#888" stroke-dasharray="4"/>',
    ]
    for tick in TICKS:
        parts += [
            f'<line x1="{_x(tick)}" y1="{_y(0)}" x2="{_x(tick)}" y2="{_y(1)}" stroke="#eee"/>',
            f'<line x1="{_x(0)}" y1="{_y(tick)}" x2="{_x(1)}" y2="{_y(tick)}" stroke="#eee"/>',
            f'<text x="{_x(tick)}" y="{_y(0) + 14}" text-anchor="middle">{tick:g}</text>',
            f'<text x="{_x(0) - 6}" y="{_y(tick) + 4}" text-anchor="end">{tick:g}</text>',
        ]
    parts += [
        f'<text x="{_x(0.25)}" y="{_y(0) + 32}" text-anchor="middle">predicted share of wrong answers</text>',
        f'<text x="14" y="{_y(0.25)}" text-anchor="middle" transform="rotate(-90 14 {_y(0.25)})">'
        "observed share of wrong answers</text>",
    ]
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{_x(predicted):.1f},{_y(observed):.1f}" for predicted, observed, _ in curve.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}"/>')
        for predicted, observed, num in curve.points:
            told = f"{num} outcomes: predicted {predicted:.4f}, observed {observed:.4f}"
            radius = 2.5 + min(5.0, num**0.5 / 8)
            parts.append(
                f'<circle cx="{_x(predicted):.1f}" cy="{_y(observed):.1f}" r="{radius:.1f}" fill="{colour}" '
                f'fill-opacity="0.6"><title>{told}</title></circle>'
            )
        parts.append(
            f'<text x="{_x(0)}" y="{edge + 30 + 18 * number}" fill="{colour}">{escape(curve.name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _x(share: float) -> float:
    return MARGIN + SIZE * share**0.5


def _y(share: float) -> float:
    return 10 + SIZE * (1 - share**0.5)
