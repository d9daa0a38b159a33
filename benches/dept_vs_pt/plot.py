"""The figures as one SVG: ratios to PT as bars, accuracies as dots."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bars import MARGIN, PLOT, WIDTH, Drawing, top

COLOURS = {"PT 100": "#8a8f98", "DePT 60": "#8db4e2", "DePT 40": "#4a86c5", "DePT 20": "#1f4e86"}


def svg(panels: list[tuple[str, dict[str, dict[str, float]]]], quality: dict[str, dict[str, list[float]]]) -> str:
    """`panels` are titles with ratios to PT by group and method; `quality` has accuracies by task and method."""
    drawing = Drawing(COLOURS)
    drawing.legend()
    for at, (title, groups) in enumerate(panels):
        drawing.bars(top(at), title, groups)
    if quality:
        dots(drawing, top(len(panels)), quality)
    return drawing.svg(len(panels) + bool(quality), "DePT beside prompt tuning")


def dots(drawing: Drawing, top: float, quality: dict[str, dict[str, list[float]]]) -> None:
    """A dot a seed, a stroke at their mean."""
    drawing.text(MARGIN, top + 6, "Accuracy, a dot a seed", 'font-weight="600"')
    every = [value for task in quality.values() for scores in task.values() for value in scores]
    least, floor = min(int(min(every) * 10) / 10, 0.9), top + 24 + PLOT
    place = lambda value: floor - PLOT * (value - least) / (1 - least)
    for step in range(round((1 - least) * 10) + 1):
        y = place(least + step / 10)
        drawing.line(MARGIN, y, WIDTH - 10, y, 'stroke="#e4e7eb"')
        drawing.text(MARGIN - 6, y + 4, f"{least + step / 10:.1f}", 'text-anchor="end"')
    wide = (WIDTH - MARGIN - 10) / len(quality)
    for at, (task, methods) in enumerate(quality.items()):
        column = wide * 0.8 / len(methods)
        for index, (name, scores) in enumerate(methods.items()):
            x = MARGIN + at * wide + wide * 0.1 + (index + 0.5) * column
            mean = place(sum(scores) / len(scores))
            drawing.line(x - 14, mean, x + 14, mean, f'stroke="{COLOURS[name]}" stroke-width="2"')
            for seed, score in enumerate(scores):
                drawing.dot(x + (seed - (len(scores) - 1) / 2) * 8, place(score), COLOURS[name], f"{name}: {score:.3f}")
        drawing.text(MARGIN + (at + 0.5) * wide, floor + 15, task, 'text-anchor="middle"')
