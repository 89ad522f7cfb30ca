"""``tubelet data``, from generated videos to a packed corpus that trains."""

import json

import pytest

from tubelet.benchmarks.data_speed import available_backends
from tubelet.cli.main import main
from tubelet.datasets.corpus import index_corpus
from tubelet.datasets.synthetic.generated import load_factors


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "shapes"
    size = ["--size", "32", "--frames", "16"]
    assert main(["data", "make", "moving-shapes", str(folder), "--count", "5", *size]) == 0
    assert main(["data", "make", "moving-shapes", str(folder), "--count", "6", *size]) == 0
    (folder / "videos" / "bad.mp4").write_text("no video")
    (folder / "videos" / "copy.mp4").write_bytes((folder / "videos" / "000002.mp4").read_bytes())
    return folder


def test_make_adds_to_what_is_there(corpus):
    assert len(load_factors(corpus).paths) == 6


def test_index_says_what_is_bad_and_is_a_source(corpus, tmp_path, capsys):
    out = tmp_path / "corpus.jsonl"
    assert main(["data", "index", str(corpus / "videos"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "6 videos usable, 1 of 7 bad" in said
    assert "1 duplicates left out" in said
    assert "1 × not a readable video" in said
    assert len(index_corpus(out, progress=False)) == 6


def test_stats_writes_a_report(corpus, tmp_path, capsys):
    assert main(["data", "stats", str(corpus), "--out", str(tmp_path), "--pictures", "3"]) == 0
    facts = json.loads((tmp_path / "report.json").read_text())
    assert (facts["videos"], facts["bad"], facts["duplicates"]) == (6, 1, 1)
    assert "report.html" in capsys.readouterr().out


def test_a_packed_corpus_trains(corpus, tmp_path, capsys):
    packed = tmp_path / "packed"
    command = ["data", "pack", str(corpus), str(packed), "--size", "32", "--shard-videos", "3"]
    assert main(command) == 0
    assert "7 videos packed" in capsys.readouterr().out
    assert sorted(p.name for p in packed.glob("*.tar")) == [
        "000000.tar",
        "000001.tar",
        "000002.tar",
    ]
    train = ["pretrain", "--preset", "debug", "--videos", str(packed), "--workers", "1"]
    assert main([*train, "--train.loop.steps", "2", "--out", str(tmp_path / "run")]) == 0


def test_bench_names_the_fastest_backend_and_how_to_choose_it(corpus, capsys):
    size = ["--size", "32", "--clips", "2", "--rounds", "2"]
    assert main(["data", "bench", str(corpus), *size]) == 0
    lines = capsys.readouterr().out.splitlines()
    rates = [float(line.split()[1]) for line in lines if "clips per second" in line]
    assert len(rates) == len(available_backends())
    assert rates == sorted(rates, reverse=True)
    best = lines[0].split()[0]
    assert lines[-1] == f"choose it with: tubelet pretrain --clips.backend {best}"


def test_errors_are_one_line(tmp_path, capsys):
    assert main(["data", "index", str(tmp_path / "nowhere")]) == 2
    assert "no such folder or list file" in capsys.readouterr().err
    assert main(["data", "make", "moving-shapes", str(tmp_path / "x"), "--size", "33"]) == 2
    assert "must be even" in capsys.readouterr().err
