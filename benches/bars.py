"""Ratios as bars in an SVG that asks for nothing outside of it: a panel a subject, a group of bars a case, a bar a contender."""

from dataclasses import dataclass, field

WIDTH, PANEL, GAP, MARGIN, PLOT = 860, 210, 34, 46, 120


@dataclass
class Drawing:
    """What is drawn; `colours` by contender."""

    colours: dict[str, str]
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

    def legend(self) -> None:
        for at, (name, colour) in enumerate(self.colours.items()):
            x = MARGIN + at * 100
            self.rect(x, 14, 12, 12, colour, name)
            self.text(x + 18, 24, name)

    def bars(self, top: float, title: str, groups: dict[str, dict[str, float]]) -> None:
        """A group a case, a bar a contender; the dashed line is 1."""
        self.text(MARGIN, top + 6, title, 'font-weight="600"')
        floor, most = top + 24 + PLOT, max(1.0, *(value for one in groups.values() for value in one.values()))
        for tick in [tick for tick in (0, 0.5, 1, 2, 3, 4, 5, 6, 8, 10) if tick <= most]:
            y = floor - PLOT * tick / most
            self.line(MARGIN, y, WIDTH - 10, y, 'stroke="#8a8f98" stroke-dasharray="4 3"' if tick == 1 else 'stroke="#e4e7eb"')
            if tick != 0.5 or most < 6:
                self.text(MARGIN - 6, y + 4, f"{tick:g}x", 'text-anchor="end"')
        wide = (WIDTH - MARGIN - 10) / len(groups)
        for at, (group, ratios) in enumerate(groups.items()):
            bar = wide * 0.8 / len(ratios)
            for place, (name, value) in enumerate(ratios.items()):
                x, tall = MARGIN + at * wide + wide * 0.1 + place * bar, PLOT * value / most
                self.rect(x, floor - tall, bar - 2, tall, self.colours[name], f"{group}, {name}: {value:.2f}x")
                self.text(x + bar / 2 - 1, floor - tall - 3, f"{value:.2f}", 'text-anchor="middle" font-size="10"')
            self.text(MARGIN + (at + 0.5) * wide, floor + 15, group, 'text-anchor="middle"')

    def svg(self, panels: int, title: str) -> str:
        """All of it, on a sheet of so many panels."""
        height = 40 + panels * (PANEL - GAP) + 10
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="12" fill="#2b2f36">\n<title>{title}</title>\n'
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        )
        return head + "\n".join(self.lines) + "\n</svg>\n"


def top(panel: int) -> float:
    """Where a panel begins."""
    return 40 + panel * (PANEL - GAP)
