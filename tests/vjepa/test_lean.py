"""Activation checkpointing: the same losses, gradients and keys, each block run twice.

And memory that is kept when freed.
"""

import subprocess
import sys

import pytest
import torch

from tubelet.vjepa import presets
from tubelet.vjepa.lean import keep_freed_memory, thrift
from tubelet.vjepa.pretrain import build


def gradients(model, clips):
    loss = model.losses(clips, 3)["loss"]
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_checkpointed_blocks_give_the_same_bits_and_run_twice():
    clips = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    plain, lean = build(presets.debug()), build(presets.debug())
    thrift(lean, checkpoint_blocks=True)
    calls = []
    lean.encoder.blocks[0].norm1.register_forward_hook(lambda *_: calls.append("trained"))
    lean.output.blocks[0].norm1.register_forward_hook(lambda *_: calls.append("averaged"))
    (want_loss, want), (loss, got) = gradients(plain, clips), gradients(lean, clips)
    assert torch.equal(loss, want_loss)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert calls.count("trained") == 2
    assert calls.count("averaged") == 1
    assert lean.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.slow
def test_compiled_mlps_give_the_same_loss():
    clips = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    plain, fast = build(presets.debug()), build(presets.debug())
    thrift(fast, compile_mlps=True)
    (want_loss, want), (loss, got) = gradients(plain, clips), gradients(fast, clips)
    assert torch.allclose(loss, want_loss, atol=1e-5)
    assert all(torch.allclose(got[name], want[name], atol=1e-5) for name in want)


def test_freed_memory_is_used_again():
    """After some rounds a buffer costs no new pages; asked in a process of its own."""
    script = """
import resource, torch
from tubelet.vjepa.lean import keep_freed_memory
kept = keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(100, 1 << 18)  # 100 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
each = [faults() for _ in range(30)]
print(kept, each[0], each[-1])
"""
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    kept, first, last = out.split()
    if kept == "False":
        pytest.skip("no glibc here")
    assert int(first) > 10_000
    assert int(last) < int(first) / 10


def test_who_has_set_the_allocator_keeps_that(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert not keep_freed_memory()
