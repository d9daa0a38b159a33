"""Relative position buckets by transformers' own formula, for every configuration that the models use."""

import torch
from transformers.models.t5.modeling_t5 import T5Attention


def tables() -> list[dict]:
    """Buckets of key position minus query position from -200 to 200; both directions, max distance 20 and 128."""
    distance = torch.arange(-200, 201)
    return [
        {
            "bidirectional": two_way, "num_buckets": 32, "max_distance": far, "first": -200,
            "buckets": T5Attention._relative_position_bucket(distance, two_way, 32, far).tolist(),
        }
        for two_way in (True, False) for far in (20, 128)
    ]
