"""The tasks: where their examples lie, how they are cut into train, dev and test, their templates and labels.

An adapter's card carries the same template and labels; `render` and the server fill a template alike.
"""

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

SEED = 0


@dataclass(frozen=True)
class Example:
    """The template's fields, and the text that the model should answer."""

    fields: dict[str, str]
    target: str


@dataclass(frozen=True)
class Task:
    """`labels` maps what the model writes to the label shown; `instruction` is the prompt of the zero-shot baseline."""

    description: str
    dataset: str
    template: str
    labels: dict[str, str]
    instruction: str
    init_text: str
    max_length: int
    over_length: str
    split_note: str
    load: Callable[[Path], dict[str, list[Example]]]

    def render(self, example: Example) -> str:
        return self.template.format(**example.fields)

    def instruct(self, example: Example) -> str:
        return self.instruction.format(**example.fields)


def _lines(path: Path) -> list[str]:
    """One-byte encodings occur in these old files; Latin-1 reads any of them."""
    data = path.read_bytes()
    try:
        return data.decode().split("\n")[:-1]
    except UnicodeDecodeError:
        return data.decode("latin-1").split("\n")[:-1]


def _numbered(path: Path, field: str, words: list[str]) -> list[Example]:
    """Lines of `LABEL TEXT`."""
    return [Example({field: line[2:].strip()}, words[int(line[0])]) for line in _lines(path)]


def _shuffled(examples: list[Example]) -> list[Example]:
    random.Random(SEED).shuffle(examples)
    return examples


def _sst2(data: Path) -> dict[str, list[Example]]:
    read = lambda split: _numbered(data / f"sst2/stsa.binary.{split}", "sentence", ["negative", "positive"])
    return {split: read(split) for split in ("train", "dev", "test")}


def _subj(data: Path) -> dict[str, list[Example]]:
    examples = _shuffled(_numbered(data / "subj/subj.all", "sentence", ["opinion", "fact"]))
    return {"train": examples[:8000], "dev": examples[8000:9000], "test": examples[9000:]}


def _trec(data: Path) -> dict[str, list[Example]]:
    words = ["description", "entity", "short", "human", "location", "number"]
    examples = _shuffled(_numbered(data / "trec/TREC.train.all", "question", words))
    return {
        "train": examples[:-452],
        "dev": examples[-452:],
        "test": _numbered(data / "trec/TREC.test.all", "question", words),
    }


def _boolq(data: Path) -> dict[str, list[Example]]:
    examples = []
    for line in _lines(data / "boolq/boolq_dev.jsonl"):
        row = json.loads(line)
        passage, question = row["query"].removeprefix("Passage: ").rsplit("\nQuestion: ", 1)
        examples.append(Example({"question": question.removesuffix("?"), "passage": passage}, row["choices"][row["gold"]]))
    examples = _shuffled(examples)
    return {"train": examples[:2270], "dev": examples[2270:2570], "test": examples[2570:]}


def _rte(data: Path) -> dict[str, list[Example]]:
    def read(name: str) -> list[Example]:
        rows = csv.DictReader(_lines(data / "rte" / name), delimiter="\t", quoting=csv.QUOTE_NONE)
        words = {"entailment": "yes", "not_entailment": "no"}
        return [Example({"sentence1": r["sentence1"], "sentence2": r["sentence2"]}, words[r["label"]]) for r in rows]

    train = _shuffled(read("train.tsv"))
    return {"train": train[:-250], "dev": train[-250:], "test": read("dev.tsv")}


TASKS = {
    "sst2": Task(
        description="Is a sentence of a film review negative or positive? (SST-2)",
        dataset="SST-2",
        template="sentence: {sentence}",
        labels={"negative": "negative", "positive": "positive"},
        instruction="Is this movie review sentence negative or positive? {sentence}",
        init_text="Is this movie review sentence negative or positive?",
        max_length=128,
        over_length="error",
        split_note="the data set's own train, dev and test files, sentences only",
        load=_sst2,
    ),
    "subj": Task(
        description="Does a sentence about a film tell an opinion or a fact of its plot? (Subj)",
        dataset="Subj",
        template="sentence: {sentence}",
        labels={"opinion": "subjective", "fact": "objective"},
        instruction="Is this sentence an opinion or a fact? {sentence}",
        init_text="Is this sentence an opinion or a fact?",
        max_length=128,
        over_length="error",
        split_note="shuffled with seed 0: 8000 train, 1000 dev, 1000 test",
        load=_subj,
    ),
    "trec": Task(
        description="What kind of answer does a question ask for? (TREC, six coarse classes)",
        dataset="TREC",
        template="question: {question}",
        labels={
            "description": "description",
            "entity": "entity",
            "short": "abbreviation",
            "human": "human",
            "location": "location",
            "number": "number",
        },
        instruction="Does this question ask for a description, entity, short, human, location or number? {question}",
        init_text="Does this question ask for a description, an entity, a human, a location or a number?",
        max_length=128,
        over_length="error",
        split_note="the data set's own test file; of its train file, shuffled with seed 0, the last 452 are dev",
        load=_trec,
    ),
    "boolq": Task(
        description="Answers a yes/no question from a passage (BoolQ). Weak: see the results and adapters/README.md",
        dataset="BoolQ",
        template="question: {question} passage: {passage}",
        labels={"no": "false", "yes": "true"},
        instruction="{passage}\n\nQuestion: {question}? Answer yes or no.",
        init_text="Read the passage and answer the question with yes or no.",
        max_length=256,
        over_length="right",
        split_note="BoolQ's dev split only, shuffled with seed 0: 2270 train, 300 dev, 700 test",
        load=_boolq,
    ),
    "rte": Task(
        description="Does the second sentence follow from the first? (RTE)",
        dataset="RTE",
        template="sentence1: {sentence1} sentence2: {sentence2}",
        labels={"yes": "entailment", "no": "not_entailment"},
        instruction="{sentence1} Does this mean that \"{sentence2}\" is true? Answer yes or no.",
        init_text="Does the first sentence mean that the second is true? Answer yes or no.",
        max_length=256,
        over_length="right",
        split_note="GLUE's train file less 250 for dev (seed 0); GLUE's dev file is the test",
        load=_rte,
    ),
}
