"""Latents of a frozen encoder on disk."""

import errno
import os

import numpy as np
import pytest
import torch

from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets.windows import FramePairs
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.latent_cache import cache_latents

LENGTHS = [7, 12, 1]
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])


def encoder(seed=0):
    torch.manual_seed(seed)
    return TubeletEncoder(EncoderConfig(width=12, depth=1, heads=1, patch=4)).eval()


@pytest.fixture
def observe():
    frames = np.random.default_rng(0).integers(0, 256, (OFFSETS[-1], 8, 8, 3), dtype=np.uint8)
    return FramePairs(frames, OFFSETS, count=2, gap=3)


def make(observe, folder, model=None, **changes):
    settings = {"stride": 3, "source": "a", "batch_size": 4, **changes}
    return cache_latents(model or encoder(), observe, folder, **settings)


def test_cached_tokens_are_the_encoders(observe, tmp_path):
    model = encoder()
    cache = make(observe, tmp_path, model)
    assert cache.offsets.tolist() == [0, 3, 7, 8]  # steps 0 3 6 | 0 3 6 9 | 0
    episode, step = np.array([0, 1, 2]), np.array([[0, 6], [9, 3], [0, 0]])
    got = cache(episode, step)
    assert got.dtype == torch.float16
    assert got.shape == (3, 2, 4, 12)
    with torch.no_grad():
        wanted = model(observe(episode, step).flatten(0, 1)).unflatten(0, (3, 2))
    assert torch.allclose(got.float(), wanted, atol=2e-3)


def test_a_second_call_opens_what_is_there(observe, tmp_path, monkeypatch):
    first = make(observe, tmp_path)
    monkeypatch.setattr(FramePairs, "__call__", lambda *_: pytest.fail("encoded again"))
    assert np.array_equal(make(observe, tmp_path).tokens, first.tokens)


def test_whatever_changes_the_tokens_makes_another_cache(observe, tmp_path):
    make(observe, tmp_path)
    make(observe, tmp_path, encoder(seed=1))
    make(observe, tmp_path, stride=1)
    make(observe, tmp_path, source="b")
    make(FramePairs(observe.frames, OFFSETS, count=2, gap=1), tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 5


def test_steps_between_are_refused(observe, tmp_path):
    with pytest.raises(ConfigError, match="only multiples of 3 are cached"):
        make(observe, tmp_path)(np.array([0]), np.array([[0, 4]]))


def test_the_encoder_keeps_its_weights_and_gets_no_gradient(observe, tmp_path):
    model = encoder()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make(observe, tmp_path, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space is not reserved here")
def test_a_full_disk_is_an_error_and_leaves_nothing_behind(observe, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DatasetError, match="No space left on device"):
        make(observe, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing_that_looks_finished(observe, tmp_path, monkeypatch):
    model = encoder()
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        make(observe, tmp_path, model)
    assert list(tmp_path.iterdir()) == []
