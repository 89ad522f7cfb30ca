"""Jobs: order, limits, failures, and going on after an interruption."""

import signal
import sys
import time

import pytest

from tubelet.benchmarks.executors import ClusterConfig, _slurm, starter
from tubelet.benchmarks.jobs import Job, LocalProcess, run_jobs
from tubelet.core.errors import ConfigError


def python(code):
    return (sys.executable, "-c", code)


def job(name, code="", needs=(), **options):
    return Job(name=name, command=python(code), needs=needs, **options)


def appends(path, text):
    return f"open({str(path)!r}, 'a').write({text!r})"


def quiet(text):
    pass


def test_needs_come_first_and_nothing_is_done_twice(tmp_path):
    trace = tmp_path / "trace"
    jobs = [
        job("c", appends(trace, "c"), ("a", "b/1")),
        job("a", appends(trace, "a")),
        job("b/1", appends(trace, "b"), ("a",)),
    ]
    outcome = run_jobs(jobs, tmp_path, workers=3, say=quiet)
    assert trace.read_text() == "abc"
    assert outcome.done == ["a", "b/1", "c"]
    again = run_jobs(jobs, tmp_path, workers=3, say=quiet)
    assert trace.read_text() == "abc"
    assert sorted(again.earlier) == ["a", "b/1", "c"]
    changed = [*jobs[:2], job("b/1", appends(trace, "B"), ("a",))]
    assert run_jobs(changed, tmp_path, say=quiet).done == ["b/1"]


def test_a_failure_stops_only_what_needs_it_and_is_tried_again(tmp_path):
    flag = tmp_path / "flag"
    fails = f"import os, sys; print('reason'); sys.exit(0 if os.path.exists({str(flag)!r}) else 3)"
    jobs = [job("bad", fails), job("after", "", ("bad",)), job("last", "", ("after",)), job("free")]
    said = []
    outcome = run_jobs(jobs, tmp_path, say=said.append)
    assert outcome.done == ["free"]
    assert outcome.failed == {"bad": "exit code 3"}
    assert outcome.skipped == {"after": "bad", "last": "after"}
    assert any("reason" in line and "logs/bad.txt" in line for line in said)
    flag.touch()
    assert run_jobs(jobs, tmp_path, say=quiet).done == ["bad", "after", "last"]


def test_a_job_that_hangs_is_ended_with_its_children(tmp_path):
    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pid)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    outcome = run_jobs([job("hangs", code, limit=2.0)], tmp_path, say=quiet)
    assert "longer than" in outcome.failed["hangs"]
    child, deadline = int(pid.read_text()), time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_interruption_ends_what_runs(tmp_path):
    started = []

    class Slow(LocalProcess):
        def __init__(self, job, log):
            super().__init__(job, log)
            started.append(self._process)

        def code(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([job("slow", "import time; time.sleep(600)")], tmp_path, start=Slow, say=quiet)
    assert started[0].wait(10) != 0


def test_sigterm_ends_what_runs(tmp_path):
    """The job asks for it, a while after it has begun."""
    pid, before = tmp_path / "pid", signal.getsignal(signal.SIGTERM)
    code = (
        "import os, signal, time\n"
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(0.5)\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(600)"
    )
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job("slow", code)], tmp_path, say=quiet)
    assert signal.getsignal(signal.SIGTERM) is before
    assert not _alive(int(pid.read_text()))


@pytest.mark.parametrize(
    "jobs",
    [[job("a"), job("a")], [job("a", "", ("b",))], [job("a", "", ("b",)), job("b", "", ("a",))]],
)
def test_jobs_that_cannot_be_run_are_refused(tmp_path, jobs):
    with pytest.raises(ConfigError, match="jobs"):
        run_jobs(jobs, tmp_path, say=quiet)


def test_submitit_runs_jobs(tmp_path):
    """Through its own local cluster: everything but SLURM itself."""
    pytest.importorskip("submitit", reason="submitit is not installed (extra: slurm)")
    start = _slurm(ClusterConfig(cpus=1, memory_gb=1), tmp_path, cluster="local")
    jobs = [job("good", "print('hello')"), job("bad", "raise SystemExit(4)")]
    outcome = run_jobs(jobs, tmp_path, start=start, workers=2, say=quiet)
    assert outcome.done == ["good"]
    assert outcome.failed == {"bad": "exit code 4"}
    assert "hello" in (tmp_path / "logs" / "good.txt").read_text()


@pytest.mark.parametrize("kind", ["slurm", "ray"])
def test_a_missing_library_names_its_extra(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, {"slurm": "submitit", "ray": "ray"}[kind], None)
    with pytest.raises(ConfigError, match=rf"tubelet\[{kind}\]"):
        starter(kind, ClusterConfig(), tmp_path, threads=1)


def test_impossible_requests():
    with pytest.raises(ConfigError, match=r"cluster\.cpus = 0"):
        ClusterConfig(cpus=0)
