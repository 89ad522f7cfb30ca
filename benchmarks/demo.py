"""The main job from nothing: collect, pretrain, train two world models, plan, report.

    data ──► V-JEPA pretraining on the video files ──► frozen encoder + predictor ──┐
      └────► end to end from pixels ────────────────────────────────────────────────┴─► plan, report

The two recipes are independent, so each runs in a process of its own with half the cores (torch
loses more on small models by sharing two cores between threads than by splitting them). Every
stage resumes: the same command again goes on where a stopped demo was.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import machine
from ..core.errors import ConfigError, TubeletError
from ..core.io import atomic_write_text
from ..core.rng import numpy_generator
from ..datasets.corpus import index_corpus
from ..datasets.trajectories import TrajectorySet
from ..datasets.windows import FramePairs
from ..envs import make
from ..envs.collect import CollectConfig, collect
from ..vjepa import presets, recipes, world_presets
from ..vjepa.encoder import TubeletEncoder
from . import suite
from .landscape import latent_landscape
from .probes import ProbeResult, pca_features, ridge_probe
from .results import Table, save_result
from .tables import print_leaderboard

ENV = "tubelet/Reacher-v0"
RECIPES = {"vjepa": "V-JEPA frozen + predictor", "end-to-end": "end to end (SIGReg)"}
HELD_OUT = 0.1  # share of the episodes that no model is trained on
EPISODE_SEED = 1000  # of the goals; planner settings were chosen on goals of seed 1
PROBE_ROWS, ONLINE_PROBE_ROWS = 5000, 1500  # observations of held-out episodes
PROBE_WIDTHS = (256, 1024)
ANGLES = ("cos upper arm", "sin upper arm", "cos forearm", "sin forearm")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Sizes of the demo."""

    out: str = "runs/demo"
    """Run folder; everything is below it. Run again to go on with a stopped demo."""
    episodes: int = 600
    """Episodes collected."""
    steps: int = 100
    """Environment steps per episode."""
    pretrain_steps: int = 400
    """V-JEPA steps."""
    vjepa_steps: int = 1200
    """Dynamics steps on the frozen encoder."""
    end_to_end_steps: int = 1000
    """Steps of the end-to-end recipe."""
    seeds: int = 1
    """Trainings of each recipe."""
    problems: int = 100
    """Goals per table."""
    budget: int = 50
    """Environment steps per goal."""
    cores: int = 0
    """Cores to use; 0 is all. Two recipes train side by side on half of them each."""

    def __post_init__(self) -> None:
        for name, least in {"episodes": 50, "steps": 40, "seeds": 1, "problems": 1}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least {least}")
        if self.budget < 1:
            raise ConfigError(f"budget = {self.budget}: must be at least 1")


def run_demo(config: DemoConfig) -> Path:
    """Run or go on with the demo; returns the path of the HTML report.

    Raises:
        TubeletError: a stage failed (its log is named), no OpenGL, a full disk.
    """
    from .results import load_results
    from .run_report import boards, build_report

    out = Path(config.out)
    started = time.perf_counter()
    collect(
        CollectConfig(
            env=ENV,
            out=str(out / "data"),
            episodes=config.episodes,
            steps=config.steps,
            workers=config.cores,
        )
    )
    data = TrajectorySet.open(out / "data")
    data.cache()  # decoded once here, read by both recipes
    for kind in ("far", "near"):
        _episodes(config, kind)
    _say("train both recipes, side by side", started)
    _side_by_side(config, {"vjepa": _train_vjepa, "end-to-end": _train_end_to_end}, started)
    _say("reach goals", started)
    _side_by_side(config, {"plan-far": _plan_far, "plan-near": _plan_near}, started)
    _prediction_table(config)
    page = out / "report.html"
    build_report(out, title="tubelet demo: image goals by planning in latent space").write(page)
    for board in boards(load_results(out), None):
        print_leaderboard(board)
    _say("done", started)
    return page


# --- stages, each in a process of its own -----------------------------------------------------


def _training_videos(config: DemoConfig) -> Path:
    """A list file of the videos that models may learn from: all but the held-out episodes'."""
    data = TrajectorySet.open(Path(config.out) / "data")
    kept, _ = recipes.split_episodes(data.num_episodes, HELD_OUT)
    path = Path(config.out) / "training-videos.txt"
    names = [str(data.video_path(episode).resolve()) for episode in kept]
    atomic_write_text(path, "\n".join(names) + "\n")
    return path


