"""LLM-JEPA (arXiv 2509.14252) in one file: a language model that also predicts embeddings.

A sentence and a regular expression are two views of one meaning. A small causal transformer over
bytes learns to write the expression after the sentence, as ever; and the embedding of the sentence
(at a [PRED] token behind it) is pulled to that of the expression:

    loss = next-byte cross-entropy + lam * (1 - cos(embed(sentence + PRED), embed(expression)))

    python examples/llm_jepa.py --steps 600 --seeds 3

trains both with lam and without, from the same weights on the same batches, and compares how many
sentences of meanings never trained on become exactly their expression. Blocks, the distance and the
statistics are those of the toolkit.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.benchmarks.stats import mcnemar_exact, wilson_interval
from tubelet.core.rng import numpy_generator, stream_seed
from tubelet.vjepa.blocks import Block, init_weights
from tubelet.vjepa.objectives.regress import RegressConfig, distance
from tubelet.vjepa.optim import OptimConfig, make_optimizer, set_schedule

PAD, WRITE, PRED, END = 0, 1, 2, 3
"""Bytes that no text has: padding; "now the expression"; where the sentence's embedding is
predicted; the end."""

THINGS = {
    "digit": "[0-9]",
    "vowel": "[aeiou]",
    "capital": "[A-Z]",
    "letter": "[A-Za-z]",
    "space": "[ ]",
    "'dog'": "dog",
    "'truck'": "truck",
    "'ring'": "ring",
}
PLACES = {
    "starting with a {}": "^{}.*",
    "ending in a {}": ".*{}$",
    "with a {} somewhere": ".*{}.*",
    "with {n} times a {}": "(.*{}){{{n}}}.*",
    "with at least {n} times a {}": "(.*{}){{{n},}}.*",
}
HEADS = ("lines", "words", "strings", "find lines", "all words")


@dataclass(frozen=True)
class Pair:
    """A sentence and the expression that it means."""

    text: str
    code: str


def single_meanings() -> list[Pair]:
    """One condition each."""
    made = []
    for (phrase, pattern), (thing, code) in product(PLACES.items(), THINGS.items()):
        for n in (2, 3, 4) if "{n}" in phrase else (0,):
            made.append(Pair(phrase.format(thing, n=n), pattern.format(code, n=n)))
    return made


def pairs(seed: int, held_out: float = 0.2) -> tuple[list[Pair], list[Pair]]:
    """Training and test pairs: two conditions joined; a meaning is in one of the two sets, under
    every wording."""
    train, test = [], []
    single = single_meanings()
    draw = numpy_generator(seed, "llm-jepa", "pairs")
    for one, two in product(single, single):
        for word, join in ((" and ", "(?={})({})"), (" or ", "({})|({})")):
            code = join.format(one.code, two.code)
            chosen = test if draw.uniform() < held_out else train
            head = HEADS[int(draw.integers(len(HEADS)))]
            chosen.append(Pair(f"{head} {one.text}{word}{two.text}", code))
    return train, test


class CausalBytes(nn.Module):
    """A causal transformer over bytes with tied embeddings."""

    def __init__(self, width: int = 64, depth: int = 2, heads: int = 4, longest: int = 160):
        super().__init__()
        self.embed = nn.Embedding(128, width)
        self.place = nn.Parameter(0.02 * torch.randn(longest, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        init_weights(self, self.blocks)
        nn.init.trunc_normal_(self.embed.weight, std=0.02)

    def hidden(self, ids: Tensor) -> Tensor:
        """Last hidden states ``[B, N, D]`` of bytes int64 ``[B, N]``; each sees those before it."""
        mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        x = self.embed(ids) + self.place[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.norm(x)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits ``[B, N, 128]`` of each next byte."""
        return self.hidden(ids) @ self.embed.weight.T

    def embedding(self, ids: Tensor) -> Tensor:
        """``[B, D]``: the hidden state at the last byte that is no padding."""
        last = (ids != PAD).sum(dim=1) - 1
        return self.hidden(ids)[torch.arange(len(ids)), last]

    @torch.inference_mode()
    def write(self, text: str, longest: int = 64) -> str:
        """The expression that the model writes for a sentence, by the likeliest byte each time."""
        ids, prompt = [*text.encode(), WRITE], len(text) + 1
        while len(ids) < min(prompt + longest, len(self.place)):
            best = int(self(torch.tensor([ids]))[0, -1].argmax())
            if best == END:
                break
            ids.append(best)
        return bytes(ids[prompt:]).decode("ascii", errors="replace")


