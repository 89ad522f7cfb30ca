"""Two gloo ranks equal one process on the concatenated batch: loss and gradients."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tubelet.core.errors import ConfigError
from tubelet.vjepa.objectives import Latents, Objective, ObjectiveConfig
from tubelet.vjepa.objectives.latents import FIELDS
from tubelet.vjepa.objectives.presets import lejepa
from tubelet.vjepa.objectives.sigreg import Sigreg, SigregConfig
from tubelet.vjepa.objectives.term import Sizes
from tubelet.vjepa.objectives.vicreg import VicregConfig

SEQUENCE = {"std": 16, "cov": 8, "inv": 0, "std_t": 2, "cov_t": 1}
OBJECTIVES = {
    "lejepa": lejepa(slices=32),
    "flat": ObjectiveConfig(sigreg=SigregConfig(slices=32, flat=True, scale="1")),
    "vicreg": ObjectiveConfig(vicreg=VicregConfig()),
    "pooled": ObjectiveConfig(vicreg=VicregConfig(flat=True, cov_norm="pairs")),
    "pldm": ObjectiveConfig(vicreg=VicregConfig(on="sequence", **SEQUENCE)),
    "batch": ObjectiveConfig(vicreg=VicregConfig(on="sequence", std=1, cov=1, inv=0)),
}
# the batch statistics are exact however the batch is split; means of samples need equal parts
SPLITS = {"even": (0, 6, 12), "uneven": (0, 4, 12)}


def everything(split, rank):
    """Per objective: the loss and the gradient of a shared encoder, on a rank's part (or all)."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 12, 5, generator=generator, dtype=torch.float64)
    first, last = (0, 12) if rank is None else SPLITS[split][rank : rank + 2]
    out = {}
    for name, config in OBJECTIVES.items():
        torch.manual_seed(1)
        encoder = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6)).double()
        objective = Objective(config, FIELDS)
        views = encoder(inputs[:, first:last])
        known = Latents(views=views, global_views=2, sequence=views.transpose(0, 1), step=4)
        loss = objective(known)["loss"]
        gradients = torch.autograd.grad(loss, list(encoder.parameters()))
        out[name] = [loss.item(), *torch.cat([g.flatten() for g in gradients]).tolist()]
    return out


def work(rank, store):
    """What a rank's process does; prints its results."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    out = {split: everything(split, rank) for split in SPLITS}
    single = replace(OBJECTIVES["lejepa"], views=None)
    one = Latents(views=torch.randn(2, 1, 4), global_views=1)  # two samples in all: not refused
    out["pair"] = Objective(single, FIELDS)(one)["loss"].item()
    print(json.dumps(out))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    store = tmp_path_factory.mktemp("ranks") / "store"
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(store)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    found = [process.communicate(timeout=200) for process in processes]
    assert all(process.returncode == 0 for process in processes), [err for _, err in found]
    return [json.loads(out) for out, _ in found]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_ranks_equal_one_process(ranks, name):
    """The mean over ranks of losses and gradients, which is what DistributedDataParallel uses."""
    whole = torch.tensor(everything("even", None)[name], dtype=torch.float64)
    parts = torch.tensor([rank["even"][name] for rank in ranks], dtype=torch.float64)
    assert torch.allclose(parts.mean(0), whole, rtol=1e-9, atol=1e-12)
    assert whole[1:].abs().max() > 1e-4


@pytest.mark.parametrize("name", ["flat", "batch"])
def test_batch_statistics_are_exact_for_uneven_parts(ranks, name):
    whole = torch.tensor(everything("even", None)[name], dtype=torch.float64)
    parts = torch.tensor([rank["uneven"][name] for rank in ranks], dtype=torch.float64)
    assert torch.allclose(parts[0, 0], whole[0], rtol=1e-9)
    assert torch.allclose(parts[1, 0], whole[0], rtol=1e-9)
    assert torch.allclose(parts.mean(0), whole, rtol=1e-9, atol=1e-12)


def test_one_sample_per_rank_is_a_batch_of_two(ranks):
    assert all(rank["pair"] > 0 for rank in ranks)
    with pytest.raises(ConfigError, match="batch of 1"):
        Sigreg(SigregConfig(), Sizes())(Latents(views=torch.randn(2, 1, 4)))


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2])
