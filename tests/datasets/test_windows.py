"""Training windows: what is in them, how they are drawn, and what is refused."""

import itertools

import numpy as np
import pytest
import torch

from tubelet.core.errors import DatasetError
from tubelet.datasets.windows import FramePairs, window_batches

LENGTHS = np.array([11, 30, 5, 16])
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
TOTAL = int(OFFSETS[-1])
#: Row r of the set does action (r, -r) and shows the picture r.
ACTIONS = np.stack([np.arange(TOTAL), -np.arange(TOTAL)], axis=1).astype(np.float32)
FRAMES = np.broadcast_to(np.arange(TOTAL, dtype=np.uint8)[:, None, None, None], (TOTAL, 2, 2, 3))


def rows(episode, step):
    """An observation that is its own row number."""
    return torch.from_numpy(OFFSETS[episode][:, None] + step)


def batches(**changes):
    settings = {"episodes": range(4), "horizon": 2, "block": 5, "batch_size": 64, "seed": 0}
    return window_batches(rows, ACTIONS, OFFSETS, **{**settings, **changes})


def test_observations_a_block_apart_and_the_actions_between():
    batch = next(batches())
    assert batch.observations.shape == (64, 3)
    assert batch.actions.shape == (64, 2, 10)
    assert batch.actions.dtype == torch.float32
    first = batch.observations[:, 0]
    assert torch.equal(batch.observations, first[:, None] + torch.tensor([0, 5, 10]))
    environment_steps = batch.actions.unflatten(2, (5, 2)).flatten(1, 2)  # [64, 10, 2]
    wanted = first[:, None] + torch.arange(10)
    assert torch.equal(environment_steps[..., 0], wanted.float())
    assert torch.equal(environment_steps[..., 1], -wanted.float())


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_share_the_windows_of_one(count):
    whole = itertools.islice(batches(batch_size=8), 3)
    ranks = [batches(batch_size=8 // count, rank=r, world_size=count) for r in range(count)]
    for batch, *parts in zip(whole, *ranks, strict=False):
        assert torch.equal(torch.cat([part.observations for part in parts]), batch.observations)
        assert torch.equal(torch.cat([part.actions for part in parts]), batch.actions)


def test_windows_stay_in_their_episode():
    for batch in itertools.islice(batches(horizon=1), 20):
        assert (batch.step >= 0).all()
        assert (batch.step[:, -1] < LENGTHS[batch.episode]).all()
        assert np.array_equal(
            batch.observations.numpy() - batch.step,
            np.repeat(OFFSETS[batch.episode][:, None], 2, axis=1),
        )


def test_every_window_is_equally_likely():
    drawn = np.concatenate(
        [b.observations[:, 0].numpy() for b in itertools.islice(batches(batch_size=500), 20)]
    )
    starts = [o + s for o, n in zip(OFFSETS, LENGTHS, strict=False) for s in range(max(0, n - 10))]
    counts = np.bincount(drawn, minlength=TOTAL)
    assert set(np.flatnonzero(counts)) == set(starts)  # the episode of 5 frames has none
    expected = 10_000 / len(starts)
    assert np.abs(counts[starts] - expected).max() < 5 * np.sqrt(expected)


def test_only_the_given_episodes():
    for batch in itertools.islice(batches(episodes=[3, 1]), 10):
        assert set(batch.episode) <= {1, 3}


def test_strided_starts():
    for batch in itertools.islice(batches(stride=5), 10):
        assert (batch.step % 5 == 0).all()


def test_batch_s_is_a_function_of_seed_name_and_s():
    first = list(itertools.islice(batches(), 6))
    later = next(batches(first_step=5))
    assert torch.equal(first[5].observations, later.observations)
    assert torch.equal(first[5].actions, later.actions)
    for changed in ({"seed": 1}, {"name": "val"}, {"first_step": 1}):
        assert not torch.equal(next(batches(**changed)).observations, first[0].observations)


def test_a_window_that_just_fits():
    batch = next(batches(horizon=6, block=2, episodes=[0, 3]))
    assert set(batch.episode) == {3}
    assert batch.step.max() <= 15


def test_too_short_episodes_name_the_need_and_the_longest_given():
    with pytest.raises(DatasetError, match=r"no episode has the 21 frames.*longest has 16"):
        next(batches(horizon=4, episodes=[0, 2, 3]))
    with pytest.raises(DatasetError, match="longest has 0"):
        next(batches(episodes=[]))


def test_frame_pairs_end_at_their_step_and_stand_still_before_the_first():
    observe = FramePairs(FRAMES, OFFSETS, count=3, gap=2)
    out = observe(np.array([1, 0]), np.array([[9, 3], [0, 1]]))
    assert out.shape == (2, 2, 3, 2, 2, 3)
    assert out.dtype == torch.uint8
    got = out[..., 0, 0, 0].long() - torch.tensor([OFFSETS[1], OFFSETS[0]])[:, None, None]
    assert got.tolist() == [[[5, 7, 9], [0, 1, 3]], [[0, 0, 0], [0, 0, 1]]]


def test_a_pair_never_shows_the_episode_before():
    observe = FramePairs(FRAMES, OFFSETS, count=2, gap=7)
    for episode in range(4):
        steps = np.arange(LENGTHS[episode])[None]
        shown = observe(np.array([episode]), steps)[..., 0, 0, 0]
        assert shown.min() >= OFFSETS[episode]
        assert shown.max() < OFFSETS[episode + 1]
