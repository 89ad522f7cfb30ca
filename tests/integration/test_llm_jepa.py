"""The LLM-JEPA example: its data, its mask, its two terms, and that it learns."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "llm_jepa.py"


@pytest.fixture(scope="module")
def llm():
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture
def model(llm):
    torch.manual_seed(0)
    return llm["CausalBytes"]()


def test_meanings_are_in_one_set_only_and_expressions_compile(llm):
    train, test = llm["pairs"](0)
    assert not {p.code for p in train} & {p.code for p in test}
    assert len(test) / (len(train) + len(test)) == pytest.approx(0.2, abs=0.02)
    for pair in train[::97] + test[::97]:
        re.compile(pair.code)
    assert max(max(pair.text.encode()) for pair in train) < 128


def test_single_conditions_mean_what_they_say(llm):
    meant = {pair.text: pair.code for pair in llm["single_meanings"]()}
    assert re.fullmatch(meant["starting with a digit"], "7 dogs")
    assert not re.fullmatch(meant["starting with a digit"], "dogs 7")
    assert re.fullmatch(meant["ending in a 'dog'"], "a dog")
    assert re.fullmatch(meant["with at least 3 times a vowel"], "banana")
    assert not re.fullmatch(meant["with at least 3 times a vowel"], "band")


def test_a_byte_sees_those_before_it_alone(model):
    ids = torch.randint(32, 127, (2, 30))
    changed = ids.clone()
    changed[:, 20] = 5
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert (before[:, 20:] - after[:, 20:]).abs().amax(dim=(0, 2)).min() > 0


def test_padding_changes_nothing(llm, model):
    rows = [[*b"lines with a vowel", 2], [*b"words", 2]]
    together = model.embedding(llm["padded"](rows))
    alone = torch.cat([model.embedding(llm["padded"]([row])) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_the_terms_against_a_loop(llm, model):
    """Next bytes of expressions only, and one minus the cosine, written out for each pair."""
    batch = [llm["Pair"]("lines with a dog", ".*dog.*"), llm["Pair"]("words", "[a-z]")]
    found = llm["losses"](model, batch, 1.0)
    nats, cosines = [], []
    for pair in batch:
        ids = [*pair.text.encode(), 1, *pair.code.encode(), 3]
        log = model(torch.tensor([ids[:-1]])).log_softmax(-1)[0]
        nats += [-log[k - 1, ids[k]] for k in range(len(pair.text) + 1, len(ids))]
        a = model.hidden(torch.tensor([[*pair.text.encode(), 2]]))[0, -1]
        b = model.hidden(torch.tensor([[*pair.code.encode(), 3]]))[0, -1]
        cosines.append(1 - (a @ b) / (a.norm() * b.norm()))
    torch.testing.assert_close(found["next_byte"], torch.stack(nats).mean())
    torch.testing.assert_close(found["jepa"], torch.stack(cosines).mean())
    torch.testing.assert_close(found["loss"], found["next_byte"] + found["jepa"])
    plain = llm["losses"](model, batch, 0.0)
    assert torch.equal(plain["loss"], plain["next_byte"])
    assert not plain["jepa"].requires_grad


def test_both_terms_fall_on_a_few_pairs(llm):
    pairs = llm["pairs"](0)[0][:8]
    _, log = llm["train"](1.0, pairs, steps=25, seed=0, batch=8)
    assert log[-1]["next_byte"] < 0.7 * log[0]["next_byte"]
    assert log[-1]["jepa"] < 0.5 * log[0]["jepa"]
    _, again = llm["train"](1.0, pairs, steps=3, seed=0, batch=8)
    assert again[0] == log[0]  # later steps follow another schedule


def test_what_is_written_ends_and_is_compared_exactly(llm, model):
    text = model.write("lines", longest=5)
    assert len(text) <= 5
    pairs = [llm["Pair"]("lines", model.write("lines")), llm["Pair"]("lines", "no such thing")]
    np.testing.assert_array_equal(llm["exact"](model, pairs), [True, False])
