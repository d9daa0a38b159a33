"""Which linears take activations of 16 bits; the others take 8. Measured by calibrate.py, see README.md.

These are the output table and every linear that the decoder feeds with its own rows: few rows a step, so a step
waits for the weights and not for the arithmetic. Cross-attention's k and v read the encoder's rows, many at once,
and lose little at 8 bits, as do all of the encoder's.
"""

SIXTEEN_BITS = [
    "lm_head",
    r"re:decoder\.block\.\d+\.layer\.\d\.SelfAttention\.[qkvo]$",
    r"re:decoder\.block\.\d+\.layer\.\d\.EncDecAttention\.[qo]$",
    r"re:decoder\.block\.\d+\.layer\.\d\.DenseReluDense\.(wi_0|wi_1|wo)$",
]
