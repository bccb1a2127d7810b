"""Meeting: the workers that `TF_CONFIG` names wait for one another, not for ever."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping

import tensorflow as tf

from ...errors import TrainingError
from ...launching import Cluster, bypass_proxy, read_cluster

TIMEOUT = "TLKIT_START_TIMEOUT"
_DEFAULT_TIMEOUT = 300.0  # seconds
_LEAVE = 10  # seconds
_START = (
    "Start the script by python -m tlkit.launch --workers 2 script.py, or, on several "
    "machines, set TF_CONFIG on each (see python -m tlkit.launch --help)."
)
# A process has one strategy of this kind: TensorFlow's server cannot be stopped.
_made: dict[Cluster, tf.distribute.MultiWorkerMirroredStrategy] = {}


def connect(timeout: float | None = None) -> tf.distribute.Strategy:
    """Meets the other workers that `TF_CONFIG` names.

    To be called before TensorFlow has computed anything in this process.

    Args:
        timeout: Seconds to wait for all of them; `None` for those that the environment
            variable `TLKIT_START_TIMEOUT` gives, else 300.

    Returns:
        A `tf.distribute.MultiWorkerMirroredStrategy`; the same one at every call.

    Raises:
        TrainingError: `TF_CONFIG` is missing or wrong, a worker did not come in time
            (the message names it), or TensorFlow was used before.
    """
    seconds = _timeout(timeout)
    cluster = read_cluster(os.environ)
    if cluster is None:
        raise TrainingError(
            "strategy='multi_worker' needs the environment variable TF_CONFIG, which "
            f"names all workers, and there is none. {_START}"
        )
    if cluster not in _made:
        _made[cluster] = _connected(cluster, seconds)
    return _made[cluster]


def _timeout(given: float | None) -> float:
    text = os.environ.get(TIMEOUT, _DEFAULT_TIMEOUT) if given is None else given
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        name = TIMEOUT if given is None else "timeout"
        raise TrainingError(
            f"{name} must be a number of seconds above 0. Received: {text!r}."
        )
    return seconds


def _connected(cluster: Cluster, seconds: float) -> tf.distribute.Strategy:
    if len(cluster.addresses) == 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    os.environ.update(bypass_proxy(os.environ, list(cluster.addresses)))
    began = time.monotonic()
    # TensorFlow holds Python's lock while it waits, so nobody could say for whom.
    _meet(cluster, seconds)
    left = max(seconds - (time.monotonic() - began), 10.0)
    try:
        with _killable():
            _limit_waiting(cluster, left)
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        raise TrainingError(_why(error, cluster)) from error
    atexit.register(_leave_together)
    return strategy


def _meet(cluster: Cluster, seconds: float) -> None:
    """Waits until each of the others has been seen to listen on its address.

    Nobody can be waited for in vain: a worker that has seen all goes on and makes its
    strategy, and then TensorFlow's server listens on that address for those who are
    behind.
    """
    missing = cluster.others()
    began = time.monotonic()
    next_word = 10.0
    with _greeting(cluster):
        while True:
            for name, address in list(missing.items()):
                if _is_there(cluster, name, address):
                    del missing[name]
            if not missing:
                return
            waited = time.monotonic() - began
            if waited > seconds:
                raise TrainingError(
                    f"Only {len(cluster.names) - len(missing)} of {len(cluster.names)} "
                    f"workers came within {seconds:g} s. Missing: {listed(missing)}. "
                    "See what they printed, and whether a firewall is in between; "
                    f"{TIMEOUT}=600 waits longer."
                )
            if waited > next_word:
                next_word += 30.0
                times = f"{waited:.0f} of {seconds:.0f} s"
                print(f"Waiting for {listed(missing)}: {times}.", file=sys.stderr)
            time.sleep(min(0.2, seconds / 10))


@contextlib.contextmanager
def _greeting(cluster: Cluster) -> Iterator[None]:
    """Answers on this worker's own address, for as long as TensorFlow does not."""
    server = _listen(cluster)
    server.settimeout(0.1)
    left = threading.Event()

    def serve() -> None:
        while not left.is_set():
            with contextlib.suppress(OSError):
                peer, _ = server.accept()
                with peer:
                    peer.settimeout(1)
                    peer.sendall(_hello(cluster, cluster.name))
                    peer.recv(1)  # until it closes: the port stays free of TIME_WAIT

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()
        server.close()


