"""Makes the golden data of this folder: tiny T5 and decoder-only models, adapters, and what transformers computes with them.

    python -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make.py

Takes about two minutes on one core. Every check inside is an assertion: no file is right unless the script ends.
`--out DIR` writes elsewhere, `--check` writes to a temporary folder and compares the bytes with this one.
"""

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

sys.dont_write_bytecode = True
os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
HERE = Path(__file__).resolve().parent
# With a clear greedy choice at every step under the 8-bit weights too.
Q8_CASES = ("none-short", "none-long", "none-text", "dept-medium", "dept-long", "lowrank-long", "pt-medium")
DECODER_Q8_CASES = ("dept-medium", "none-short", "none-long", "lowrank-long", "pt-medium")  # the first with all its steps
GEMMA_GGUF_CASES = ("dept-long", "none-short", "none-long", "lowrank-medium", "pt-long")
DECODERS = ("gpt2", "llama", "llama3", "qwen2", "qwen3", "gemma2", "gemma3")
OWN = ("t5-v1_0", "t5-v1_0-sharded", "t5-v1_1", "adapters", "adept", "expected", *DECODERS)  # folders that the script owns


def quiet() -> None:
    import logging

    import torch
    import transformers

    logging.getLogger("gguf.vocab").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")


def hf_model(out: Path, name: str) -> dict:
    """One model's folder, adapters and expected values; returns what the GGUF files need."""
    from gen import adapters, cases, models
    from gen.files import write_json, write_safetensors

    proto, tok = models.write(out, name)

    def fresh():
        base = models.load(out / name)
        base.name_or_path = name
        return base

    found = adapters.write(out, name, models.CONFIGS[name], fresh)
    ids = cases.prompts(models.PIECES[name], tok)
    model, listed, tensors = fresh(), [], {}
    for label, adapter, prompt in cases.plan(found):
        folder = out / "adapters" / name / adapter.folder if adapter else None
        case, arrays = cases.run(model, ids[prompt], adapter, folder, fresh)
        listed.append(cases.describe(label, adapter, prompt, tok, case))
        tensors |= cases.keep(label, arrays)
    cases.check_changed(listed)
    write_json(out / "expected" / f"{name}.json", {"model": name, "vocab_size": 128, "eos_token_id": 1, "cases": listed})
    write_safetensors(out / "expected" / f"{name}.safetensors", tensors)
    return {"proto": proto, "tok": tok, "adapters": found, "ids": ids, "cases": listed}


def gguf_files(out: Path, name: str, made: dict) -> None:
    """The f32 file (the folder's expected values hold) and the 8-bit one with expected values of its own."""
    import gguf

    from gen import cases, gguf_file, models
    from gen.files import write_json, write_safetensors

    kinds = {"f32": gguf.GGMLQuantizationType.F32, "q8_0": gguf.GGMLQuantizationType.Q8_0}
    weights = models.weights(name)
    read = {
        k: gguf_file.write(out / f"{name}.{k}.gguf", out / name, models.CONFIGS[name], weights, made["proto"], v)
        for k, v in kinds.items()
    }
    assert all((read["f32"][k] == v).all() for k, v in weights.items())
    model, listed, tensors = models.load(out / name, read["q8_0"]), [], {}
    for label, adapter, prompt in cases.plan(made["adapters"]):
        if label in Q8_CASES:
            case, arrays = cases.run(model, made["ids"][prompt], adapter)
            listed.append(cases.describe(label, adapter, prompt, made["tok"], case))
            tensors |= cases.keep(label, arrays)
    write_json(out / "expected" / f"{name}.q8_0.json", {
        "model": f"{name}.q8_0.gguf", "vocab_size": 128, "eos_token_id": 1, "cases": listed})
    write_safetensors(out / "expected" / f"{name}.q8_0.safetensors", tensors)


def decoder_cases(out: Path, stem: str, file: str, made: dict, model, only=None) -> list[dict]:
    """Runs the cases of one model or file (those in `only`), and writes `expected/STEM.*`."""
    from gen import decoder_cases as cases
    from gen.decoders import CONFIGS
    from gen.files import write_json, write_safetensors

    name, listed, tensors = made["name"], [], {}
    for label, adapter, prompt in cases.plan(made["adapters"]):
        if only and label not in only:
            continue
        folder = out / "adapters" / name / adapter.folder if adapter and not only else None
        case, logits = cases.run(model, made["ids"][prompt], adapter, made["forbidden"], folder, made["fresh"])
        listed.append(cases.describe(label, adapter, prompt, made["tok"], case))
        tensors |= cases.keep(label, logits, *([only[:1]] if only else []))
    head = {"model": file, "vocab_size": CONFIGS[name]["vocab_size"], "eos_token_id": CONFIGS[name]["eos_token_id"]}
    write_json(out / "expected" / f"{stem}.json", head | {"cases": listed})
    write_safetensors(out / "expected" / f"{stem}.safetensors", tensors)
    cases.check_changed(listed)
    return listed


