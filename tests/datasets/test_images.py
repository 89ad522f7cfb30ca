import os
import shutil
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from tubelet.core.errors import ConfigError, DatasetError, VideoDecodeError
from tubelet.core.rng import torch_generator
from tubelet.datasets import corpus_cache, images
from tubelet.datasets.augment import augment
from tubelet.datasets.image_file import read_image
from tubelet.datasets.images import ImageConfig, image_batches, image_crop, index_images


def _picture(number, height=48, width=64):
    """Flat blocks of colour that say which picture it is: red is 20 times its number."""
    pixels = np.full((height, width, 3), (20 * number, 100, 200 - 10 * number), np.uint8)
    pixels[: height // 2, :, 1] = 180
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight good images of four kinds in two folders. Read only."""
    root = tmp_path_factory.mktemp("images")
    (root / "more").mkdir()
    for i, name in enumerate(("a.png", "b.jpg", "c.WEBP", "d.bmp", "e.jpeg")):
        _picture(i).save(root / name, quality=95)
    for i, name in enumerate(("f.png", "g.png", "h.png"), start=5):
        _picture(i, 64, 40).save(root / "more" / name)
    return root


@pytest.fixture
def index(folder):
    return index_images(folder, progress=False)


def _names(paths):
    return [os.path.basename(path) for path in paths]


def _take(batches, count):
    return list(islice(batches, count))


def _same(a, b):
    return (
        a.step == b.step and torch.equal(a.video, b.video) and torch.equal(a.video_ids, b.video_ids)
    )


def test_a_folder_is_indexed_with_sizes_in_order_of_paths(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "x")
    (tmp_path / "x" / "notes.txt").write_text("notes")
    (tmp_path / "x" / ".hidden.png").write_bytes(b"")
    index = index_images(tmp_path / "x", progress=False)
    assert _names(e.path for e in index.entries) == [
        *("a.png", "b.jpg", "c.WEBP", "d.bmp", "e.jpeg", "f.png", "g.png", "h.png")
    ]
    assert [(e.height, e.width) for e in index.entries] == [(48, 64)] * 5 + [(64, 40)] * 3
    assert {e.num_frames for e in index.entries} == {1}
    assert index.report().startswith("8 images usable, 0 of 8 bad (0.0 %), 1 files with other ext")
    assert _names(index.ignored) == ["notes.txt"]


def test_list_files_and_paths(tmp_path, folder):
    (tmp_path / "list.txt").write_text(f"{folder}/d.bmp\n{folder}/a.png\n")
    assert _names(e.path for e in index_images(tmp_path / "list.txt").entries) == ["a.png", "d.bmp"]
    paths = [folder / "more" / "g.png", folder / "b.jpg"]
    assert _names(e.path for e in index_images(paths).entries) == ["b.jpg", "g.png"]


def _chunk(kind, body):
    import zlib

    data = kind + body
    return len(body).to_bytes(4, "big") + data + zlib.crc32(data).to_bytes(4, "big")


def _bomb(path, side=60_000):
    """A PNG of a few bytes that claims to have 3.6 thousand million pixels."""
    head = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    start = b"\x89PNG\r\n\x1a\n"
    path.write_bytes(start + _chunk(b"IHDR", head) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b""))


@pytest.fixture
def damaged(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "x")
    root = tmp_path / "x"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for suffix in ("png", "jpg", "webp", "bmp"):
        noise.save(root / f"whole.{suffix}")
        data = (root / f"whole.{suffix}").read_bytes()
        (root / f"0-cut-{suffix}.{suffix}").write_bytes(data[: len(data) // 2])
        (root / f"whole.{suffix}").unlink()
    (root / "1-empty.jpg").touch()
    (root / "2-text.png").write_text("<html>not found</html>" * 50)
    Image.new("RGB", (20, 20)).save(root / "3-gif.png", format="GIF")
    _bomb(root / "4-bomb.png")
    _bomb(root / "5-small-bomb.png", 10_000)
    os.mkfifo(root / "6-pipe.png")
    scrambled = bytearray((folder / "a.png").read_bytes())
    scrambled[60:70] = bytes(10)
    (root / "7-scrambled.png").write_bytes(scrambled)
    return root


def test_every_bad_file_is_listed_with_its_reason(damaged):
    index = index_images(damaged, progress=False, max_bad_share=0.6)
    assert len(index) == 8
    reasons = {os.path.basename(bad.path): bad.reason for bad in index.quarantine}
    expected = {
        "0-cut-bmp.bmp": "truncated or damaged: ",
        "0-cut-jpg.jpg": "truncated or damaged: ",
        "0-cut-png.png": "truncated or damaged: ",
        "0-cut-webp.webp": "",  # the reader says either, by where the cut falls
        "1-empty.jpg": "the file is empty (0 bytes)",
        "2-text.png": "not a JPEG, PNG, WebP or BMP image",
        "3-gif.png": "not a JPEG, PNG, WebP or BMP image",
        "4-bomb.png": "larger than 89 million pixels: it may be a decompression bomb",
        "5-small-bomb.png": "larger than 89 million pixels: it may be a decompression bomb",
        "6-pipe.png": "a folder or device, not an image file",
        "7-scrambled.png": "truncated or damaged: ",
    }
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reasons[name].startswith(reason)
        assert len(reasons[name]) > len("truncated or damaged: ")
    report = index.report()
    assert report.startswith("8 images usable, 11 of 19 bad (57.9 %)")
    assert all(f"{name}: {reason}" in report for name, reason in reasons.items())


def test_a_missing_file_of_a_list_is_bad(folder):
    index = index_images([folder / "a.png", folder / "none.png"], progress=False)
    assert [bad.reason for bad in index.quarantine] == ["no such file"]


def test_only_the_header_is_read_if_asked(damaged):
    index = index_images(damaged, progress=False, verify="header", max_bad_share=0.6)
    good = _names(e.path for e in index.entries)
    assert "0-cut-jpg.jpg" in good
    assert "4-bomb.png" not in good


def test_too_many_bad_files_and_no_files_are_errors(tmp_path, damaged):
    with pytest.raises(DatasetError, match=r"11 of 19 .*bad, more than max_bad_share = 0\.5"):
        index_images(damaged, progress=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image files in this folder; looked for"):
        index_images(tmp_path / "empty")
    with pytest.raises(DatasetError, match="no such folder or list file"):
        index_images(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="verify='fast'"):
        index_images(damaged, verify="fast")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_bad_share=2"):
        index_images(damaged, max_bad_share=2)


def test_the_index_is_reused_for_unchanged_files_only(tmp_path, folder, monkeypatch):
    shutil.copytree(folder, tmp_path / "x")
    cache = tmp_path / "index.jsonl"
    first = index_images(tmp_path / "x", cache_path=cache, progress=False)
    read = []
    inspect = images._inspect
    monkeypatch.setattr(
        images, "_inspect", lambda path, verify: (read.append(path), inspect(path, verify))[1]
    )
    again = index_images(tmp_path / "x", cache_path=cache, progress=False)
    assert read == []
    assert [e.to_json() for e in again.entries] == [e.to_json() for e in first.entries]
    _picture(1, 30, 30).save(tmp_path / "x" / "a.png")
    changed = index_images(tmp_path / "x", cache_path=cache, progress=False)
    assert _names(read) == ["a.png"]
    assert (changed[0].height, changed[0].width) == (30, 30)


def test_pixels_are_scaled_by_the_short_side_and_cut_in_the_centre(tmp_path):
    ramp = np.zeros((40, 120, 3), np.uint8)
    ramp[..., 0] = np.arange(120)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert np.array_equal(read_image(tmp_path / "ramp.png"), ramp)
    assert np.array_equal(read_image(tmp_path / "ramp.png", 40), ramp[:, 40:80])
    half = read_image(tmp_path / "ramp.png", 20)
    assert half.shape == (20, 20, 3)
    middle = np.arange(40.5, 80, 2)[1:-1]
    np.testing.assert_allclose(half[10, 1:-1, 0], middle, atol=1)


def test_modes_and_turns(tmp_path):
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "deep.png")[..., 1], grey >> 8)
    Image.new("RGBA", (8, 8), (200, 10, 20, 0)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png")[0, 0].tolist() == [200, 10, 20]
    Image.new("RGB", (8, 8), (9, 8, 7)).quantize().save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png")[0, 0].tolist() == [9, 8, 7]
    turned = Image.Exif()
    turned[0x0112] = 6  # shown turned a quarter clockwise
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=turned, quality=100)
    seen = read_image(tmp_path / "turned.jpg")
    assert seen.shape == (32, 16, 3)
    assert seen[:14].min() > 240
    assert seen[18:].max() < 15
    (entry,) = index_images([tmp_path / "turned.jpg"]).entries
    assert (entry.height, entry.width) == (32, 16)


def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same(tmp_path):
    rng = np.random.default_rng(0)
    soft = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((1200, 900))
    soft.save(tmp_path / "large.jpg", quality=95)
    soft.save(tmp_path / "large.png")
    small, exact = (read_image(tmp_path / f"large.{s}", 64) for s in ("jpg", "png"))
    assert np.abs(small.astype(int) - exact).mean() < 2


def test_batches_are_clips_of_one_frame(folder, index):
    batches = image_batches(index, ImageConfig(size=32), 6)
    for step, batch in enumerate(_take(batches, 3)):
        assert (batch.video.dtype, batch.video.shape) == (torch.uint8, (6, 1, 32, 32, 3))
        assert batch.step == step
        assert (batch.timestamps == 0).all()
        red = batch.video[..., 0].float().mean((1, 2, 3))
        assert (red - 20 * batch.video_ids).abs().max() < 4
    assert batches.report() == "0 images failed to decode"


def test_batches_depend_on_the_seed_and_the_step_alone(index):
    config = ImageConfig(size=16)
    first = _take(image_batches(index, config, 4), 6)
    assert all(map(_same, first, _take(image_batches(index, config, 4, workers=1), 6)))
    assert all(map(_same, first[4:], _take(image_batches(index, config, 4, start_step=4), 2)))
    other = _take(image_batches(index, ImageConfig(size=16, seed=1), 4), 6)
    assert not all(map(_same, first, other))
    ranks = [_take(image_batches(index, config, 2, rank=r, world_size=2), 2) for r in range(2)]
    for step in range(2):
        assert torch.equal(torch.cat([r[step].video for r in ranks]), first[step].video)


def test_every_image_is_equally_likely(index):
    source = image_batches(index, ImageConfig(), 1)._source
    counts = np.bincount([source._draw(sample, 0)[0] for sample in range(4000)], minlength=8)
    assert ((counts - 500) ** 2 / 500).sum() < 35  # chi², 7 degrees of freedom


def test_the_cache_gives_the_same_bytes_and_follows_its_files(tmp_path, folder, monkeypatch):
    shutil.copytree(folder, tmp_path / "x")
    index, cache = index_images(tmp_path / "x", progress=False), tmp_path / "cache"
    config = ImageConfig(size=24)
    direct = _take(image_batches(index, config, 4), 4)
    assert all(map(_same, direct, _take(image_batches(index, config, 4, cache=cache), 4)))
    decode = corpus_cache._decode_all
    monkeypatch.setattr(corpus_cache, "_decode_all", None)  # not decoded again
    assert all(map(_same, direct, _take(image_batches(index, config, 4, cache=cache), 4)))
    monkeypatch.setattr(corpus_cache, "_decode_all", decode)
    _picture(12).save(tmp_path / "x" / "a.png")
    changed = index_images(tmp_path / "x", progress=False).decode_to_cache(cache, 24)
    assert changed.read(0, [0])[0, 0, 0, 0] == 240
    assert changed.frames.shape == (8, 24, 24, 3)


@pytest.mark.parametrize("cached", [False, True])
def test_an_image_that_breaks_later_is_drawn_anew_and_reported(tmp_path, folder, cached):
    shutil.copytree(folder, tmp_path / "x")
    index = index_images(tmp_path / "x", progress=False)
    (tmp_path / "x" / "b.jpg").write_bytes(b"")
    cache = tmp_path / "cache" if cached else None
    batches = image_batches(index, ImageConfig(size=16), 8, cache=cache)
    seen = torch.cat([batch.video_ids for batch in _take(batches, 10)])
    assert set(seen.tolist()) == {0, 2, 3, 4, 5, 6, 7}
    assert "1 images failed to decode" in batches.report()
    assert "b.jpg: the file is empty" in batches.report()


def test_i_jepas_crop_keeps_sides_and_colours():
    config = image_crop(16)
    assert (config.scale, config.flip, config.size) == ((0.3, 1.0), 0.0, 16)
    ramp = torch.arange(64, dtype=torch.uint8)[None, None, None, :, None].expand(20, 1, 64, 64, 3)
    crops = augment(ramp, config, torch_generator(0, "crop"))
    assert crops.shape == (20, 1, 16, 16, 3)
    assert (crops[:, :, :, 1:] >= crops[:, :, :, :-1]).all()  # never mirrored


def test_impossible_requests_are_refused(index):
    for wrong in ({"size": 0}, {"max_bad_share": 2.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ImageConfig(**wrong)
    for wrong in ({"batch_size": 0}, {"rank": 2}, {"workers": -1}, {"start_step": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            image_batches(index, ImageConfig(), **({"batch_size": 2, "world_size": 2} | wrong))


def test_errors_name_the_file_and_travel_between_processes(tmp_path):
    import pickle

    with pytest.raises(VideoDecodeError, match=r"none\.png: no such file \[pillow\]") as caught:
        read_image(tmp_path / "none.png")
    assert pickle.loads(pickle.dumps(caught.value)).reason == "no such file"
