"""The accelerator script runs where there is none, at toy size."""

import json

import pytest

from tubelet.benchmarks.gpu_family import Config, run


@pytest.mark.filterwarnings("ignore")  # torch says why a backend does not apply
def test_every_job_is_measured_in_every_precision(tmp_path):
    config = Config(out=str(tmp_path), device="cpu", tiny=True, repeats=1, candidates=2)
    report = run(config)
    assert report == json.loads((tmp_path / "gpu_family.json").read_text())
    jobs = [value for value in report.values() if isinstance(value, dict) and "backends" in value]
    assert len(jobs) == 3
    for job in jobs:
        assert job["fp32"]["largest_difference"] < 1e-5
        for name in ("bf16", "fp16"):
            assert 0 < job[name]["mean_difference"] < 0.02 * job[name]["mean_magnitude"] + 0.01
        assert isinstance(job["backends"]["math"], float)
    compiled = report["AC predictor, rollout compiled"]
    assert set(compiled) == {"fp32", "bf16", "fp16"}
    assert compiled["fp32"]["largest_difference"] < 1e-5
