"""From the figures to tables and the plot."""

from statistics import mean

from cost import AT_ONCE, METHODS, NEW_TOKENS, PROMPT_TOKENS
from plot import svg

NAMES = [method.name for method in METHODS]
PT = NAMES[0]
# Key, what it is, digits.
TRAINING = [("steps", "s a step", 2), ("mib", "peak MiB", 0)]
SERVING = [
    ("latency", "alone, ms", 1),
    ("rate", f"{AT_ONCE} at once, requests/s", 1),
    ("latency (cache)", "alone, ms, prefix cache on", 1),
    ("rate (cache)", f"{AT_ONCE} at once, requests/s, prefix cache on", 1),
]
PANELS = [
    ("steps", "Training: seconds a step, of PT's (less is better)"),
    ("mib", "Training: peak memory, of PT's (less is better)"),
    ("latency", "Serving: milliseconds a request alone, of PT's (less is better)"),
    ("rate", f"Serving: requests a second, {AT_ONCE} at once, of PT's (more is better)"),
]


def page(results: dict) -> str:
    """docs/dept-vs-pt.md but for what a person says about it."""
    parts = []
    if cost := results.get("cost"):
        parts += ["### Training\n", table(cost, TRAINING), shapes(cost)]
        parts += ["### Serving\n", f"{PROMPT_TOKENS} prompt tokens, {NEW_TOKENS} new.\n", table(cost, SERVING)]
    if quality := results.get("quality"):
        parts += ["### Quality\n", accuracies(quality)]
    parts += [f"{line}\n" for line in results["machine"]]
    return "\n".join(parts)


def table(cost: dict, rows: list[tuple[str, str, int]]) -> str:
    lines = [f"| model | | {' | '.join(NAMES)} | {' | '.join(f'{name[5:]} / PT' for name in NAMES[1:])} |"]
    lines.append("| --- " * (2 * len(NAMES) + 1) + "|")
    for model, found in cost.items():
        for key, what, digits in rows:
            if key in found[PT]:
                values = [found[name][key] for name in NAMES]
                shown = " | ".join(f"{value:.{digits}f}" for value in values)
                ratios = " | ".join(f"{value / values[0]:.2f}x" for value in values[1:])
                lines.append(f"| {model} | {what} | {shown} | {ratios} |")
    return "\n".join(lines) + "\n"


def shapes(cost: dict) -> str:
    """What is equal: parameters; and what a step held."""
    lines = []
    for model, found in cost.items():
        sizes = ", ".join(f"{name} {found[name]['parameters']} (r = {found[name]['rank']})" for name in NAMES)
        lines.append(f"{model}: {found['batch']} examples of {found[PT]['tokens']:.0f} tokens a step; parameters {sizes}.")
    return "  \n".join(lines) + "\n"


def accuracies(quality: dict) -> str:
    lines = [f"| task | {' | '.join(NAMES)} |", "| --- " * (len(NAMES) + 1) + "|"]
    for task, found in quality.items():
        cells = [f"{mean(found[name]):.3f} ({min(found[name]):.3f} to {max(found[name]):.3f})" for name in NAMES]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(results: dict) -> str:
    cost, panels = results.get("cost", {}), []
    for key, title in PANELS if cost else []:
        ratios = {m: {name: found[name][key] / found[PT][key] for name in NAMES} for m, found in cost.items()}
        panels.append((title, ratios))
    return svg(panels, results.get("quality", {}))