def padded(rows: list[list[int]]) -> Tensor:
    """Rows of bytes as int64 ``[B, N]``, padded at the end (which nothing before it sees)."""
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def losses(model: CausalBytes, batch: list[Pair], lam: float) -> dict[str, Tensor]:
    """The two terms and their sum. Gradients reach the embeddings of both views.

    Without weight the second term is only measured, and costs no backward pass.
    """
    texts, codes = [[*p.text.encode()] for p in batch], [[*p.code.encode()] for p in batch]
    both = padded([[*t, WRITE, *c, END] for t, c in zip(texts, codes, strict=True)])
    logits, wanted = model(both[:, :-1]), both[:, 1:].clone()
    for row, text in enumerate(texts):
        wanted[row, : len(text)] = PAD  # the sentence is given, not learned
    next_byte = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=PAD)
    with torch.set_grad_enabled(lam > 0):
        predicted = model.embedding(padded([[*t, PRED] for t in texts]))
        target = model.embedding(padded([[*c, END] for c in codes]))
        apart = distance(predicted, target, RegressConfig(kind="cosine"))
    loss = next_byte + lam * apart if lam > 0 else next_byte
    return {"next_byte": next_byte, "jepa": apart, "loss": loss}


def train(lam: float, train_pairs: list[Pair], *, steps: int, seed: int, batch: int = 32):
    """A model and its losses over time, list of dicts; equal seeds, equal weights and batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "llm-jepa", "weights"))
        model = CausalBytes()
    optim = OptimConfig(lr=3e-3, start_lr=3e-4, final_lr=3e-5, clip=1.0)
    optimizer, log = make_optimizer(model, optim), []
    for step in range(steps):
        draw = numpy_generator(seed, "llm-jepa", "batch", step)
        chosen = [train_pairs[i] for i in draw.integers(len(train_pairs), size=batch)]
        set_schedule(optimizer, optim, step, steps)
        optimizer.zero_grad(set_to_none=True)
        terms = losses(model, chosen, lam)
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), optim.clip)
        optimizer.step()
        log.append({name: value.item() for name, value in terms.items()})
    return model.eval(), log


def exact(model: CausalBytes, test: list[Pair]) -> np.ndarray:
    """Which sentences become exactly their expression: bool ``[n]``."""
    return np.array([model.write(pair.text) == pair.code for pair in test])


def main(
    *, steps: int = 600, seeds: int = 1, lam: float = 1.0, tests: int = 100
) -> dict[str, list]:
    """Train with and without the second term; print and return exact matches and losses."""
    out: dict[str, list] = {"plain": [], "jepa": [], "logs": []}
    for seed in range(seeds):
        train_pairs, test_pairs = pairs(seed)
        draw = numpy_generator(seed, "llm-jepa", "test")
        chosen = [test_pairs[i] for i in draw.permutation(len(test_pairs))[:tests]]
        for name, weight in (("plain", 0.0), ("jepa", lam)):
            model, log = train(weight, train_pairs, steps=steps, seed=seed)
            out[name].append(exact(model, chosen))
            out["logs"].append(log)
            last = ", ".join(f"{k} {v:.3f}" for k, v in log[-1].items())
            print(f"seed {seed}, {name}: exact {out[name][-1].mean():.2f}; last step: {last}")
    plain, jepa = np.concatenate(out["plain"]), np.concatenate(out["jepa"])
    for name, right in (("plain", plain), ("jepa", jepa)):
        share = wilson_interval(int(right.sum()), len(right))
        print(f"{name}: {share.value:.3f} [{share.low:.3f}, {share.high:.3f}] of {len(right)}")
    test = mcnemar_exact(jepa, plain)
    print(f"only with lam: {test.only_first}, only without: {test.only_second}, p = {test.p:.3f}")
    by_seed = [float(j.mean() - p.mean()) for j, p in zip(out["jepa"], out["plain"], strict=True)]
    print("difference by seed:", ", ".join(f"{d:+.3f}" for d in by_seed))
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lam", type=float, default=1.0)
    parser.add_argument("--tests", type=int, default=100)
    main(**vars(parser.parse_args()))
