"""Labelled lists, the protocol's frames and views, and features that are computed once."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tubelet.benchmarks.frozen import features as module
from tubelet.benchmarks.frozen.features import (
    average_views,
    encode_views,
    extract,
    pixels,
    probe_logits,
    reader,
    untrained,
    weights_digest,
)
from tubelet.benchmarks.frozen.labelled import read_labelled, split_rows
from tubelet.benchmarks.frozen.protocol import (
    PROTOCOLS,
    FrozenProtocol,
    layer_numbers,
    read_views,
    segment_frames,
)
from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets.video_writer import write_video
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.preprocess import PreprocessConfig, preprocess

ENCODER = EncoderConfig(width=12, depth=1, heads=1, patch=8)
PROTOCOL = FrozenProtocol(frames=2, step=1, segments=2, views=3, crop=16)


def encoder(seed=0):
    torch.manual_seed(seed)
    return TubeletEncoder(ENCODER).eval().requires_grad_(False)


def film(number, length=8, size=(16, 32)):
    return np.random.default_rng(number).integers(0, 255, (length, *size, 3), np.uint8)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}.mp4" for number in range(5)]
    for number, path in enumerate(paths):
        write_video(path, film(number), fps=10)
    return [str(path) for path in paths]


def run(paths, cache, model=None, **options):
    model = model or encoder()
    options = {"pool": False, "batch": 2, **options}
    return extract(model, weights_digest(model), paths, PROTOCOL, cache, **options)


def test_lists_in_every_spelling_and_folders_say_the_same(tmp_path):
    want = [str(tmp_path / name) for name in ("a b.mp4", "c.mp4", "d.mp4")]
    for text in (
        "a b.mp4 2\nc.mp4 10\nd.mp4 2\n",
        "path label\n# remark\n\na b.mp4::2\nc.mp4::10\nd.mp4::2\n",
        "path,label\na b.mp4,2\nc.mp4,10\nd.mp4,2",
    ):
        (tmp_path / "list.csv").write_text(text)
        data = read_labelled(tmp_path / "list.csv")
        assert list(data.paths) == want
        assert data.classes == ("2", "10")  # by value, not by letter
        assert data.labels.tolist() == [0, 1, 0]
    for name, folder in (("x.mp4", "run"), ("y.png", "jump"), ("z.mp4", "run")):
        (tmp_path / "tree" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / folder / name).touch()
    data = read_labelled(tmp_path / "tree")
    assert data.classes == ("jump", "run")
    assert data.labels.tolist() == [0, 1, 1]
    assert data.take(np.array([2])).paths == (str(tmp_path / "tree/run/z.mp4"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.mp4 1\na.mp4 2", "1 paths stand there twice, such as"),
        ("a.mp4 1\nb.mp4", ":2: no label in 'b.mp4'"),
        ("a.mp4 1\nb.mp4 1", "a single class, '1'"),
        ("# nothing", "no labelled files"),
    ],
)
def test_bad_lists_are_one_clear_error(tmp_path, text, said):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DatasetError, match=said):
        read_labelled(tmp_path / "list.txt")


def test_a_second_list_has_the_classes_of_the_first(tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4 walk\nb.mp4 run")
    assert read_labelled(tmp_path / "list.txt", ("run", "walk", "x")).labels.tolist() == [1, 0]
    with pytest.raises(DatasetError, match="not among those trained on, such as 'run'"):
        read_labelled(tmp_path / "list.txt", ("walk", "x"))
    with pytest.raises(DatasetError, match="no such list"):
        read_labelled(tmp_path / "none.txt")


@given(st.lists(st.integers(0, 3), min_size=30, max_size=60), st.integers(0, 5))
def test_splits_are_complete_disjoint_and_stratified(labels, seed):
    labels = np.array(labels)
    parts = split_rows(labels, (0.6, 0.2), seed)
    assert np.sort(np.concatenate(parts)).tolist() == list(range(len(labels)))
    for label in np.unique(labels):
        count = (labels == label).sum()
        assert abs((labels[parts[0]] == label).sum() - 0.6 * count) <= 0.5


@given(
    st.integers(1, 300),
    st.integers(1, 8),
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from(["published", "even"]),
)
def test_frames_lie_in_the_video_and_rise(count, frames, step, segments, spacing):
    protocol = FrozenProtocol(frames=frames, step=step, segments=segments, spacing=spacing)
    numbers = segment_frames(count, protocol)
    assert numbers.shape == (segments, frames)
    assert numbers.min() >= 0
    assert numbers.max() < count
    assert (np.diff(numbers, axis=1) >= 0).all()
    assert (np.diff(numbers[:, 0]) >= 0).all()


def test_segments_by_hand():
    two = FrozenProtocol(frames=4, step=2, segments=2, spacing="even")
    assert segment_frames(20, two).tolist() == [[0, 2, 4, 6], [10, 12, 14, 16]]
    assert segment_frames(9, two).tolist() == [[0, 2, 4, 6], [2, 4, 6, 8]]  # they overlap
    assert segment_frames(5, two).tolist() == [[0, 2, 4, 4]] * 2  # too short
    published = FrozenProtocol(frames=4, step=2, segments=2)
    # 8 frames from end to end in 4: 0, 8/3, 16/3, 8, cut to whole numbers below 8
    assert segment_frames(20, published).tolist() == [[0, 2, 5, 7], [10, 12, 15, 17]]


def test_views_are_those_of_the_preprocessing(files, tmp_path):
    views = read_views(files[0], PROTOCOL)
    assert views.shape == (3, 2, 2, 16, 16, 3)
    one = read_views(files[0], FrozenProtocol(**{**PROTOCOL_FIELDS, "views": 1, "short_side": 16}))
    assert torch.equal(one[0], views[1])  # the middle of three squares along the long side
    assert not torch.equal(views[0], views[2])
    from PIL import Image

    Image.fromarray(film(9)[0]).save(tmp_path / "still.png")
    still = read_views(tmp_path / "still.png", PROTOCOL)
    assert torch.equal(still[:, 0, 0], still[:, 1, 1])
    want = preprocess(torch.from_numpy(film(9)[:1]), PreprocessConfig(crop=16, kind="views"))
    assert torch.equal(still[:, 0, :1], want)


PROTOCOL_FIELDS = {"frames": 2, "step": 1, "segments": 2, "crop": 16}


def test_a_frame_rate_gives_the_step_and_never_none(files):
    slow = FrozenProtocol(**PROTOCOL_FIELDS, views=1, spacing="even", fps=5)
    two = FrozenProtocol(frames=2, step=2, segments=2, crop=16, views=1, spacing="even")
    assert torch.equal(read_views(files[0], slow), read_views(files[0], two))
    fast = FrozenProtocol(**PROTOCOL_FIELDS, views=1, spacing="even", fps=60)
    one = FrozenProtocol(**PROTOCOL_FIELDS, views=1, spacing="even")
    assert torch.equal(read_views(files[0], fast), read_views(files[0], one))


def test_clips_are_encoded_apart_and_their_tokens_lie_side_by_side():
    model = encoder()
    clips = torch.from_numpy(film(0, 24, (16, 16))).reshape(2, 3, 2, 2, 16, 16, 3)
    tokens = encode_views(model, clips)
    assert tokens.shape == (2, 3, 8, 12)
    for b, v in np.ndindex(2, 3):
        want = torch.cat([model(clips[b, v, s][None])[0] for s in range(2)])
        torch.testing.assert_close(tokens[b, v], want)


def test_views_are_averaged_after_the_softmax():
    logits = torch.tensor([[0.0, 0.0], [np.log(3.0), 0.0]])  # 1/2, 1/2 and 3/4, 1/4
    torch.testing.assert_close(average_views(logits), torch.tensor([0.625, 0.375]))


def cut(whole, depth):
    """The first ``depth`` blocks of an encoder with its last norm, as an encoder."""
    part = TubeletEncoder(replace(whole.config, depth=depth))
    state = {k: v for k, v in whole.state_dict().items() if k in part.state_dict()}
    part.load_state_dict(state)
    return part.eval()


@torch.no_grad()
@pytest.mark.parametrize("side", [16, 184])  # few tokens; so many that clips go one by one
def test_layers_are_those_of_shorter_encoders_side_by_side(side):
    torch.manual_seed(1)
    whole = TubeletEncoder(replace(ENCODER, depth=8)).eval()
    for parameter in whole.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    video = torch.randint(0, 256, (2, 2, side, side, 3), dtype=torch.uint8)
    read = reader(whole, 3)(video)
    want = torch.cat([cut(whole, depth)(video) for depth in (6, 7, 8)], dim=1)
    torch.testing.assert_close(read, want, atol=1e-5, rtol=1e-5)
    assert not any(block._forward_hooks for block in whole.blocks)
    assert reader(whole) is whole


@torch.no_grad()
def test_levels_of_an_encoder_are_normed_by_their_own_norms():
    torch.manual_seed(1)
    whole = TubeletEncoder(replace(ENCODER, depth=3, levels=(2, 3))).eval()
    for norm in whole.norms:
        norm.bias.copy_(torch.randn(12))
    video = torch.randint(0, 256, (1, 2, 16, 16, 3), dtype=torch.uint8)
    want = whole(video, all_levels=True).unflatten(-1, (2, 12)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(reader(whole, 2)(video), want[:, [0, 1, 2, 3, 4, 5, 6, 7]])


def test_the_published_layers():
    assert layer_numbers(24, 4) == (18, 20, 22, 24)
    assert layer_numbers(40, 4) == (25, 30, 35, 40)
    assert layer_numbers(2, 2) == (1, 2)
    assert layer_numbers(9, 4) == (6, 7, 8, 9)
    assert layer_numbers(12, 1) == (12,)
    assert PROTOCOLS["diving48"].layers == PROTOCOLS["jester"].layers == 4
    with pytest.raises(ConfigError, match="layers = 4: the encoder has 2 blocks"):
        reader(TubeletEncoder(replace(ENCODER, depth=2)), 4)


def test_a_probe_gets_the_tokens_of_all_layers_of_every_clip_of_a_view():
    model, seen = TubeletEncoder(replace(ENCODER, depth=4)).eval(), []

    def probe(tokens):
        seen.append(tokens.shape)
        return tokens.mean(1)[:, :2]

    clips = torch.zeros(3, 2, 2, 16, 16, 3, dtype=torch.uint8)  # views, segments, frames
    assert probe_logits(model, probe, clips, layers=4).shape == (3, 2)
    assert seen == [(1, 2 * 4 * 4, 12)] * 3


def test_features_are_the_encoders_and_come_from_the_cache_the_second_time(
    files, tmp_path, monkeypatch
):
    found = run(files, tmp_path / "cache")
    assert found.values.shape == (5, 3, 8, 12)
    assert found.values.dtype == np.float16
    for row, path in enumerate(files):
        want = encode_views(encoder(), read_views(path, PROTOCOL)[None])[0]
        np.testing.assert_allclose(found.values[row], want, atol=3e-3)
    pooled = run(files, tmp_path / "cache", pool=True)
    assert pooled.values.shape == (5, 3, 1, 12)
    np.testing.assert_allclose(pooled.pooled(), found.pooled(), atol=2e-3)
    monkeypatch.setattr(module, "_compute", None)  # nothing is computed again
    assert np.array_equal(run(files, tmp_path / "cache").values, found.values)
    with pytest.raises(TypeError):
        run(files, tmp_path / "cache", encoder(1))  # another encoder, other features


def test_a_killed_extraction_goes_on_where_it_was(files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAVE_SECONDS", 0)
    whole = run(files, tmp_path / "whole").values
    calls = []

    def dies(video):
        calls.append(len(video))
        if len(calls) == 3:  # the first call only asks for the shape
            raise KeyboardInterrupt
        return encoder()(video)

    identity = weights_digest(encoder())
    for _ in range(2):
        try:
            extract(dies, identity, files, PROTOCOL, tmp_path / "cut", pool=False, batch=2)
        except KeyboardInterrupt:
            (state,) = (tmp_path / "cut").glob("*/state.json")
            assert json.loads(state.read_text())["done"] == 2
    assert len(calls) == 3 + 3
    assert np.array_equal(run(files, tmp_path / "cut").values, whole)


def test_workers_change_nothing(files, tmp_path):
    one = run(files, tmp_path / "a").values
    assert np.array_equal(run(files, tmp_path / "b", workers=1).values, one)


def test_bad_files_are_named_and_too_many_are_an_error(files, tmp_path):
    (tmp_path / "1.mp4").write_bytes(b"no video")
    with pytest.raises(DatasetError, match=r"1 of 5 files are bad"):
        run(files, tmp_path / "cache")
    found = run(files, tmp_path / "cache", max_bad_share=0.2)
    assert list(found.bad) == [files[1]]
    assert np.isnan(found.values[1].astype(float)).all()
    assert np.isfinite(found.values[[0, 2, 3, 4]].astype(float)).all()


def test_damaged_caches_are_named(files, tmp_path):
    run(files, tmp_path / "cache")
    (state,) = (tmp_path / "cache").glob("*/state.json")
    text = state.read_text()
    state.write_text("{")
    with pytest.raises(DatasetError, match=r"state.json: damaged"):
        run(files, tmp_path / "cache")
    state.write_text(text)
    (state.parent / "features.npy").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"features.npy"):
        run(files, tmp_path / "cache")


def test_floors_are_deterministic_and_not_the_encoder():
    model = encoder()
    state = torch.get_rng_state()
    first, again, other = untrained(model, 0), untrained(model, 0), untrained(model, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert weights_digest(first) == weights_digest(again)
    assert len({weights_digest(m) for m in (model, first, other)}) == 3
    video = torch.from_numpy(film(0, 4, (32, 32)))[None]
    small = pixels(video, 16)
    assert small.shape == (1, 1, 4 * 256 * 3)
    want = film(0, 4, (32, 32))[0, :2, :2, 0].mean() / 255
    torch.testing.assert_close(small[0, 0, 0], torch.tensor(want, dtype=torch.float32))


def test_impossible_protocols_are_named():
    with pytest.raises(ConfigError, match=r"frames = 0.*fps = -1"):
        FrozenProtocol(frames=0, fps=-1)
    with pytest.raises(ConfigError, match="no clips"):
        segment_frames(0, PROTOCOL)
