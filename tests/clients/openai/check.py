"""What a user of `openai` and `langchain-openai` does, against a running server (see ../openai.sh)."""

import os

import openai
from langchain_openai import ChatOpenAI
from openai import OpenAI

URL, KEY, SLOW = os.environ["DEPT_URL"], os.environ["DEPT_MAIN_KEY"], os.environ["DEPT_SLOW_KEY"]
MODEL = "flan-t5-small-en"
PRAISE = "sentence: a warm , funny and moving film ."
ASKED = "Answer in one sentence: why do people watch films?"
QUESTION = [{"role": "user", "content": ASKED}]

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0)


def ok(what: str, holds: bool) -> None:
    assert holds, what
    print("ok  python:", what)


def raises(what: str, kind: type, call, **found) -> None:
    try:
        call()
    except kind as error:
        ok(what, type(error) is kind and all(getattr(error, name) == value for name, value in found.items()))
        return
    raise AssertionError(f"{what}: nothing was raised")


def models() -> None:
    ids = [model.id for model in client.models.list()]
    ok("models are listed", ids[0] == MODEL and {"sst2", "boolq", "subj", "trec"} <= set(ids))
    ok("a model is retrieved", client.models.retrieve("sst2").id == "sst2")
    raises("an unknown model is not found", openai.NotFoundError, lambda: client.models.retrieve("gpt-4o"), status_code=404)


def completions() -> None:
    one = client.completions.create(model="sst2", prompt=PRAISE, temperature=0)
    ok("a completion", one.choices[0].text == "positive" and one.choices[0].finish_reason == "stop")
    ok("its id and usage", one.id.startswith("cmpl-") and one.usage.total_tokens == one.usage.prompt_tokens + 1)
    ok("its fingerprint", one.system_fingerprint.startswith("fp_"))
    many = client.completions.create(model="sst2", prompt=[PRAISE, "sentence: a dull mess ."], n=2, temperature=0, logprobs=2)
    ok("prompts and choices", [c.text for c in many.choices] == ["positive"] * 2 + ["negative"] * 2)
    ok("their numbers", [c.index for c in many.choices] == [0, 1, 2, 3])
    tops = many.choices[0].logprobs.top_logprobs[0]
    ok("log-probabilities", max(tops, key=tops.get).strip() == "positive" and many.choices[0].logprobs.token_logprobs[0] < 0)
    draw = lambda **more: client.completions.create(model=MODEL, prompt="Tell a story.", max_tokens=12, **more).choices[0].text  # noqa: E731
    ok("a seed repeats", draw(seed=7) == draw(seed=7) != draw(seed=8))
    whole = client.completions.create(model=MODEL, prompt=ASKED, temperature=0, max_tokens=20).choices[0].text
    stop = whole[len(whole) // 2 :][:3]
    cut = client.completions.create(model=MODEL, prompt=ASKED, temperature=0, max_tokens=20, stop=stop).choices[0]
    ok("a stop string", cut.text == whole[: whole.index(stop)] and cut.finish_reason == "stop")
    first = client.completions.create(model="sst2", prompt=PRAISE, temperature=0, extra_body={"top_k": 1})
    ok("fields that are not OpenAI's", first.choices[0].text == "positive")


def chat() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_completion_tokens=20)
    text = answer.choices[0].message.content
    plain = client.completions.create(model=MODEL, prompt=ASKED, temperature=0, max_tokens=20).choices[0].text
    ok("a chat", text == plain != "" and answer.choices[0].message.role == "assistant" and answer.id.startswith("chatcmpl-"))
    ok("with usage", answer.usage.prompt_tokens_details.cached_tokens >= 0 and answer.usage.completion_tokens > 2)
    told = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=4, logprobs=True, top_logprobs=3
    )
    tokens = told.choices[0].logprobs.content
    ok("with log-probabilities", len(tokens) == 4 and all(len(token.top_logprobs) == 3 for token in tokens))
    ok("of bytes", bytes(b for token in tokens for b in token.bytes).decode().strip() == told.choices[0].message.content)
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=0, max_tokens=20, stream=True, stream_options={"include_usage": True}
        )
    )
    ok("a stream begins with the role", chunks[0].choices[0].delta.role == "assistant")
    ok("a stream says the same", "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == text)
    ok("a stream ends with its reason", chunks[-2].choices[0].finish_reason == answer.choices[0].finish_reason)
    ok("and then the usage", not chunks[-1].choices and chunks[-1].usage.completion_tokens == answer.usage.completion_tokens)
    several = client.chat.completions.create(model=MODEL, messages=QUESTION, n=3, max_tokens=8, seed=1)
    ok("several choices", [choice.index for choice in several.choices] == [0, 1, 2])
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, max_tokens=2, store=False, metadata={"a": "b"})
    ok("what is ignored is named", raw.headers["dept-ignored"] == "metadata, store")


