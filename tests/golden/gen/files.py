"""Small writers that always give the same bytes for the same content."""

import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # lists of numbers on one line; no string here looks like one
    text = re.sub(r"\[[-+.,\de\snul]+\]", lambda m: re.sub(r"\s+", " ", m[0]).replace("[ ", "[").replace(" ]", "]"), text)
    assert json.loads(text) == value
    path.write_text(text + "\n", encoding="utf-8")


def write_safetensors(path: Path, tensors: dict, metadata: dict | None = None) -> None:
    """Tensors in the order of their names; torch or numpy, made contiguous."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {k: np.ascontiguousarray(np.asarray(tensors[k])) for k in sorted(tensors)}
    save_file(arrays, path, metadata=metadata)


def short(x: float) -> float:
    """The shortest decimal that reads back as the same f32, so that JSON stays small and exact."""
    f = np.float32(x)
    value = float(str(f))
    assert np.float32(value) == f
    return value
