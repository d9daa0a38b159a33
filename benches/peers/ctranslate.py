"""CTranslate2 in int8 on the same weights. It takes no embeddings, so a soft prompt of m rows is m more tokens: the same
work, other answers; nothing of it is compared but speed."""

import tempfile
import time
from pathlib import Path

import ctranslate2
from ctranslate2.converters.transformers import T5Loader

from peer import load_model, load_tokenizer
from tasks import Measured, Request

# An ordinary piece, to stand in for a row of a soft prompt.
FILLER = 100


class CTranslate:
    def __init__(self, threads: int, model: Path, prompt_length: int):
        self.tokenizer = load_tokenizer(model)
        self.prompt_length = prompt_length
        with tempfile.TemporaryDirectory() as folder:
            convert(model, Path(folder) / "model")
            self.translator = ctranslate2.Translator(
                str(Path(folder) / "model"), compute_type="int8", inter_threads=1, intra_threads=threads
            )

    def measure(self, batches: list[list[Request]]) -> Measured:
        started = time.perf_counter()
        tokens = sum(map(self.run, batches))
        took = time.perf_counter() - started
        return Measured(sum(map(len, batches)) / took, tokens / took)

    def run(self, requests: list[Request]) -> int:
        """Tokens generated. The whole batch is one, whatever the adapters, as if there were one."""
        filler = [self.tokenizer.id_to_token(FILLER)] * self.prompt_length
        found = self.translator.translate_batch(
            [filler + self.tokenizer.encode(request.prompt).tokens for request in requests],
            beam_size=1,
            min_decoding_length=max(request.min_tokens for request in requests),
            max_decoding_length=max(request.max_tokens for request in requests),
        )
        answers = [result.hypotheses[0] for result in found]
        return sum(min(len(answer), request.max_tokens) for answer, request in zip(answers, requests, strict=True))


def convert(model: Path, to: Path) -> None:
    """By CTranslate2's own converter, less its reading of files: these weights have a form of their own."""
    loaded, tokenizer = load_model(model), load_tokenizer(model)
    spec = T5Loader().get_model_spec(loaded)
    size = tokenizer.get_vocab_size()
    tokens = [tokenizer.id_to_token(at) for at in range(size)]
    tokens += [f"<unused_{at}>" for at in range(size, loaded.config.vocab_size)]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.bos_token = spec.config.decoder_start_token = "<pad>"
    spec.config.eos_token, spec.config.unk_token = "</s>", "<unk>"
    spec.config.add_source_eos = spec.config.add_source_bos = False
    spec.validate()
    spec.optimize(quantization="int8")
    to.mkdir()
    spec.save(str(to))
