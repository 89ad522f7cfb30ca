"""Atomic files, random streams, errors, latents and machine facts."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from tubelet.core import machine
from tubelet.core.errors import ConfigError, TubeletError, VideoDecodeError
from tubelet.core.io import atomic_path, atomic_write_bytes, atomic_write_json, atomic_write_text
from tubelet.core.latent import Latent
from tubelet.core.rng import numpy_generator, stream_seed, torch_generator


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "new" / "x.txt"
    atomic_write_text(target, "old ü")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text(f"half {1 / 0}")
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic_write_json(target, {"loss": float("nan")})
    assert target.read_text(encoding="utf-8") == "old ü"
    atomic_write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert [p.name for p in target.parent.iterdir()] == ["x.txt"]


def test_streams_are_stable_and_distinct():
    assert stream_seed(0, "masks", 3) == stream_seed(0, "masks", 3)
    names = [(), ("a",), ("b",), ("a", 0), ("a", 1)]
    assert len({stream_seed(seed, *name) for seed in range(20) for name in names}) == 100
    assert all(0 <= stream_seed(seed) < 2**63 for seed in range(100))
    first, again = (numpy_generator(7, "x").random(4) for _ in range(2))
    assert np.array_equal(first, again)
    a, b = (torch.rand(4, generator=torch_generator(7, name)) for name in "xy")
    assert not torch.equal(a, b)


def test_errors_are_for_users_and_cross_process_borders():
    error = pickle.loads(pickle.dumps(VideoDecodeError("a.mp4", "truncated", "pyav")))
    assert (error.path, error.reason, error.backend) == ("a.mp4", "truncated", "pyav")
    assert str(error) == "a.mp4: truncated [pyav]"
    assert isinstance(error, TubeletError)
    assert issubclass(ConfigError, ValueError)


def test_latent_map_takes_proprio_along():
    latent = Latent(torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 6))
    first = latent.map(lambda x: x[:, 0])
    assert first.tokens.shape == (2, 4, 5)
    assert first.proprio is not None
    assert first.proprio.shape == (2, 6)
    assert Latent(torch.zeros(1)).map(lambda x: x + 1).proprio is None


def test_machine_facts_fit_in_json_and_name_no_machine():
    facts = json.loads(json.dumps(machine.facts()))
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["cores"] >= 1
    assert machine.version("no-such-package") is None
    assert machine.default_device() in ("cpu", "cuda", "mps")


def test_the_command_names_the_module_and_no_folder(tmp_path):
    code = "import sys; from tubelet.core.machine import command; print(command())"
    package = tmp_path / "shown"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "it.py").write_text(code)
    ran = subprocess.run(
        [sys.executable, "-m", "shown.it", "--out", "a b"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "python -m shown.it --out 'a b'"
    ran = subprocess.run(
        [sys.executable, str(package / "it.py"), "x"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "it.py x"
