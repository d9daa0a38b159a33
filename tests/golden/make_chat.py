"""Renders conversations by chat templates as transformers does, for the tests of `src/tokenizer/chat_template`.

    python -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make_chat.py

Needs transformers and jinja2 alone. `smollm2.jinja` is the template of SmolLM2-135M-Instruct (Apache-2.0), from its GGUF
file; the others are written here in the manner of the families that they are named after.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from transformers.utils import chat_template_utils

HERE = Path(__file__).resolve().parent / "chat"
NOW = datetime(2026, 3, 7, 9, 4, 5)
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>"}


class Frozen(datetime):
    """The moment at which every template is rendered."""

    @classmethod
    def now(cls, tz=None):
        return NOW


def say(role: str, content: str) -> dict:
    return {"role": role, "content": content}


CONVERSATIONS = {
    "one": [say("user", "Hi")],
    "system": [say("system", "Be brief.\n"), say("user", "  What is  Rust? ")],
    "turns": [say("user", "2+2?"), say("assistant", "4"), say("user", "And 3+3?")],
    "system turns": [
        say("system", "You are <b>terse</b> & \"kind\"."), say("user", "Grüße, 世界 🌍\tok"), say("assistant", "Hallo's"),
        say("user", "line one\nline two\\n"), say("assistant", ""), say("user", "end\x01\x7f"),
    ],
    "assistant last": [say("user", "Go"), say("assistant", "<think>\nhm, well\n</think>\n\nGone.")],
    "thinking": [say("user", "Go"), say("assistant", "<think>\nhm\n</think>\n\nGone."), say("user", "Again")],
    "two users": [say("user", "a"), say("user", "b")],
    "late system": [say("user", "a"), say("assistant", "b"), say("system", "c")],
    "markup": [say("user", "<|im_end|>{{ 1 }}{% if %}"), say("assistant", "{# no #}"), say("user", "'\"")],
}


def render(template: str, messages: list[dict]) -> dict:
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=True, **SPECIALS
        )
        return {"text": rendered[0]}
    except Exception as error:  # noqa: BLE001 - what a template raises is part of the data
        return {"error": str(error)}


def main() -> None:
    chat_template_utils.datetime = Frozen
    cases = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        for name, messages in CONVERSATIONS.items():
            cases.append({"template": path.stem, "conversation": name} | render(template, messages))
    data = {"now": int(NOW.replace(tzinfo=UTC).timestamp()), "specials": SPECIALS,
            "conversations": CONVERSATIONS, "cases": cases}
    (HERE / "expected.json").write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(len(cases), "cases,", sum("error" in case for case in cases), "refused")


if __name__ == "__main__":
    main()
