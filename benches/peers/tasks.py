"""What every engine is asked, and what is measured of it."""

import random
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models/flan-t5-small-en"
SENTENCES = Path(__file__).with_name("sentences.txt")


@dataclass(frozen=True)
class Task:
    name: str
    # Taken in turn by the requests.
    adapters: tuple[str, ...]
    min_tokens: int
    max_tokens: int
    # Exactly so many tokens, drawn for each request from min_tokens to max_tokens.
    drawn: bool = False


@dataclass(frozen=True)
class Request:
    adapter: str
    prompt: str
    min_tokens: int
    max_tokens: int


@dataclass
class Measured:
    """Rates over a run; time to first token in seconds, the median, where it is known."""

    requests_per_s: float
    tokens_per_s: float
    first_token: float | None = None


def sentences() -> list[str]:
    return SENTENCES.read_text().splitlines()


def requests(task: Task, count: int, seed: int = 0) -> list[Request]:
    """Sentences and adapters in turn."""
    rng, prompts, found = random.Random(seed), sentences(), []
    for at in range(count):
        least, most = task.min_tokens, task.max_tokens
        if task.drawn:
            least = most = rng.randint(least, most)
        found.append(Request(task.adapters[at % len(task.adapters)], prompts[at % len(prompts)], least, most))
    return found
