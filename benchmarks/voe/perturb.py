"""Violation of expectation for world models of environments: the change comes in the simulator.

An episode is played several times under the same logged actions: as it is, with a change in its
middle, with the same change from its first frame on, and with all of the code of the change at size
0. A pair is the changed episode with the one as it is (match "prefix": equal before), or with the
one that was always so (match "suffix": it looks the same afterwards). The third is the null
control: it equals the first to the bit, so that every scorer must be at one half.

The world model's surprise is its open-loop error under the logged actions (:mod:`.dynamics`).

RUN/episodes/0000.json   what happened in each playing; actions in 0000.npy
    videos/<digest>.npy  uint8 [T + 1, H, W, 3], each distinct video once
    and what every scoring run keeps (:mod:`.store`)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import ConfigError, DatasetError
from ...core.io import atomic_path, atomic_write_json
from ...core.progress import progress
from ...core.rng import numpy_generator
from ...core.run import RunDir
from ...datasets.voe.frames import NpyFrames
from ...datasets.voe.record import Match, Pair, Refused, VoeSet, VoeVideo
from ...envs import FOREIGN, make
from ...envs.base import GoalEnv
from ...envs.perturb import KINDS, Played, draw_change, play, record
from ...envs.policies import PolicyMix
from ...vjepa.world_model import WorldModel
from ..origin import trained_env, training_data
from ..results import Table, save_result
from .dynamics import DynamicsScorer, StepConfig
from .models import Candidate, load_candidate
from .perturb_tables import auroc_table, pair_table
from .pixels import PixelBaselines
from .settings import PerturbConfig
from .store import grouped, has_losses, open_run, readable, write_losses
from .windows import WindowConfig

CONDITIONS = {"visible": "visible jump", "physical": "physical only"}
_TWINS: dict[str, Match] = {"plain": "prefix", "always": "suffix"}


def perturb(config: PerturbConfig) -> list[Table]:
    """Play, score and judge; the tables are in the run folder too.

    Raises:
        ConfigError: no model, no environment, or one without a simulator. CheckpointError: as the
        loader does. DatasetError: no episode could be played.
    """
    from ...vjepa.device import MAY_DIFFER, prepare

    if not config.model:
        raise ConfigError('model = "": name a run folder of `tubelet train`')
    device = prepare(config.device, config.threads)
    candidate = load_candidate(
        config.model,
        kind="world",
        actions="logged",
        horizon=config.horizon,
        distance=config.distance,
        device=device,
    )
    scorer = candidate.scorer
    if not isinstance(scorer, DynamicsScorer) or not isinstance(scorer.dynamics, WorldModel):
        raise ConfigError(f"model = {config.model!r} is no run of `tubelet train`")
    size = scorer.dynamics.config.image_size
    may_differ = (*MAY_DIFFER, "reading", "batch", "untrained")
    env, mix = _environment(config, size)
    with RunDir.create(config.out, config, resume=config.resume, may_differ=may_differ) as run:
        played = [
            _episode(config, env, mix, number, run.path)
            for number in progress(range(config.episodes), "play episodes")
        ]
        voe = perturbed_set(played, run.path)
        return score_episodes(voe, candidate, windows_of(scorer.steps), config, run.path)


def windows_of(steps: StepConfig) -> WindowConfig:
    """A window per frame: the frames of an observation, then those of the imagined steps."""
    window = steps.reach + steps.block * steps.horizon
    return WindowConfig(window=window, contexts=(steps.reach,), stride=1, skip=1)


def score_episodes(
    voe: VoeSet, candidate: Candidate, windows: WindowConfig, config: PerturbConfig, path: Path
) -> list[Table]:
    """Losses of the model and its baselines that are not there yet, and the tables of all."""
    voe = readable(voe, PixelBaselines(), windows, path, config.batch)
    print(voe.report())
    if not has_losses(path, candidate.scorer.names[0]):
        write_losses(voe, candidate.scorer, windows, path, config.batch, role="model")
    for seed in progress(range(config.untrained), "untrained"):
        fresh = candidate.fresh(seed)
        if not has_losses(path, fresh.names[0]):
            write_losses(voe, fresh, windows, path, config.batch, role="untrained")
    run, tables = open_run(path), {}
    for match, name in (("prefix", "accuracy"), ("suffix", "suffix")):
        reading = replace(config.reading, match=match, context=windows.contexts[0])
        tables[name] = pair_table(run, reading)
        if match == "prefix":
            tables["auroc"] = auroc_table(run, reading)
    for name, table in tables.items():
        save_result(path, table, name=f"perturb-{name}")
    return list(tables.values())


def perturbed_set(played: list[dict[str, Any]], path: Path) -> VoeSet:
    """The videos and pairs of played episodes. Groups are episodes: pairs of one depend on each
    other, whatever the change; null pairs are in groups of their own.

    Raises:
        DatasetError: a file is damaged, or there is nothing.
    """
    videos: list[VoeVideo] = []
    pairs: list[Pair] = []
    refused: list[Refused] = []
    for facts in played:
        number = f"{facts['episode']:04d}"
        actions = np.load(path / "episodes" / f"{number}.npy", allow_pickle=False)
        refused += [Refused(what=f"{k} in episode {number}", reason=r) for k, r in facts["refused"]]
        for change in facts["changes"]:
            kind = change["kind"]
            made = partial(
                VoeVideo,
                principle=kind,
                condition=CONDITIONS[KINDS[kind]],
                t_event=change["step"],
                actions=actions,
            )
            for role, digest in change["videos"].items():
                null = role in ("null", "null plain")
                video = made(
                    name=f"{number}-{kind}-{role.replace(' ', '-')}",
                    group=f"{number}-null" if null else number,
                    frames=NpyFrames.of(path / "videos" / f"{digest}.npy"),
                    possible=role not in ("changed", "null"),
                    kind="null" if null else "probe",
                    t_observable=None if role == "null" else change["seen"],
                )
                videos.append(video)
            name = f"{number}-{kind}"
            pairs += [
                Pair(
                    group=number, possible=f"{name}-{p}", impossible=f"{name}-changed", match=match
                )
                for p, match in _TWINS.items()
            ]
            twin = Pair(
                group=f"{number}-null",
                possible=f"{name}-null-plain",
                impossible=f"{name}-null",
                match="prefix",
            )
            pairs.append(twin)
    return VoeSet(
        name="perturbed", videos=grouped(videos), pairs=tuple(pairs), refused=tuple(refused)
    )


def _environment(config: PerturbConfig, size: int) -> tuple[GoalEnv, PolicyMix]:
    """The environment, and how its training data acted where that is known."""
    env_id = config.env or trained_env(config.model)
    data = training_data(config.model)
    facts = {} if data is None else data.metadata
    same = env_id == facts.get("env")
    camera = config.camera or (facts.get("camera", "") if same else "")
    env = make(env_id, image_size=size, **({"camera": camera} if camera else {}))
    if not isinstance(env, GoalEnv):
        raise ConfigError(
            f"env = {env_id!r}: only simulators of MuJoCo can be disturbed, ours or those of "
            f"Gymnasium's ({FOREIGN}HalfCheetah-v5)"
        )
    mix = PolicyMix(**facts["policy"]) if same and "policy" in facts else PolicyMix()
    return env, mix


def _episode(
    config: PerturbConfig, env: GoalEnv, mix: PolicyMix, number: int, path: Path
) -> dict[str, Any]:
    """Play an episode in all ways and keep the videos, unless that was done."""
    file = path / "episodes" / f"{number:04d}.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    rng = numpy_generator(config.seed, "perturb", number)
    state, actions = record(env, config.steps, mix, rng)
    plain = play(env, state, actions)
    third = len(actions) // 3
    step = int(rng.integers(third, 2 * third + 1))
    changes, refused = [], []
    for kind in config.kinds:
        stream = numpy_generator(config.seed, "perturb", number, kind)
        try:
            change = draw_change(
                env, kind, step, plain, stream, size=config.size, thing=config.thing
            )
        except ConfigError as error:
            if kind != "teleport":
                raise
            refused.append((kind, str(error)))
            continue
        ways = {
            "plain": plain,
            "changed": play(env, state, actions, change),
            "always": play(env, state, actions, replace(change, step=0)),
            "null plain": plain,
            "null": play(env, state, actions, replace(change, size=0.0)),
        }
        seen = np.flatnonzero((ways["changed"].pixels != plain.pixels).any((1, 2, 3)))
        changes.append(
            asdict(change)
            | {
                "seen": int(seen[0]) if len(seen) else None,
                "videos": {role: _kept(way, path) for role, way in ways.items()},
            }
        )
    padded = np.concatenate([actions, np.zeros_like(actions[:1])])
    _write_npy(path / "episodes" / f"{number:04d}.npy", padded)
    facts = {"episode": number, "step": step, "changes": changes, "refused": refused}
    atomic_write_json(file, facts)
    return facts


def _kept(played: Played, path: Path) -> str:
    """Write the frames under the name of their digest, once; returns the digest."""
    digest = hashlib.blake2b(played.pixels.tobytes(), digest_size=12).hexdigest()
    file = path / "videos" / f"{digest}.npy"
    if not file.exists():
        _write_npy(file, played.pixels)
    return digest


def _write_npy(file: Path, array: np.ndarray) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary, open(temporary, "wb") as out:
            np.save(out, array)
    except OSError as error:
        raise DatasetError(f"cannot write {file}: {error}") from error
