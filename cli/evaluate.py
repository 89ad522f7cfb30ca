"""``tubelet evaluate``: what a probe reads off a frozen encoder, beside floors."""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path

from ..benchmarks.frozen.evaluate import evaluate
from ..benchmarks.frozen.protocol import PROTOCOLS
from ..benchmarks.frozen.settings import EvaluateConfig as Config
from ..benchmarks.modality_probe import ModalityProbeConfig, run_modality_probe
from ..benchmarks.results import Table, save_result
from ..core.errors import ConfigError
from ..core.run import RunDir
from ..vjepa.device import MAY_DIFFER, prepare
from ..vjepa.encoder import TubeletEncoder

PRESETS = {
    **{name: partial(Config, protocol=protocol) for name, protocol in PROTOCOLS.items()},
    "tokens": ModalityProbeConfig,
}


def config_class(path: str) -> type[Config] | type[ModalityProbeConfig]:
    """Whose fields a config file has: only those of point clouds and skeletons hold ``count``."""
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Config  # reading it as such says what is wrong
    return ModalityProbeConfig if "count" in table else Config


def run(config: Config | ModalityProbeConfig) -> int:
    """Evaluate, print the table and write it with its films and features into the run folder."""
    if isinstance(config, ModalityProbeConfig):
        return _tokens(config)
    from ..vjepa.formats.convert import load

    for name in ("encoder", "data"):
        if not getattr(config, name):
            raise ConfigError(f'{name} = "": name {_WANTED[name]}')
    device = prepare(config.device, config.threads)
    checkpoint, _ = load(config.encoder, which=config.which)
    may_differ = (*MAY_DIFFER, "export", "film")
    with RunDir.create(config.out, config, resume=config.resume, may_differ=may_differ) as folder:
        table = evaluate(config, checkpoint, device)
        save_result(folder.path, table, name=f"evaluate-{config.probe}")
        print_table(table)
        if config.film:
            _film(config, checkpoint.encoder)
    print(f"run: {config.out}")
    return 0


_WANTED = {
    "encoder": "a pretraining run, or a checkpoint that tubelet convert reads",
    "data": "a list of 'path label' lines, or a folder with a folder per class",
}


def _tokens(config: ModalityProbeConfig) -> int:
    prepare("cpu", config.threads)
    with RunDir.create(config.out, config, resume=config.resume, may_differ=MAY_DIFFER) as folder:
        table = run_modality_probe(config)
        save_result(folder.path, table, name="evaluate-tokens")
        print_table(table)
    print(f"run: {config.out}")
    return 0


def _film(config: Config, encoder: TubeletEncoder) -> None:
    from ..benchmarks.frozen.pictures import pca_video
    from ..benchmarks.frozen.protocol import read_views

    views = read_views(config.film, config.protocol)
    path = Path(config.out) / "pca.mp4"
    pca_video(path, encoder, views[len(views) // 2, 0])
    print(f"features in colour: {path}")


def print_table(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(title=Text(table.title))
    for number, column in enumerate(table.columns):
        grid.add_column(Text(column), justify="right" if number > 1 else "left")
    for row in table.rows:
        grid.add_row(*(Text(str(cell)) for cell in row))
    console = Console()
    console.print(grid)
    console.print(Text(table.note, style="dim"))