def failures() -> None:
    ask = client.chat.completions.create
    raises("bad values", openai.BadRequestError, lambda: ask(model=MODEL, messages=QUESTION, temperature=-1), param="temperature")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    raises("tools", openai.BadRequestError, lambda: ask(model=MODEL, messages=QUESTION, tools=tools), param="tools")
    raises("an unknown adapter", openai.NotFoundError, lambda: ask(model="nope", messages=QUESTION), param="model")
    raises(
        "a prompt that is too long", openai.UnprocessableEntityError,
        lambda: client.completions.create(model="sst2", prompt="word " * 2000), code="input_too_long",
    )
    stranger = OpenAI(base_url=URL, api_key="sk-wrong", max_retries=0)
    raises("a wrong key", openai.AuthenticationError, stranger.models.list, code="unauthorized")
    slow = OpenAI(base_url=URL, api_key=SLOW, max_retries=0)
    slow.models.list()
    raises("too many requests", openai.RateLimitError, slow.models.list, code="quota_exceeded")


def langchain() -> None:
    model = ChatOpenAI(model=MODEL, base_url=URL, api_key=KEY, temperature=0, max_tokens=20, max_retries=0)
    said = model.invoke(ASKED)
    plain = client.completions.create(model=MODEL, prompt=ASKED, temperature=0, max_tokens=20).choices[0].text
    ok("langchain invokes", said.content == plain and said.usage_metadata["output_tokens"] > 2)
    pieces = list(model.stream(ASKED))
    ok("langchain streams", len(pieces) > 2 and "".join(piece.content for piece in pieces) == said.content)
    both = model.batch(["Is water wet?", "Is fire cold?"])
    ok("langchain sends a batch", len(both) == 2)


def template(url: str) -> None:
    smollm2 = OpenAI(base_url=url, api_key="any", max_retries=0)
    name = smollm2.models.list().data[0].id
    messages = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "What is the capital of France?"}]
    answer = smollm2.chat.completions.create(model=name, messages=messages, temperature=0, max_tokens=16)
    ok("a chat by the model's template", "Paris" in answer.choices[0].message.content and answer.choices[0].finish_reason == "stop")
    written = (
        "<|im_start|>system\nAnswer in one word.<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    plain = smollm2.completions.create(model=name, prompt=written, temperature=0, max_tokens=16)
    ok("is a completion of its text", plain.choices[0].text == answer.choices[0].message.content)
    ok("token for token", plain.usage.prompt_tokens == answer.usage.prompt_tokens)
    scored = smollm2.completions.create(model=name, prompt="The capital of France is Paris", echo=True, logprobs=1, max_tokens=0)
    logprobs = scored.choices[0].logprobs
    ok("a prompt is scored", logprobs.token_logprobs[0] is None and logprobs.tokens[-1] == " Paris" and logprobs.token_logprobs[-1] > -2)
    ok("and repeated", scored.choices[0].text == "".join(logprobs.tokens) == "The capital of France is Paris")


models()
completions()
chat()
failures()
langchain()
if "DEPT_CHAT_URL" in os.environ:
    template(os.environ["DEPT_CHAT_URL"])
