"""The launcher, with real processes: its workers finish, die, hang and are stopped."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from tlkit.errors import TrainingError
from tlkit.launch import program
from tlkit.launching.cluster import (
    bypass_proxy,
    free_addresses,
    read_cluster,
    tf_config,
)
from tlkit.launching.gpus import assign_gpus
from tlkit.launching.slurm import expand_counts, expand_hosts, slurm_workers

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
ROOT = pathlib.Path(__file__).parent.parent

# What the scripts below begin with.
BEGIN = """
import json, os, pathlib, signal, sys, time
config = json.loads(os.environ["TF_CONFIG"])
me = config["task"]["index"]
restart = int(os.environ["TLKIT_RESTART"])
def note(name, text=""):
    path = pathlib.Path(name)
    path.with_suffix(".half").write_text(str(text))
    path.with_suffix(".half").rename(path)
note(f"pid{me}-{restart}", os.getpid())
"""


def environment(**more):
    names = ("TF_CONFIG", "TLKIT_RESTART")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    kept = {k: v for k, v in kept.items() if not k.startswith("SLURM")}
    return kept | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"} | more


@contextlib.contextmanager
def launched(tmp_path, script, *options, more=None, arguments=(), **kwargs):
    """A launcher that runs, in a session of its own as in a terminal of its own."""
    (tmp_path / "script.py").write_text(BEGIN + script)
    kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kwargs
    launcher = subprocess.Popen(
        program([*options, "script.py", *arguments]),
        cwd=tmp_path,
        env=environment(**more or {}),
        start_new_session=True,
        **kwargs,
    )
    try:
        yield launcher
    finally:
        launcher.kill()
        launcher.communicate()


def run(tmp_path, script, *options, seconds=200, **kwargs):
    with launched(tmp_path, script, *options, **kwargs) as launcher:
        out, err = launcher.communicate(timeout=seconds)
    return launcher.returncode, out.decode(), err.decode()


def wait_for(path, seconds=200):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not come"
        time.sleep(0.02)
    return path.read_bytes()


def runs(pid):
    """Whether a process still runs; one that nobody has waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pids, seconds=100):
    end = time.monotonic() + seconds
    while left := [pid for pid in pids if runs(pid)]:
        assert time.monotonic() < end, f"{left} still run"
        time.sleep(0.02)


