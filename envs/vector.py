"""Many environments stepped at once in a few processes, frames passed through shared memory.

What comes out does not depend on the number of processes. A process that crashes, hangs or raises
is replaced, and its environments are brought back to where they were by redoing their episodes:
they are deterministic, so nothing of it shows but a line in ``faults``.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import (
    batch_space,
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)

from ..core.errors import ConfigError
from ..core.rng import stream_seed
from . import make
from .workers import Fault, Worker, WorkerError

MakeEnv = Callable[[], "gymnasium.Env[Any, Any]"]


class ParallelEnvs(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """``count`` copies of an environment, spread over ``workers`` processes.

    Observations, rewards and flags are stacked; ``info`` is ``{"each": [dict, …]}``, one per
    environment. Nothing resets by itself: ``reset`` starts all anew, or those whose entry in
    ``options["reset_mask"]`` (bool ``[count]``) is true.

    Args:
        env: an id of ``ENVIRONMENTS`` (with ``options`` for :func:`tubelet.envs.make`), or any
            picklable function that makes a Gymnasium environment.
        workers: processes; no more than ``count`` are started.
        seconds: a process may take for one step or reset of its environments.
        retries: how often in a row one process may fail at the same point.

    Attributes:
        faults: every failure so far.

    Raises:
        ConfigError: impossible counts, or an unknown environment.
        WorkerError: (by ``reset`` and ``step``) the same point failed too often.
    """

    def __init__(
        self,
        env: str | MakeEnv,
        count: int,
        *,
        workers: int = 2,
        seconds: float = 60.0,
        retries: int = 2,
        **options: Any,
    ):
        if count < 1 or workers < 1 or retries < 0 or not seconds > 0:
            raise ConfigError(
                f"count = {count}, workers = {workers}, retries = {retries}, seconds = {seconds}: "
                "counts must be at least 1, retries at least 0, seconds above 0"
            )
        make_env = functools.partial(make, env, **options) if isinstance(env, str) else env
        template = make_env()
        self.num_envs, self.metadata = count, dict(template.metadata)
        self.metadata["autoreset_mode"] = gymnasium.vector.AutoresetMode.DISABLED
        self.single_observation_space = template.observation_space
        self.single_action_space = template.action_space
        self.observation_space = batch_space(template.observation_space, count)
        self.action_space = batch_space(template.action_space, count)
        self.faults: list[Fault] = []
        self._seconds, self._retries = seconds, retries
        self._seed, self._resets = 0, [0] * count
        self._logs: list[list[tuple[str, Any]]] = [[] for _ in range(count)]
        groups = np.array_split(np.arange(count), min(workers, count))
        self._groups = [group.tolist() for group in groups]
        context: Any = multiprocessing.get_context("spawn")
        self._memory = [
            create_shared_memory(template.observation_space, n=len(group), ctx=context)
            for group in self._groups
        ]
        self._workers = [
            Worker(
                f"worker {number} (environments {group[0]} to {group[-1]})",
                functools.partial(_EnvGroup, make_env, len(group), memory),
            )
            for number, (group, memory) in enumerate(zip(self._groups, self._memory, strict=True))
        ]
        template.close()

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes.

        Args:
            seed: one per environment, or one whose streams they share out; None goes on with the
                streams of the last seed (0 at first).
            options: for every environment's own ``reset``; ``reset_mask`` picks the environments,
                and ``each`` is a list of one dict of options per environment instead of one for
                all.
        """
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, bool)), bool)
        each = options.pop("each", [options] * self.num_envs)
        if isinstance(seed, int | np.integer):
            self._seed, self._resets = int(seed), [0] * self.num_envs
        for i in np.flatnonzero(mask).tolist():
            own = None if seed is None or isinstance(seed, int | np.integer) else int(seed[i])
            if own is None:
                own = stream_seed(self._seed, "vector", i, self._resets[i]) % 2**32
            self._resets[i] += 1
            self._logs[i] = [("reset", (own, each[i] or None))]
        answers = self._ask({i: [self._logs[i][0]] for i in np.flatnonzero(mask).tolist()})
        infos = [answers[i][-1] if i in answers else {} for i in range(self.num_envs)]
        return self._observations(), {"each": infos}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of every environment with ``actions`` ``[count, …]``."""
        if any(not log for log in self._logs):
            raise ConfigError("step was called before reset")
        actions = np.array(actions)
        for log, action in zip(self._logs, actions, strict=True):
            log.append(("step", action))
        answers = self._ask({i: [log[-1]] for i, log in enumerate(self._logs)})
        reward, terminated, truncated, infos = zip(
            *(answers[i] for i in range(self.num_envs)), strict=True
        )
        return (
            self._observations(),
            np.array(reward, np.float64),
            np.array(terminated, bool),
            np.array(truncated, bool),
            {"each": list(infos)},
        )

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.pid for worker in self._workers]

    def close_extras(self, **kwargs: Any) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()

    def _ask(self, commands: dict[int, list[tuple[str, Any]]]) -> dict[int, Any]:
        """Send each environment its commands and return its answer to the last of them."""
        requests = []
        for group, worker in zip(self._groups, self._workers, strict=True):
            request = {k: commands[i] for k, i in enumerate(group) if i in commands}
            requests.append(request)
            if request:
                worker.send(request, self._seconds)
        answers: dict[int, Any] = {}
        for number, request in enumerate(requests):
            if request:
                value = self._answer(number, request)
                answers |= {self._groups[number][k]: answer for k, answer in value.items()}
        return answers

    def _answer(self, number: int, request: dict[int, Any]) -> dict[int, Any]:
        """The answer of one process; if it fails, that of a new one that redid its episodes."""
        worker, group = self._workers[number], self._groups[number]
        value, reason = worker.receive()
        failures = 0
        while reason is not None:
            failures += 1
            step = max(len(self._logs[i]) for i in group) - 1
            self.faults.append(Fault(worker=worker.name, request=f"step {step}", reason=reason))
            if failures > self._retries:
                self.close()
                raise WorkerError(f"step {step} failed {failures} times: {self.faults[-1]}")
            worker.restart()
            episodes = {k: self._logs[i] for k, i in enumerate(group) if self._logs[i]}
            worker.send(episodes, self._seconds * max(len(log) for log in episodes.values()))
            value, reason = worker.receive()
        return {k: answer for k, answer in value.items() if k in request}

    def _observations(self) -> Any:
        """A copy of what lies in the processes' memory, stacked in the order of environments."""
        space = self.single_observation_space
        parts: list[Any] = [
            read_from_shared_memory(space, memory, n=len(group))
            for group, memory in zip(self._groups, self._memory, strict=True)
        ]
        if isinstance(parts[0], dict):
            return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        return np.concatenate(parts)


class _EnvGroup:
    """The environments of one process."""

    def __init__(self, make_env: MakeEnv, count: int, memory: Any):
        self._envs = [make_env() for _ in range(count)]
        self._memory = memory

    def __call__(self, request: dict[int, list[tuple[str, Any]]]) -> dict[int, Any]:
        return {k: self._run(k, commands) for k, commands in request.items()}

    def _run(self, k: int, commands: list[tuple[str, Any]]) -> Any:
        """Carry out one environment's commands; the answer to the last."""
        env, answer = self._envs[k], None
        for kind, value in commands:
            if kind == "reset":
                observation, info = env.reset(seed=value[0], options=value[1])
                answer = (info,)
            else:
                observation, *answer = env.step(value)
            write_to_shared_memory(env.observation_space, k, observation, self._memory)
        return answer