def _listen(cluster: Cluster) -> socket.socket:
    own = cluster.addresses[cluster.index]
    end = time.monotonic() + 5
    while True:
        try:
            return socket.create_server(("", int(own.rpartition(":")[2])), backlog=128)
        except OSError as error:
            if time.monotonic() > end:  # until then, it may be a worker just killed
                raise TrainingError(
                    f"{cluster.name.capitalize()} cannot listen on {own}: {error}. "
                    "Give it another port, in the TF_CONFIG of every worker."
                ) from error
        time.sleep(0.2)


def _hello(cluster: Cluster, name: str) -> bytes:
    everybody = zlib.crc32(" ".join(cluster.addresses).encode())
    return f"tlkit {everybody:08x} {name}".encode()


_HELLO = len("tlkit 01234567 ")


def _is_there(cluster: Cluster, name: str, address: str) -> bool:
    """Whether a worker listens; an error if it is not the one that is expected."""
    try:
        with _dialed(address) as peer:
            peer.settimeout(1)
            try:
                heard = peer.recv(100)
            except TimeoutError:
                return True  # TensorFlow's server lets others speak first
    except OSError:
        return False
    expected = _hello(cluster, name)
    if heard == expected or not heard.startswith(b"tlkit"):
        return bool(heard)
    same = heard[:_HELLO] == expected[:_HELLO]
    found = heard[_HELLO:].decode() if same else "a worker that has other addresses"
    raise TrainingError(
        f"{name.capitalize()} should be at {address}, and there is {found}. "
        "TF_CONFIG must name the same addresses in every worker, and in each a task "
        f"with an index of its own. That of {cluster.name} names "
        f"{', '.join(cluster.addresses)}."
    )


def answers(address: str) -> bool:
    """Whether somebody listens at an address, such as `"host1:2222"`."""
    try:
        _dialed(address).close()
    except OSError:
        return False
    return True


def _dialed(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=1)


def listed(workers: Mapping[str, str]) -> str:
    """Names of workers and their addresses, for a message."""
    return ", ".join(f"{name} ({address})" for name, address in workers.items())


def _limit_waiting(cluster: Cluster, seconds: float) -> None:
    """Sets how long TensorFlow waits for the others: without it, for an hour or ever.

    TensorFlow has no public way to say so; the strategy takes what its context has.
    """
    from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
    from tensorflow.python.eager import context

    jobs = [name.partition(" ")[0] for name in cluster.names]
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{jobs[0]}/replica:0/task:0",
        cluster_register_timeout_in_ms=int(seconds * 1000),
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name=job, num_tasks=jobs.count(job))
            for job in dict.fromkeys(jobs)
        ],
    )
    # Else the chief only waits for itself in that time, and for the others for ever.
    service = context.context().coordination_service
    service.cluster_register_with_barrier = True


def _leave_together() -> None:
    """Waits for the others at the end of the process, but not long.

    A worker that has the result of the last reduction may still owe its own part to
    another one, which would fail; and one that is gone is reported as crashed.
    """
    if hasattr(sys, "last_value"):  # an error ends it: the others must hear of that
        return
    from tensorflow.python.eager import context

    with _killable(), contextlib.suppress(tf.errors.OpError):
        context.context().wait_at_barrier("tlkit leaves", _LEAVE * 1000)


def _why(error: Exception, cluster: Cluster) -> str:
    text = str(error).partition("\n")[0]
    if "program startup" in text:
        return (
            "The workers must meet before TensorFlow computes anything: make the "
            "strategy in the first lines of the script, by strategy = "
            'tlkit.strategy("multi_worker").'
        )
    return (
        f"{cluster.name.capitalize()} and the others found one another, and then could "
        "not start together: one may have ended since, or one of an earlier job may "
        f"still listen in its place. TensorFlow says: {text}"
    )


@contextlib.contextmanager
def _killable() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM end this process while it waits for the others.

    Python sees no signal while TensorFlow waits. And TensorFlow takes SIGTERM for a
    notice of preemption, for good, and does nothing: afterwards it is as it was.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    if before[signal.SIGINT] is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that was not set from Python
                signal.signal(number, handler)
