"""Neighbours, ridge and logistic regression against oracles; features in files and in colour."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy.optimize import minimize

from tubelet.benchmarks.frozen.labelled import Labelled
from tubelet.benchmarks.frozen.pictures import export_features, pca_frames, pca_video
from tubelet.benchmarks.frozen.readouts import knn, logistic, majority, ridge
from tubelet.benchmarks.frozen.selection import judge
from tubelet.core.errors import ConfigError
from tubelet.datasets.decode import open_video
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder

CLASSES = 3


def made(count=150, width=6, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    centres = 4 * rng.normal(size=(CLASSES, width))
    return centres[labels] + spread * rng.normal(size=(count, width)), labels.astype(np.int64)


FIT, VALID, TEST = np.arange(80), np.arange(80, 110), np.arange(110, 150)


@pytest.mark.parametrize("readout", [knn, ridge, logistic])
def test_separable_is_learnt_and_shuffled_is_not(readout):
    x, labels = made()
    assert judge(readout(x, labels, FIT, CLASSES), labels, VALID, TEST).accuracy > 0.95
    shuffled = np.random.default_rng(1).permutation(labels)
    assert judge(readout(x, shuffled, FIT, CLASSES), shuffled, VALID, TEST).accuracy < 0.6


def test_neighbours_are_those_of_brute_force():
    x, labels = made(spread=6.0)
    got = knn(x, labels, FIT, CLASSES, neighbours=(1, 7, 200), temperature=0.1)
    assert list(got.settings) == ["k = 1", "k = 7"]  # 200 are not there
    probabilities = got.predict(TEST)
    for place, row in enumerate(TEST):
        cosine = [
            float(x[row] @ x[other] / np.linalg.norm(x[row]) / np.linalg.norm(x[other]))
            for other in FIT
        ]
        for number, k in enumerate((1, 7)):
            votes = np.zeros(CLASSES)
            for other in sorted(range(len(FIT)), key=lambda i: -cosine[i])[:k]:
                votes[labels[FIT[other]]] += np.exp(cosine[other] / 0.1)
            np.testing.assert_allclose(probabilities[number, place], votes / votes.sum(), atol=1e-4)
    few = knn(x, labels, FIT[:3], CLASSES, neighbours=(10,))
    assert list(few.settings) == ["k = 3"]
    with pytest.raises(ConfigError, match=r"neighbours = \(0,\)"):
        knn(x, labels, FIT, CLASSES, neighbours=(0,))


def scaled(x):
    return (x - x[FIT].mean(0)) / x[FIT].std(0)


@pytest.mark.parametrize("width", [6, 120])  # fewer and more features than rows
def test_ridge_solves_the_normal_equations(width):
    x, labels = made(width=width)
    z, target = scaled(x), np.eye(CLASSES)[labels[FIT]]
    got = ridge(x, labels, FIT, CLASSES, penalties=(0.1, 10.0)).predict(TEST)
    for number, penalty in enumerate((0.1, 10.0)):
        gram = z[FIT].T @ z[FIT] + penalty * len(FIT) * np.eye(width)
        weights = np.linalg.solve(gram, z[FIT].T @ (target - target.mean(0)))
        fitted = z[TEST] @ weights + target.mean(0)
        want = np.exp(fitted) / np.exp(fitted).sum(1, keepdims=True)
        np.testing.assert_allclose(got[number], want, atol=1e-9)


def test_logistic_regression_is_the_minimum_that_another_solver_finds():
    x, labels = made(spread=5.0)
    z, y, penalty = scaled(x), labels[FIT], 0.01

    def objective(flat):
        weight, bias = flat[:-CLASSES].reshape(-1, CLASSES), flat[-CLASSES:]
        scores = z[FIT] @ weight + bias
        log = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(y)), y]
        return log.mean() + penalty / 2 * (weight**2).sum()

    solved = minimize(objective, np.zeros(7 * CLASSES), method="BFGS", options={"gtol": 1e-7})
    scores = z[TEST] @ solved.x[:-CLASSES].reshape(-1, CLASSES) + solved.x[-CLASSES:]
    want = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    got = logistic(x, labels, FIT, CLASSES, penalties=(1.0, penalty)).predict(TEST)
    np.testing.assert_allclose(got[1], want, atol=1e-4)


def test_features_that_never_vary_are_left_out_of_account():
    x, labels = made()
    more = np.concatenate([x, np.full((len(x), 2), 7.0)], axis=1)
    for readout in (ridge, logistic):
        got, want = (readout(some, labels, FIT, CLASSES).predict(TEST) for some in (more, x))
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_the_majority_class_is_the_training_rows_own():
    labels = np.array([2, 2, 1, 0, 0, 0, 0])
    got = majority(labels, np.arange(3), CLASSES).predict(np.array([3, 5]))
    assert got.shape == (1, 2, 3)
    assert got.argmax(-1).tolist() == [[2, 2]]


def labelled():
    return Labelled(
        source="x", paths=("/a.mp4", "/ü b.mp4"), labels=np.array([1, 0]), classes=("no", "yes")
    )


def test_exported_features_come_back_with_their_paths(tmp_path):
    values = np.arange(12, dtype=np.float16).reshape(2, 2, 3)
    export_features(tmp_path / "f.npz", values, labelled())
    with np.load(tmp_path / "f.npz", allow_pickle=False) as stored:
        assert np.array_equal(stored["features"], values)
        assert stored["paths"].tolist() == ["/a.mp4", "/ü b.mp4"]
        assert stored["classes"][stored["labels"]].tolist() == ["yes", "no"]
    export_features(tmp_path / "f.safetensors", values, labelled())
    with safe_open(tmp_path / "f.safetensors", "numpy") as stored:
        assert np.array_equal(stored.get_tensor("features"), values)
        assert stored.get_tensor("labels").tolist() == [1, 0]
        assert json.loads(stored.metadata()["paths"]) == ["/a.mp4", "/ü b.mp4"]
    with pytest.raises(ConfigError, match=r"\.npz or \.safetensors"):
        export_features(tmp_path / "f.csv", values, labelled())
    with pytest.raises(ConfigError, match="1 features for 2 files"):
        export_features(tmp_path / "f.npz", values[:1], labelled())


class Planted(TubeletEncoder):
    """An encoder whose tokens are given."""

    def __init__(self, tokens):
        super().__init__(EncoderConfig(width=12, depth=1, heads=1, patch=8))
        self.tokens = tokens

    def forward(self, video, *args, **kwargs):
        return self.tokens[None]


def test_colours_are_the_leading_components_over_each_tubelet():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(12, 12)))[0][:3]
    scores = rng.normal(size=(32, 3))
    scores = np.linalg.qr(scores - scores.mean(0))[0] * [9, 5, 2]  # centred, orthogonal
    clip = torch.zeros(4, 32, 32, 3, dtype=torch.uint8)  # grid 2 x 4 x 4
    got = pca_frames(Planted(torch.from_numpy(scores @ axes + 3).float()), clip)
    assert got.shape == (4, 32, 32, 3)
    assert got.dtype == np.uint8
    tokens = got[::2, ::8, ::8].reshape(32, 3)
    assert np.array_equal(got, tokens.reshape(2, 4, 4, 3).repeat(2, 0).repeat(8, 1).repeat(8, 2))
    for channel in range(3):
        order = np.corrcoef(tokens[:, channel], scores[:, channel])[0, 1]
        assert abs(order) > 0.98
        assert tokens[np.abs(scores[:, channel]).argmax(), channel] == 255
        assert {tokens[:, channel].min(), tokens[:, channel].max()} == {0, 255}


def test_a_feature_video_shows_the_clip_and_its_colours(tmp_path):
    torch.manual_seed(0)
    encoder = TubeletEncoder(EncoderConfig(width=12, depth=1, heads=1, patch=8)).eval()
    clip = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8))
    pca_video(tmp_path / "pca.mp4", encoder, clip)
    with open_video(tmp_path / "pca.mp4") as video:
        assert (video.num_frames, video.size) == (4, (32, 64))
        shown = video.get_frames([0])[0].astype(float)
    assert np.abs(shown[:, 32:] - pca_frames(encoder, clip)[0]).mean() < 20
    with pytest.raises(ConfigError, match="1 tokens have no three"):
        pca_frames(encoder, clip[:2, :8, :8])
