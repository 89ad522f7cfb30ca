import numpy as np
import pytest

from tubelet.core.errors import DatasetError
from tubelet.datasets import video_writer
from tubelet.datasets.decode import open_video
from tubelet.datasets.synthetic.moving_shapes import draw_scene, paint
from tubelet.datasets.video_writer import SAME_BYTES, write_video


def _scene(height, width, number=1, frames=16):
    scene = draw_scene(0, number, height=height, width=width)
    return [paint(scene, time) for time in range(frames)]


@pytest.mark.skipif(not SAME_BYTES, reason="another processor than x86-64")
@pytest.mark.parametrize("size", [(32, 32), (48, 48), (50, 82), (64, 64)])
def test_the_bytes_are_those_of_the_encoder_without_assembly(tmp_path, monkeypatch, size):
    for number in range(3):
        frames = _scene(*size, number)
        write_video(tmp_path / "a.mp4", frames, fps=16)
        with monkeypatch.context() as plain:
            plain.setattr(video_writer, "SAME_BYTES", {"x264-params": "no-asm=1"})
            write_video(tmp_path / "b.mp4", frames, fps=16)
        assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_the_same_frames_give_the_same_bytes_whatever_memory_held_before(tmp_path):
    rng, frames, found = np.random.default_rng(0), _scene(48, 48), set()
    for _ in range(20):
        junk = [rng.bytes(int(size)) for size in rng.integers(1000, 400_000, 10)]
        del junk
        write_video(tmp_path / "a.mp4", [frame.copy() for frame in frames], fps=16)
        found.add((tmp_path / "a.mp4").read_bytes())
    assert len(found) == 1


def test_frames_come_at_their_times_with_a_keyframe_every_few(tmp_path):
    frames = _scene(48, 64)
    write_video(tmp_path / "a.mp4", iter(frames), fps=10, crf=5, gop=4)
    with open_video(tmp_path / "a.mp4") as video:
        np.testing.assert_allclose(video.timestamps, np.arange(16) / 10, atol=1e-9)
        assert video.info.keyframes.tolist() == [0, 4, 8, 12]
        assert np.abs(video.get_frames(range(16)).astype(int) - frames).mean() < 6


def test_impossible_frames_leave_no_file(tmp_path):
    even, path = np.zeros((16, 16, 3), np.uint8), tmp_path / "a.mp4"
    for frames, says in (
        ([], "no frames"),
        ([even[:15]], "15x16: the nearest is 16x16"),
        ([even.astype(float)], "uint8"),
        ([even, even[:, :8]], r"frame 1 is uint8 \[16, 8, 3\]"),
    ):
        with pytest.raises(DatasetError, match=says):
            write_video(path, frames, fps=5)
        assert not list(tmp_path.iterdir())
