"""The ``tubelet`` command: finds the verb, builds its config, runs it, and words its errors.

Each verb is a module beside this one with a frozen dataclass ``Config`` (its fields become flags,
their docstrings the help) and ``run(config) -> int``. Only the chosen verb's module is imported.
Flags win over ``--config file.toml``, which wins over the defaults. A module may have ``PRESETS``,
name -> a function that makes a ``Config``: ``--preset name`` then takes the place of the defaults.
Presets may be of further classes with other flags; ``config_class(path)`` then tells a file's.

Exit codes: what ``run`` returns; 2 for a user error (one line on stderr); 130 for Ctrl-C.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..core.config import did_you_mean, load_config
from ..core.errors import ConfigError, Stopped, TubeletError

VERBS = {
    "demo": "everything below in one go: from no data to a report with success rates",
    "data": "index, look at, pack, measure and generate corpora of videos",
    "collect": "record interaction episodes in a MuJoCo environment as video and trajectories",
    "pretrain": "train an encoder on videos or images without labels (V-JEPA, LeJEPA, …)",
    "train": "train an action-conditioned world model on collected trajectories",
    "amortise": "add a head that proposes actions to a trained world model",
    "plan": "reach image goals with a world model and a planner, and measure success",
    "bench": "run a suite: environments x models x planners x seeds, one table of results",
    "evaluate": "judge a frozen encoder by probes on labelled clips, beside floors",
    "voe": "videos that violate physics: generate, check, score, and what a model is surprised by",
    "convert": "checkpoints from and to Meta's, Hugging Face's and tubelet's formats",
    "convert-config": "Meta's training YAMLs as configs of `tubelet pretrain`",
    "report": "turn results into one HTML page with tables, plots and videos",
    "doctor": "check Python, torch, rendering, video decoding and disk, with a fix for each fault",
}

USAGE = """\
usage: tubelet <verb> [flags]        tubelet <verb> --help lists a verb's flags

{verbs}

flags of every verb:
  --config FILE.toml    read the config from a file (every run folder has one); flags win over it
  --preset NAME         start from a named config (pretrain, train); flags win over it
  --debug               show the traceback of an error
  --version             print the version
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    verb = args[0] if args else "--help"
    if verb in ("-h", "--help", "help"):
        width = max(map(len, VERBS))
        print(USAGE.format(verbs="\n".join(f"  {v:<{width}}  {VERBS[v]}" for v in VERBS)), end="")
        return 0
    if verb == "--version":
        from ..core.machine import version

        print(f"tubelet {version('tubelet')}")
        return 0
    name = f"tubelet {verb}" if verb in VERBS else "tubelet"
    try:
        return _run(verb, args[1:])
    except KeyboardInterrupt:
        if debug:
            raise
        return _fail(name, "stopped by Ctrl-C", code=130)
    except BrokenPipeError:  # the reader of our output went away (``| head``)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Stopped as stop:  # as asked, and everything is saved
        return _fail(name, str(stop), code=0)
    except (TubeletError, OSError) as error:
        if debug:
            raise
        return _fail(name, _describe(error))


def _run(verb: str, args: list[str]) -> int:
    if verb not in VERBS:
        known = ", ".join(VERBS)
        raise ConfigError(f"unknown verb {verb!r}{did_you_mean(verb, VERBS)} (verbs: {known})")
    module = importlib.import_module(f".{verb.replace('-', '_')}", __package__)
    presets = getattr(module, "PRESETS", {})
    config_class = getattr(module, "config_class", None)
    return module.run(parse(module.Config, args, verb, presets, config_class))


def parse(
    cls: type[Any],
    args: list[str],
    verb: str,
    presets: Mapping[str, Callable[[], Any]] = MappingProxyType({}),
    config_class: Callable[[str], type[Any]] | None = None,
) -> Any:
    """Build the config ``cls`` from flags, on top of ``--config FILE`` or ``--preset NAME``.

    A preset may be of another class than ``cls``, whose flags then are the verb's; of a file,
    ``config_class`` says of which it is.

    Raises :class:`ConfigError` for a bad file or an impossible value; ill-formed flags print
    tyro's explanation and raise ``SystemExit(2)``, ``--help`` raises ``SystemExit(0)``.
    """
    import tyro

    path, args = _take_flag("--config", args, "a file: --config runs/x/config.toml")
    preset, args = _take_flag("--preset", args, "a name") if presets else (None, args)
    if path is not None and preset is not None:
        raise ConfigError("--config and --preset both set everything: give one of them")
    default: Any = tyro.MISSING_NONPROP
    if path is not None:
        cls = config_class(path) if config_class else cls
        default = load_config(cls, path)
    if preset is not None:
        if preset not in presets:
            hint = did_you_mean(preset, presets)
            raise ConfigError(f"unknown preset {preset!r}{hint} (presets: {', '.join(presets)})")
        default = presets[preset]()
        cls = type(default)
    also = f"--preset NAME starts from one of {', '.join(presets)}; " if presets else ""
    return tyro.cli(
        cls,
        args=args,
        default=default,
        prog=f"tubelet {verb}",
        description=f"{(cls.__doc__ or VERBS[verb]).strip()}\n\n"
        f"Also: {also}--config FILE.toml reads the config from a file, --debug shows tracebacks.",
        config=(tyro.conf.AvoidSubcommands,),
    )


def _take_flag(flag: str, args: list[str], needs: str) -> tuple[str | None, list[str]]:
    """Split ``flag VALUE`` or ``flag=VALUE`` off ``args``."""
    value, rest, words = None, [], iter(args)
    for word in words:
        if word == flag:
            value = next(words, None)
            if value is None:
                raise ConfigError(f"{flag} needs {needs}")
        elif word.startswith(f"{flag}="):
            value = word.removeprefix(f"{flag}=")
        else:
            rest.append(word)
    return value, rest


def _describe(error: TubeletError | OSError) -> str:
    if isinstance(error, TubeletError):
        return str(error)
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}"


def _fail(name: str, message: str, code: int = 2) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
