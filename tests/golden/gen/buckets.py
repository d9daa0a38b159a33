"""Relative position buckets by transformers' own formula, for the configurations that models use and some more."""

import torch
from transformers.models.t5.modeling_t5 import T5Attention

# Buckets, and the distance from which on all share the last: T5's two, and others whose edges lie elsewhere.
SHAPES = [(32, 20), (32, 128), (8, 20), (64, 256), (64, 1000)]


def tables() -> list[dict]:
    """Buckets of key position minus query position from -300 to 300, both directions."""
    distance = torch.arange(-300, 301)
    return [
        {
            "bidirectional": two_way, "num_buckets": buckets, "max_distance": far, "first": -300,
            "buckets": T5Attention._relative_position_bucket(distance, two_way, buckets, far).tolist(),
        }
        for two_way in (True, False) for buckets, far in SHAPES
    ]
