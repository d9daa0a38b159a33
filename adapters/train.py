"""Trains one DePT adapter for the embedded model.

    python adapters/train.py TASK --data DIR [--out DIR] [--steps N] …

The model is frozen and in f32; on CPUs with bf16 arithmetic `--bf16` halves the time of a step (the adapter's tensors
and their optimiser stay in f32). The tensors with the best accuracy on the dev split are the ones saved.
README.md beside this file has the commands that made the folders here.
"""

import argparse
import random
import time
from pathlib import Path

import torch

from dept import Dept, embed, encode, encode_text, label_scores  # puts models/ on the path
from reading import load_model, load_tokenizer, pad
from tasks import TASKS

HERE = Path(__file__).parent
BETAS, EPSILON = (0.9, 0.999), 1e-6
IGNORED = -100  # a target that the loss skips
BUCKET = 50  # batches whose texts are sorted by length together


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    task = TASKS[args.task]
    model, tokenizer = load_model(args.model), load_tokenizer(args.model)
    splits = task.load(args.data)
    print(f"{args.task}: {task.split_note}: " + ", ".join(f"{k} {len(v)}" for k, v in splits.items()))

    def prepare(examples):
        return [(encode_text(tokenizer, task.render(e), task.max_length), tokenizer.encode(e.target).ids) for e in examples]

    train, dev = prepare(splits["train"]), prepare(splits["dev"][: args.dev])
    init_ids = tokenizer.encode(task.init_text, add_special_tokens=False).ids
    adapter = Dept.initial(model.shared.weight, init_ids, args.prompt_length, task.max_length)
    labels = [tokenizer.encode(label).ids for label in task.labels]
    print(f"m {len(adapter.prompt)}, s {task.max_length}, r {adapter.a.shape[1]}, labels {labels}")
    if args.bf16:
        model.bfloat16()
    keep = lambda: adapter.save(args.out or HERE / args.task, task.init_text)
    fit(model, adapter, train, dev, labels, keep, args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True, help="holds a folder a task")
    parser.add_argument("--model", type=Path, default=HERE.parent / "models/flan-t5-small-en")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--prompt-length", type=int, default=20)
    parser.add_argument("--lr-prompt", type=float, default=0.3)
    parser.add_argument("--lr-lowrank", type=float, default=1e-3)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--eval-every", type=int, default=100)
    parser.add_argument("--dev", type=int, default=400, help="dev examples looked at while training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    return parser.parse_args()


def fit(model, adapter: Dept, train, dev, labels, keep, args) -> None:
    """Trains in place, and calls `keep` whenever the tensors are the best so far on `dev`."""
    groups = [{"params": [adapter.prompt], "lr": args.lr_prompt}, {"params": [adapter.a, adapter.b], "lr": args.lr_lowrank}]
    optimizer = torch.optim.AdamW(groups, betas=BETAS, eps=EPSILON, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: linear(step + 1, args.warmup, args.steps))
    best, losses, started = -1.0, [], time.time()
    for step, batch in enumerate(batches(train, args.batch_size, args.steps, args.seed), start=1):
        loss = batch_loss(model, adapter, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % args.eval_every == 0 or step == args.steps:
            accuracy = evaluate(model, adapter, dev, labels)
            if accuracy >= best:
                best = accuracy
                keep()
            mean = sum(losses) / len(losses)
            print(f"step {step:5} loss {mean:.4f} dev {accuracy:.4f} {time.time() - started:6.0f} s", flush=True)
            losses = []


def linear(step: int, warmup: int, steps: int) -> float:
    """Up to 1 over `warmup` steps, then down to 0 at the last."""
    return min(step / warmup, (steps - step) / max(1, steps - warmup))


def batches(examples, size: int, steps: int, seed: int):
    """`steps` batches, epoch after epoch; texts of like length share one, so that little is padding."""
    draw = random.Random(seed)
    made = 0
    while True:
        order = draw.sample(examples, len(examples))
        epoch = []
        for at in range(0, len(order), size * BUCKET):
            bucket = sorted(order[at : at + size * BUCKET], key=lambda example: len(example[0]))
            epoch += [bucket[i : i + size] for i in range(0, len(bucket), size)]
        draw.shuffle(epoch)
        for batch in epoch:
            yield batch
            made += 1
            if made == steps:
                return


def batch_loss(model, adapter: Dept, batch) -> torch.Tensor:
    """Mean cross-entropy of the target tokens, the end token included."""
    x, mask = embed(model, adapter, [source for source, _ in batch])
    targets, _ = pad([target for _, target in batch], IGNORED)
    logits = model(inputs_embeds=x, attention_mask=mask, decoder_input_ids=shift_right(targets)).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def shift_right(targets: torch.Tensor) -> torch.Tensor:
    """The decoder's input: the start token (0), then the targets less their last; what is ignored becomes padding (0)."""
    return torch.cat([torch.zeros_like(targets[:, :1]), targets[:, :-1].clamp_min(0)], dim=1)


@torch.no_grad()
def evaluate(model, adapter: Dept, examples, labels, size: int = 32) -> float:
    """Accuracy of the most likely label."""
    right = 0
    order = sorted(examples, key=lambda example: len(example[0]))
    for at in range(0, len(order), size):
        batch = order[at : at + size]
        encoded, mask = encode(model, adapter, [source for source, _ in batch])
        chosen = label_scores(model, encoded, mask, labels).argmax(-1).tolist()
        right += sum(labels[c] == target for c, (_, target) in zip(chosen, batch, strict=True))
    return right / len(order)


if __name__ == "__main__":
    main()