def decoder_model(out: Path, name: str) -> dict:
    """One decoder-only model's folder, adapters, tokenizer cases and expected values; returns what the GGUF files need."""
    from gen import adapters, bpe, decoders
    from gen import decoder_cases as cases
    from gen.files import write_json

    tok, config, template, proto, weights = decoders.write(out, name)

    def fresh():
        base = decoders.load(out / name, weights)
        base.name_or_path = name
        return base

    cfg, forbidden = decoders.CONFIGS[name], decoders.special_ids(name, tok)
    layers = cfg.get("n_layer") or cfg["num_hidden_layers"]
    shape = adapters.Backbone(decoders.width(name), cfg.get("n_head") or cfg["num_attention_heads"], layers, cases.S, "CAUSAL_LM")
    made = {
        "name": name, "tok": tok, "proto": proto, "weights": weights, "forbidden": forbidden, "fresh": fresh,
        "adapters": adapters.write_causal(out, name, shape, fresh), "ids": cases.prompts(tok, forbidden, decoders.TOKENS[name]),
    }
    if name == "gemma2":
        decoders.check_caps(out / name, weights, made["ids"]["medium"])
    listed = decoder_cases(out, name, name, made, fresh())
    greedy = [c["tokens"] for c in listed if c["name"] in ("none-medium", "dept-medium")]
    write_json(out / "expected" / f"{name}.tokenizer.json", bpe.cases(tok, greedy, config, template))
    return made


def decoder_gguf(out: Path, made: dict) -> None:
    """The f32 file, read by transformers too; llama's in 8 bits and Gemma's have expected values of their own."""
    import gguf

    from gen import decoder_gguf as writer
    from gen import decoders

    def write(kind):
        path = out / f"{name}.{kind.name.lower()}.gguf"
        return writer.write(path, out / name, name, made["tok"], made["proto"], made["weights"], kind)

    name = made["name"]
    read = write(gguf.GGMLQuantizationType.F32)
    assert all((read[k] == v).all() for k, v in made["weights"].items())
    writer.check_by_transformers(out / f"{name}.f32.gguf", out / name, made["weights"])
    if name == "llama":
        read = write(gguf.GGMLQuantizationType.Q8_0)
        file = f"{name}.q8_0.gguf"
        decoder_cases(out, f"{name}.q8_0", file, made, decoders.load(out / name, read), DECODER_Q8_CASES)
    if name == "gemma3":  # what the file can't say
        changed = {"query_pre_attn_scalar": decoders.CONFIGS[name]["head_dim"]}
        model = decoders.load(out / name, read, local_base=10000.0, **changed)
        decoder_cases(out, f"{name}.f32", f"{name}.f32.gguf", made, model, GEMMA_GGUF_CASES)


def make(out: Path) -> None:
    from gen import adept, buckets, models, sampling, tokenizer
    from gen.files import write_json

    quiet()
    made = {name: hf_model(out, name) for name in models.CONFIGS}
    adept.write(out)
    models.write_sharded(out, "t5-v1_0")
    whole, parts = (models.load(out / n).state_dict() for n in ("t5-v1_0", "t5-v1_0-sharded"))
    assert all((whole[k] == parts[k]).all() for k in whole)
    gguf_files(out, "t5-v1_1", made["t5-v1_1"])
    greedy = [c["tokens"] for c in made["t5-v1_1"]["cases"] if c["name"].endswith("-medium")]
    write_json(out / "tokenizer_cases.json", tokenizer.cases(made["t5-v1_1"]["tok"], greedy))
    write_json(out / "buckets.json", buckets.tables())
    write_json(out / "sampling.json", sampling.cases())
    for name in DECODERS:
        decoder_gguf(out, decoder_model(out, name))
    for path in written(out):
        path.chmod(0o644)


def written(out: Path) -> list[Path]:
    """Every file that the script makes."""
    top = [*out.glob("*.gguf"), *(p for p in out.glob("*.json"))]
    return sorted(top + [p for folder in OWN for p in (out / folder).rglob("*") if p.is_file()])


def check() -> None:
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder)
        make(other)
        names = [{p.relative_to(root) for p in written(root)} for root in (HERE, other)]
        wrong = sorted(map(str, names[0] ^ names[1]))
        wrong += sorted(str(p) for p in names[0] & names[1] if (HERE / p).read_bytes() != (other / p).read_bytes())
    if wrong:
        sys.exit("differ from this folder: " + ", ".join(wrong))
    print(f"{len(names[0])} files are the same")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    check() if args.check else make(args.out)
