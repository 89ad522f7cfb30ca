"""What a run says of its corpus: duplicates, and pixel statistics of videos and images alike."""

import json

import numpy as np
import pytest
from PIL import Image

from tubelet.datasets.corpus import index_corpus
from tubelet.datasets.images import index_images
from tubelet.datasets.video_writer import write_video
from tubelet.vjepa.corpus_facts import pixel_stats, write_corpus
from tubelet.vjepa.encoder import EncoderConfig

HALVES = np.full((32, 32, 3), 60, np.uint8)
HALVES[:16] = 180


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(4):
        Image.fromarray(HALVES).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def test_files_left_out_as_duplicates_are_named_with_what_they_repeat(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, [HALVES] * 4, fps=5)
    (tmp_path / "list.txt").write_text("a.mp4\nb.mp4\na.mp4\n")
    index = index_corpus(tmp_path / "list.txt", deduplicate=True, progress=False, processes=1)
    write_corpus(tmp_path, index, EncoderConfig())
    facts = json.loads((tmp_path / "corpus.json").read_text())
    a, b = str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")
    assert facts["videos"] == 1
    assert facts["duplicates"].items() >= {b: a}.items()
    assert {copy.path for copy in index.duplicates} == set(facts["duplicates"])


def test_pixel_statistics_of_images_are_exact(photos):
    mean, std = pixel_stats(index_images(photos, progress=False, processes=1))
    assert mean == pytest.approx([120 / 255] * 3, abs=1e-4)
    assert std == pytest.approx([60 / 255] * 3, abs=1e-4)


def test_pixel_statistics_of_a_mixture_see_its_images(tmp_path, photos):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", [np.full((32, 32, 3), 120, np.uint8)] * 4, fps=5)
    (tmp_path / "mix.toml").write_text(
        '[[corpus]]\nvideos = "videos"\n[[corpus]]\nimages = "photos"\n'
    )
    mean, std = pixel_stats(index_corpus(tmp_path / "mix.toml", progress=False, processes=1))
    assert mean == pytest.approx([120 / 255] * 3, abs=0.01)
    assert std == pytest.approx([60 / 255 / 2**0.5] * 3, abs=0.01)  # half of the 8 frames vary