def _train_vjepa(config: DemoConfig) -> None:
    for seed in range(config.seeds):
        encoder_run = _folder(config, "pretrain", seed)
        base = presets.nano()
        loop = replace(
            base.loop, steps=config.pretrain_steps, report_every=max(1, config.pretrain_steps // 5)
        )
        settings = recipes.PretrainRunConfig(
            videos=str(_training_videos(config)),
            out=str(encoder_run),
            resume=True,
            clips=presets.clips("nano"),
            train=replace(base, loop=loop, seed=seed),
            augment=False,
            pixel_stats="corpus",
            cache=True,
            threads=torch.get_num_threads(),
            device="cpu",
        )
        probe_set = _probe_set(config, ONLINE_PROBE_ROWS)
        recipes.pretrain_encoder(settings, probe=lambda enc, p=probe_set: _online_probe(enc, p))
        encoder = recipes.load_encoder(encoder_run)
        train = world_presets.vjepa_vector(encoder.config)
        _train(config, "vjepa", seed, train, config.vjepa_steps, encoder=str(encoder_run))
        _probe_results(config, seed)


def _train_end_to_end(config: DemoConfig) -> None:
    index = index_corpus(_training_videos(config), progress=False)
    mean, std = recipes.pixel_stats(index)
    encoder = replace(world_presets.end_to_end_encoder(), pixel_mean=mean, pixel_std=std)
    for seed in range(config.seeds):
        train = world_presets.end_to_end(encoder)
        _train(config, "end-to-end", seed, train, config.end_to_end_steps)


def _train(config: DemoConfig, name: str, seed: int, train: Any, steps: int, **kw: Any) -> None:
    loop = replace(train.loop, steps=steps, report_every=max(1, steps // 4))
    recipes.train_on_trajectories(
        recipes.TrainConfig(
            data=str(Path(config.out) / "data"),
            out=str(_folder(config, name, seed)),
            resume=True,
            train=replace(train, loop=loop, seed=seed),
            held_out=HELD_OUT,
            threads=torch.get_num_threads(),
            device="cpu",
            **kw,
        )
    )


def _plan_far(config: DemoConfig) -> None:
    _plan(config, "far")


def _plan_near(config: DemoConfig) -> None:
    _plan(config, "near")
    _landscape(config, recipes.load_world_model(_folder(config, "vjepa", 0)))


def _plan(config: DemoConfig, kind: suite.Kind) -> None:
    """Every trained model, the ceiling and every floor on one set of goals."""
    methods = [
        suite.model_method(
            label, recipes.load_world_model(_folder(config, recipe, seed)), seed=seed
        )
        for recipe, label in RECIPES.items()
        for seed in range(config.seeds)
    ]
    model = recipes.load_world_model(_folder(config, "end-to-end", 0))
    block, threads = model.config.action_block, torch.get_num_threads()
    methods.append(suite.oracle_method(ENV, action_block=block, threads=threads))
    methods += suite.standard_floors(
        budget=config.budget,
        action_dim=model.config.action_dim,
        trajectories=TrajectorySet.open(Path(config.out) / "data"),
        untrained=model,
    )
    suite.run_goal_reaching(config.out, methods, _episodes(config, kind), films=3)


# --- what the report shows beside success -----------------------------------------------------


@dataclass(frozen=True)
class _ProbeSet:
    """Observations uint8 ``[M, 2, H, W, 3]`` of held-out episodes and their link angles."""

    frames: Tensor
    targets: np.ndarray
    episodes: np.ndarray


def _probe_set(config: DemoConfig, count: int) -> _ProbeSet:
    data = TrajectorySet.open(Path(config.out) / "data")
    _, held = recipes.split_episodes(data.num_episodes, HELD_OUT)
    rng = numpy_generator(0, "probe")
    episode = np.sort(rng.choice(np.asarray(held), count))
    step = rng.integers(0, data.lengths[episode])
    env = make(ENV, render_obs=False)
    states = data.arrays()["state"][data.offsets[episode] + step]
    cache = data.cache()
    gap = presets.clips("nano").frame_step or 1
    observe = FramePairs(cache.frames, cache.offsets, count=2, gap=gap)
    targets = np.stack([env.features(state) for state in states])
    return _ProbeSet(observe(episode, step[:, None])[:, 0], targets, episode)


def _features(encoder: TubeletEncoder, frames: Tensor) -> np.ndarray:
    """Flattened tokens of each observation ``[M, N * D]``."""
    with torch.inference_mode():
        return torch.cat([encoder(part) for part in frames.split(256)]).flatten(1).float().numpy()


def _probe(features: np.ndarray, p: _ProbeSet, name: str) -> ProbeResult:
    return ridge_probe(features, p.targets, p.episodes, name=name, target_names=ANGLES)


def _online_probe(encoder: TubeletEncoder, p: _ProbeSet) -> dict[str, float]:
    result = _probe(_features(encoder, p.frames), p, "online")
    return {f"probe/{name}": estimate.value for name, estimate in result.targets.items()}


def _probe_results(config: DemoConfig, seed: int) -> None:
    """Linear decodability of the pose: trained, random and pixel-PCA features at equal widths."""
    p = _probe_set(config, PROBE_ROWS)
    trained = recipes.load_encoder(_folder(config, "pretrain", seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = TubeletEncoder(trained.config).eval()
    for name, encoder in (("trained V-JEPA", trained), ("random encoder", untrained)):
        tokens = _features(encoder, p.frames)
        for width in PROBE_WIDTHS:
            label = f"{name}, {width} components, seed {seed}"
            save_result(config.out, _probe(pca_features(tokens, width, fit_limit=3000), p, label))
    if seed == 0:
        pixels = p.frames.numpy()
        for width in PROBE_WIDTHS:
            label = f"pixel PCA, {width} components"
            save_result(config.out, _probe(pca_features(pixels, width, fit_limit=3000), p, label))


def _prediction_table(config: DemoConfig) -> None:
    rows = []
    for recipe, label in RECIPES.items():
        for seed in range(config.seeds):
            report = json.loads((_folder(config, recipe, seed) / "prediction.json").read_text())
            keys = ("over_copy", "over_copy_1", "over_copy_H", "shuffled", "latent_rank")
            rows.append([label, seed, *(round(report[key], 4) for key in keys), report["windows"]])
    table = Table(
        title="Prediction on held-out episodes",
        columns=(
            "recipe",
            "seed",
            "error / copy",
            "first step",
            "last step",
            "shuffled actions / true",
            "effective rank",
            "windows",
        ),
        rows=rows,
        note="Squared rollout error over that of copying the first latent (under 1 beats copying), "
        "and the error with another window's actions over that with the true ones (over 1: actions "
        "matter).",
    )
    save_result(config.out, table, name="prediction")


def _landscape(config: DemoConfig, model: Any) -> None:
    env = make(ENV, render_obs=False)
    goal = _episodes(config, "far").goal_states[0]
    cost = suite.COST
    x, y = np.linspace(-np.pi, np.pi, 33), np.linspace(-2.7, 2.7, 29)
    label = f"{RECIPES['vjepa']}: latent cost of resting poses"
    save_result(config.out, latent_landscape(model, cost, env, goal, name=label, x=x, y=y))


# --- processes --------------------------------------------------------------------------------


def _side_by_side(
    config: DemoConfig, stages: dict[str, Callable[[DemoConfig], None]], started: float
) -> None:
    """Run the stages in one process each; say now and then how far they are.

    Raises:
        TubeletError: a stage failed: its message, or the name of its log.
    """
    context = multiprocessing.get_context("spawn")
    cores = config.cores or machine.cores()
    threads = max(1, cores // len(stages))
    logs = {name: Path(config.out) / f"{name}.log" for name in stages}
    workers = {
        name: context.Process(target=_stage, args=(stage, config, logs[name], threads), name=name)
        for name, stage in stages.items()
    }
    for worker in workers.values():
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers.values()):
            for worker in workers.values():
                worker.join(timeout=10)
            for name, worker in workers.items():
                if worker.is_alive():
                    _say(f"{name}: {_last_line(logs[name])}", started)
            if any(worker.exitcode for worker in workers.values()):
                break
    finally:
        for worker in workers.values():
            if worker.is_alive():
                worker.terminate()
            worker.join()
    for name, worker in workers.items():
        if worker.exitcode and worker.exitcode > 0:
            raise TubeletError(f"{name} failed: {_last_line(logs[name])} (log: {logs[name]})")
    for name, worker in workers.items():
        if worker.exitcode:
            raise TubeletError(f"{name} was killed ({worker.exitcode}); log: {logs[name]}")


def _stage(
    stage: Callable[[DemoConfig], None], config: DemoConfig, log: Path, threads: int
) -> None:
    """The body of a stage's process: its output goes to its log."""
    torch.set_num_threads(threads)
    with open(log, "a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        try:
            stage(config)
        except TubeletError as error:
            print(error, flush=True)
            sys.exit(2)
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.exit(1)


def _last_line(path: Path) -> str:
    if not path.exists():
        return "starting"
    lines = path.read_text(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "starting")


def _say(text: str, started: float) -> None:
    minutes, seconds = divmod(int(time.perf_counter() - started), 60)
    print(f"[{minutes:2d}:{seconds:02d}] {text}", flush=True)


def _folder(config: DemoConfig, name: str, seed: int) -> Path:
    return Path(config.out) / f"{name}-{seed}"


def _episodes(config: DemoConfig, kind: suite.Kind) -> suite.EpisodeSet:
    path = Path(config.out) / f"{kind}.npz"
    return suite.episode_set(
        path, ENV, kind, config.problems, seed=EPISODE_SEED, budget=config.budget
    )