def test_the_module_starts_workers_that_find_each_other(tmp_path):
    script = """
print("cluster", json.dumps(config["cluster"]["worker"]), sys.argv[1:])
print("restart", restart, file=sys.stderr)
sys.stdout.buffer.write(b"\\xff no end of line")
"""
    (tmp_path / "script.py").write_text(BEGIN + script)
    done = subprocess.run(
        [sys.executable, "-m", "tlkit.launch", "--workers", "2", "script.py"]
        + ["--restarts", "5", "-m"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    for index in (b"[0]", b"[1]"):
        lines = [x for x in done.stdout.split(b"\n") if x.startswith(index + b" cl")]
        assert lines[0].endswith(b"['--restarts', '5', '-m']")
        assert index + b" \xff no end of line\n" in done.stdout
        assert index + b" restart 0\n" in done.stderr
    said = {line[4:] for line in done.stdout.split(b"\n") if b"cluster" in line}
    addresses = json.loads(said.pop().decode().partition("cluster ")[2].split(" [")[0])
    assert not said and len(set(addresses)) == 2
    assert all(20000 <= int(at.rpartition(":")[2]) < 32768 for at in addresses)


@linux
def test_the_launcher_is_small_and_starts_at_once(tmp_path):
    began = time.monotonic()
    with launched(tmp_path, "time.sleep(600)", "--workers", "1") as launcher:
        wait_for(tmp_path / "pid0-0")
        assert time.monotonic() - began < 5  # TensorFlow alone takes longer to import
        process = pathlib.Path(f"/proc/{launcher.pid}")
        assert "tensorflow" not in (process / "maps").read_text()
        assert len(list((process / "task").iterdir())) == 1


def test_a_module_can_be_run(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("import sys; print(__name__, sys.argv[1:])")
    done = subprocess.run(
        program(["--workers", "2", "-m", "package.inner", "--workers", "7"]),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert sorted(done.stdout.splitlines()) == [
        f"[{k}] __main__ ['--workers', '7']" for k in (0, 1)
    ]


def test_when_a_worker_dies_all_start_again(tmp_path):
    script = """
if restart == 0 and me == 1:
    while not pathlib.Path("pid0-0").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
if restart == 0:
    time.sleep(600)  # hangs, as in a collective
note(f"addresses{me}", config["cluster"]["worker"])
"""
    code, _, err = run(tmp_path, script, "--workers", "2")
    assert code == 0
    assert "Worker 1 was killed by SIGKILL" in err and "restart 1 of 3" in err
    assert (tmp_path / "addresses0").exists() and (tmp_path / "addresses1").exists()
    assert not runs(int((tmp_path / "pid0-0").read_text()))


def weights_of(out):
    """The weights that each worker of a job has ended with, by its line's mark."""
    lines = (line.partition(" weights ") for line in out.splitlines())
    return {mark: json.loads(weights) for mark, found, weights in lines if found}


@contextlib.contextmanager
def job(folder, rest, *options, more=None):
    """A job of TensorFlow's own workers."""
    folder.mkdir(exist_ok=True)
    launcher = subprocess.Popen(
        program([*options, str(ROOT / "tests" / "launched_job.py"), folder, str(rest)]),
        env=environment(**more or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield launcher
    finally:
        launcher.kill()
        launcher.communicate()


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_killed_worker_costs_a_training_job_nothing(tmp_path, victim):
    with job(tmp_path / "killed", 0.1, "--workers", "2") as launcher:
        wait_for(tmp_path / "killed" / "weights.npz")
        pid = (tmp_path / "killed" / f"pid{victim}-0").read_text()
        os.kill(int(pid), signal.SIGKILL)
        out, err = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, err[-3000:]
    assert f"Worker {victim} was killed by SIGKILL" in err
    assert "restart 1 of 3" in err and "restart 2 of 3" not in err
    found = weights_of(out)
    assert found["[0]"] == found["[1]"]
    np.testing.assert_allclose(found["[0]"], undisturbed_weights(), rtol=1e-6)


def undisturbed_weights():
    """What the same job ends with in one process, computed by NumPy."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(24, 3)).astype("float32")
    labels = inputs @ np.array([1, -2, 3], "float32")
    weights = np.zeros(3, "float32")
    shares = [np.resize(np.arange(24)[part::2], 30 * 4) for part in (0, 1)]
    for k in range(30):
        rows = np.concatenate([share[4 * k : 4 * k + 4] for share in shares])
        error = inputs[rows] @ weights - labels[rows]
        weights = weights - np.float32(0.01) * 2 * (error @ inputs[rows])
    return weights


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_launchers_on_several_machines_start_again_together(tmp_path, victim):
    folder, addresses = tmp_path / "job", free_addresses(2)
    with contextlib.ExitStack() as stack:
        configs = [{"TF_CONFIG": tf_config(addresses, k)} for k in (0, 1)]
        both = [stack.enter_context(job(folder, 0.1, more=more)) for more in configs]
        wait_for(folder / "weights.npz")
        os.kill(int((folder / f"pid{victim}-0").read_text()), signal.SIGKILL)
        printed = [launcher.communicate(timeout=300) for launcher in both]
    for k, (out, err) in enumerate(printed):
        assert both[k].returncode == 0, err[-3000:]
        found = weights_of(out)[f"[{k}]"]
        np.testing.assert_allclose(found, undisturbed_weights(), rtol=1e-6)


def test_restarts_come_to_an_end(tmp_path):
    script = "os.kill(os.getpid(), signal.SIGKILL) if me else time.sleep(600)"
    code, _, err = run(tmp_path, script, "--workers", "2", "--restarts", "1")
    assert code == 128 + signal.SIGKILL
    assert "No restart is left (--restarts 1)" in err
    assert (tmp_path / "pid1-1").exists() and not (tmp_path / "pid1-2").exists()


def test_a_script_that_fails_in_every_worker_is_not_started_again(tmp_path):
    script = "time.sleep(me); raise ValueError(f'a mistake, seen by {me}')"
    code, _, err = run(tmp_path, script, "--workers", "2")
    assert code == 1
    for index in (0, 1):  # each has said its own, the second a second later
        assert f"[{index}] ValueError: a mistake, seen by {index}" in err
    assert "not restarted" in err and not (tmp_path / "pid0-1").exists()


def test_the_exit_status_is_that_of_the_worker_that_died(tmp_path):
    script = "sys.exit(7) if me else time.sleep(600)"
    code, _, err = run(tmp_path, script, "--workers", "2", "--restarts", "0")
    assert code == 7
    assert "Worker 1 ended with exit status 7" in err


def test_ctrl_c_reaches_each_worker_once_and_waits(tmp_path):
    script = """
caught = []
signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
note(f"ready{me}")
while not caught:
    time.sleep(0.01)
time.sleep(1)  # writes a checkpoint
note(f"left{me}", caught)
"""
    with launched(tmp_path, script, "--workers", "2") as launcher:
        wait_for(tmp_path / "ready0"), wait_for(tmp_path / "ready1")
        os.killpg(launcher.pid, signal.SIGINT)  # as a terminal does
        _, err = launcher.communicate(timeout=200)
    assert launcher.returncode == 130
    assert (tmp_path / "left0").read_text() == (tmp_path / "left1").read_text() == "[2]"
    assert b"SIGINT: the workers have 60 s to exit" in err


@pytest.mark.parametrize("impatient", [False, True])
def test_workers_that_do_not_leave_are_killed(tmp_path, impatient):
    script = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: note(f"asked{me}"))
note(f"ready{me}")
while True:
    time.sleep(0.1)
"""
    grace = "600" if impatient else "1"  # beyond the timeout
    with launched(tmp_path, script, "--workers", "2", "--grace", grace) as launcher:
        pids = [int(wait_for(tmp_path / f"pid{k}-0")) for k in (0, 1)]
        wait_for(tmp_path / "ready0"), wait_for(tmp_path / "ready1")
        for _ in range(3 if impatient else 1):  # Ctrl-C again does not wait
            launcher.send_signal(signal.SIGINT)
            time.sleep(0.5)
        _, err = launcher.communicate(timeout=200)
    assert launcher.returncode == 130
    assert (tmp_path / "asked0").exists() and (tmp_path / "asked1").exists()
    assert b"Killed, since they did not exit: worker 0, 1" in err
    wait_until_gone(pids)


def test_sigterm_is_passed_on_and_nothing_starts_again(tmp_path):
    script = """
signal.signal(signal.SIGTERM, lambda *_: (note(f"left{me}"), os._exit(5)))
note(f"ready{me}")
time.sleep(600)
"""
    with launched(tmp_path, script, "--workers", "2") as launcher:
        wait_for(tmp_path / "ready0"), wait_for(tmp_path / "ready1")
        launcher.terminate()
        launcher.communicate(timeout=200)
    assert launcher.returncode == 128 + signal.SIGTERM
    assert (tmp_path / "left0").exists() and (tmp_path / "left1").exists()
    assert not (tmp_path / "pid0-1").exists()


@linux
def test_a_killed_launcher_leaves_no_workers(tmp_path):
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    with launched(tmp_path, script, "--workers", "2") as launcher:
        pids = [int(wait_for(tmp_path / f"pid{k}-0")) for k in (0, 1)]
        assert all(map(runs, pids))
        launcher.kill()
        wait_until_gone(pids)


def test_what_a_worker_has_started_goes_with_it(tmp_path):
    script = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
note(f"child{me}", child.pid)
if me:
    while not os.path.exists("child0"):  # on a busy machine the other may be later
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGSEGV)
time.sleep(600)
"""
    code, _, err = run(tmp_path, script, "--workers", "2", "--restarts", "0")
    assert code == 128 + signal.SIGSEGV and "SIGSEGV" in err
    wait_until_gone([int((tmp_path / f"child{k}").read_text()) for k in (0, 1)])


def test_a_closed_pipe_ends_the_job(tmp_path):
    script = """
while True:
    print("line", flush=True)
    time.sleep(0.01)
"""
    with launched(tmp_path, script, "--workers", "2", "--grace", "1") as launcher:
        launcher.stdout.readline()
        pids = [int(wait_for(tmp_path / f"pid{k}-0")) for k in (0, 1)]
        launcher.stdout.close()
        assert launcher.wait(20) == 128 + signal.SIGPIPE
    wait_until_gone(pids)


def test_with_a_cluster_the_launcher_starts_its_one_worker(tmp_path):
    config = {
        "cluster": {"worker": ["far:2222", "here:2222"]},
        "task": {"type": "worker", "index": 1},
    }
    script = "note('config', json.dumps(config)); sys.exit(0 if restart else 9)"
    more = {"TF_CONFIG": json.dumps(config)}
    code, _, err = run(tmp_path, script, more=more)
    # Alone, it cannot know whether the others have the same error.
    assert code == 0 and "restart 1 of 3" in err
    assert json.loads((tmp_path / "config").read_text()) == config
    assert not (tmp_path / "pid0-0").exists()
    code, _, err = run(tmp_path, script, "--workers", "3", more=more)
    assert code == 2 and "TF_CONFIG names 2 workers" in err and "--workers 3" in err


SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "node[09-10]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}


def test_under_slurm_each_task_starts_one_worker(tmp_path):
    script = "note('config', json.dumps(config))"
    code, _, err = run(tmp_path, script, more=SLURM)
    assert code == 0, err
    config = json.loads((tmp_path / "config").read_text())
    addresses, index = slurm_workers(SLURM)
    assert config == {
        "cluster": {"worker": addresses},
        "task": {"type": "worker", "index": 2},
    }
    hosts, ports = zip(*(at.split(":") for at in addresses), strict=True)
    assert hosts == ("node09", "node09", "node10") and index == 2
    assert int(ports[1]) == int(ports[0]) + 1
    code, _, err = run(tmp_path, script, "--workers", "2", more=SLURM)
    assert code == 2 and "srun started 3 workers" in err


def test_slurm_tasks_that_are_not_in_blocks_are_refused():
    assert slurm_workers(SLURM | {"SLURMD_NODENAME": "node10"})[1] == 2
    with pytest.raises(TrainingError, match="--distribution=block"):
        slurm_workers(SLURM | {"SLURMD_NODENAME": "node09"})
    assert slurm_workers(SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert slurm_workers({}) is None


def test_slurm_lists_are_expanded():
    assert expand_hosts("login,node[01-03,7],r[1-2]c[8-9]-ib") == [
        *("login", "node01", "node02", "node03", "node7"),
        *("r1c8-ib", "r1c9-ib", "r2c8-ib", "r2c9-ib"),
    ]
    assert expand_counts("2(x3),1") == [2, 2, 2, 1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["script.py"], "--workers 2"),
        (["--workers", "0", "script.py"], "1 or more is allowed, not '0'"),
        (["--workers", "two", "script.py"], "not 'two'"),
        (["--workers", "2", "--grace", "nan", "script.py"], "not 'nan'"),
        (["--workers", "2", "none.py"], "There is no script 'none.py'"),
        (["--workers", "2"], "script"),
    ],
)
def test_a_wrong_command_line_says_what_to_type(arguments, message, tmp_path):
    (tmp_path / "script.py").touch()
    done = subprocess.run(
        program(arguments),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "config, reason",
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ({"cluster": ["a:1"]}, "no object"),
        ({"cluster": {"worker": "a:1"}}, "no list"),
        ({"cluster": {"worker": ["a"]}}, "'a' is no address"),
        ({"cluster": {"worker": ["a:1", "a:1"]}}, "two workers have the address a:1"),
        ({"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}, "'ps'"),
        ({"cluster": {"chief": ["a:1", "b:1"]}}, "more than one chief"),
        ({"cluster": {"evaluator": ["a:1"]}}, "no worker"),
        ({"cluster": {"worker": ["a:1"]}}, "`task` does not say"),
        (
            {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}},
            "0 to 0",
        ),
        (
            {"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}},
            "none of that type",
        ),
        (
            {"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}},
            "type 'ps' does not train",
        ),
    ],
)
def test_a_wrong_cluster_is_refused(config, reason):
    text = config if isinstance(config, str) else json.dumps(config)
    with pytest.raises(TrainingError, match="TF_CONFIG must name") as caught:
        read_cluster({"TF_CONFIG": text})
    assert reason in str(caught.value) and text in str(caught.value)


def test_a_cluster_is_read():
    assert read_cluster({}) is None
    assert read_cluster({"TF_CONFIG": '{"task": {"type": "worker"}}'}) is None
    config = {
        "cluster": {"worker": ["b:2", "c:3"], "chief": ["a:1"], "evaluator": ["d:4"]},
        "task": {"type": "worker", "index": "1"},
    }
    cluster = read_cluster({"TF_CONFIG": json.dumps(config)})
    assert cluster.addresses == ("a:1", "b:2", "c:3")
    assert cluster.name == "worker 1" and cluster.index == 2
    assert cluster.others() == {"chief": "a:1", "worker 0": "b:2"}


def test_free_addresses_differ():
    addresses = free_addresses(50)
    assert len(set(addresses)) == 50


def test_workers_do_not_speak_through_a_proxy():
    assert bypass_proxy({"no_proxy": "x"}, ["a:1"]) == {}
    found = bypass_proxy({"https_proxy": "p", "no_proxy": "x"}, ["a:1", "a:2", "b:1"])
    assert found == {"no_grpc_proxy": "x,a,b"}


def test_gpus_are_shared_out():
    seen = {"CUDA_VISIBLE_DEVICES": "4,5,6,7,8"}
    assert assign_gpus(seen, 2) == [
        {"CUDA_VISIBLE_DEVICES": "4,5"},
        {"CUDA_VISIBLE_DEVICES": "6,7"},
    ]
    for none in ("", "-1", "-1,0"):
        assert assign_gpus({"CUDA_VISIBLE_DEVICES": none}, 2) == [{}, {}]
    with pytest.raises(TrainingError, match="--workers 1"):
        assign_gpus({"CUDA_VISIBLE_DEVICES": "3"}, 2)
