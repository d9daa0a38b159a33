"""The figures as one SVG: ratios to PT as bars, accuracies as dots. Nothing in it asks for anything outside of it."""

from dataclasses import dataclass, field

COLOURS = {"PT 100": "#8a8f98", "DePT 60": "#8db4e2", "DePT 40": "#4a86c5", "DePT 20": "#1f4e86"}
WIDTH, PANEL, GAP, MARGIN, PLOT = 860, 210, 34, 46, 120


@dataclass
class Drawing:
    lines: list[str] = field(default_factory=list)

    def rect(self, x: float, y: float, w: float, h: float, fill: str, title: str) -> None:
        self.lines.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{fill}"><title>{title}</title></rect>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, more: str = 'stroke="#c9cdd3"') -> None:
        self.lines.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {more}/>')

    def dot(self, x: float, y: float, fill: str, title: str) -> None:
        self.lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}"><title>{title}</title></circle>')

    def text(self, x: float, y: float, words: str, more: str = "") -> None:
        self.lines.append(f'<text x="{x:.1f}" y="{y:.1f}" {more}>{words}</text>')


def svg(panels: list[tuple[str, dict[str, dict[str, float]]]], quality: dict[str, dict[str, list[float]]]) -> str:
    """`panels` are titles with ratios to PT by group and method; `quality` has accuracies by task and method."""
    drawing, count = Drawing(), len(panels) + bool(quality)
    legend(drawing)
    for at, (title, groups) in enumerate(panels):
        bars(drawing, 40 + at * (PANEL - GAP), title, groups)
    if quality:
        dots(drawing, 40 + len(panels) * (PANEL - GAP), quality)
    height = 40 + count * (PANEL - GAP) + 10
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#2b2f36">\n<title>DePT beside prompt tuning</title>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
    )
    return head + "\n".join(drawing.lines) + "\n</svg>\n"


def legend(drawing: Drawing) -> None:
    for at, (name, colour) in enumerate(COLOURS.items()):
        x = MARGIN + at * 100
        drawing.rect(x, 14, 12, 12, colour, name)
        drawing.text(x + 18, 24, name)


def bars(drawing: Drawing, top: float, title: str, groups: dict[str, dict[str, float]]) -> None:
    """A group a model, a bar a method; the line is PT."""
    drawing.text(MARGIN, top + 6, title, 'font-weight="600"')
    floor, most = top + 24 + PLOT, max(1.0, *(value for one in groups.values() for value in one.values()))
    ticks = [tick for tick in (0, 0.5, 1, 2, 3, 4, 5) if tick <= most]
    for tick in ticks:
        y = floor - PLOT * tick / most
        drawing.line(MARGIN, y, WIDTH - 10, y, 'stroke="#8a8f98" stroke-dasharray="4 3"' if tick == 1 else 'stroke="#e4e7eb"')
        drawing.text(MARGIN - 6, y + 4, f"{tick:g}x", 'text-anchor="end"')
    wide = (WIDTH - MARGIN - 10) / len(groups)
    for at, (group, ratios) in enumerate(groups.items()):
        bar = wide * 0.8 / len(ratios)
        for place, (name, value) in enumerate(ratios.items()):
            x, tall = MARGIN + at * wide + wide * 0.1 + place * bar, PLOT * value / most
            drawing.rect(x, floor - tall, bar - 2, tall, COLOURS[name], f"{group}, {name}: {value:.2f}x")
            drawing.text(x + bar / 2 - 1, floor - tall - 3, f"{value:.2f}", 'text-anchor="middle" font-size="10"')
        drawing.text(MARGIN + (at + 0.5) * wide, floor + 15, group, 'text-anchor="middle"')


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
