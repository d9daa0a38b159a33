"""The log-likelihood of the golden text by lm-eval's own model class, beside transformers': likelihood.py TOKENIZER GOLDEN."""

import json
import math
import os
import sys
from pathlib import Path

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

golden = Path(sys.argv[2])
expected = json.loads((golden / "smollm2.json").read_text())["text"]
text = (golden / expected["file"]).read_text()
model = LocalCompletionsAPI(model="smollm2", base_url=os.environ["DEPT_URL"], tokenizer=sys.argv[1], max_length=2048)
ids = model.tok_encode(text)
assert ids == expected["ids"], "the tokenizer is SmolLM2's"
first = model.tokenizer.decode(ids[:1])
[(found, _)] = model.loglikelihood([Instance("loglikelihood", {}, (first, text[len(first):]), 0)])
count = len(ids) - 1
reference = -math.log(expected["perplexity"]) * count
print(f"{count} tokens: lm-eval through dept {found:.3f}, transformers (f32) {reference:.3f}, "
      f"{abs(found - reference) / count:.5f} nats a token apart")
# The 4-bit weights are computed with by 8- and 15-bit activations here, in f32 there.
assert abs(found - reference) / count < 0.02
