"""Waits for the other workers in `TF_CONFIG` until a timeout, and connects with them.

TensorFlow waits in C++ and holds Python's lock, so that no message could name missing
workers. Therefore the workers first greet each other on their addresses:

1. A worker listens on its own address, and answers every connection with a greeting,
   which contains its name and a checksum of all addresses.
2. It connects to each other address until it gets a greeting. TensorFlow's server,
   which sends nothing first, also counts: that worker has already got all greetings.
3. It stops listening, and TensorFlow starts its server on the same port.

Tested in tests/training/strategies/test_workers.py.
"""

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
from ...progress import print_line

_TIMEOUT = "TLKIT_START_TIMEOUT"
_DEFAULT_TIMEOUT = 300.0  # seconds
_EXIT_TIMEOUT = 10  # seconds
_HOW_TO_START = (
    "Start the script by python -m tlkit.launch --workers 2 script.py, or, on several "
    "machines, set TF_CONFIG on each (see python -m tlkit.launch --help)."
)
# A process can create only one strategy of a cluster: its server cannot be stopped.
_strategies: dict[Cluster, tf.distribute.MultiWorkerMirroredStrategy] = {}


def connect(timeout: float | None = None) -> tf.distribute.Strategy:
    """Waits for the other workers in `TF_CONFIG`, and creates a strategy with them.

    Call this before TensorFlow computes anything in this process.

    Args:
        timeout: Seconds to wait for all workers. Default: the environment variable
            `TLKIT_START_TIMEOUT`, else 300.

    Returns:
        A `tf.distribute.MultiWorkerMirroredStrategy`; the same one in every call.

    Raises:
        TrainingError: `TF_CONFIG` is missing or wrong, a worker is missing after the
            timeout (the message names it), or TensorFlow was used before.
    """
    seconds = _timeout_seconds(timeout)
    cluster = read_cluster(os.environ)
    if cluster is None:
        raise TrainingError(
            "strategy='multi_worker' needs the environment variable TF_CONFIG, which "
            f"names all workers, and it is not set. {_HOW_TO_START}"
        )
    if cluster not in _strategies:
        _strategies[cluster] = _create_strategy(cluster, seconds)
    return _strategies[cluster]


def is_listening(address: str) -> bool:
    """Returns whether a process listens at an address, such as `"host1:2222"`."""
    try:
        _open_connection(address).close()
    except OSError:
        return False
    return True


def worker_list(workers: Mapping[str, str]) -> str:
    """Returns names and addresses of workers, for a message."""
    return ", ".join(f"{name} ({address})" for name, address in workers.items())


def _timeout_seconds(timeout: float | None) -> float:
    value = os.environ.get(_TIMEOUT, _DEFAULT_TIMEOUT) if timeout is None else timeout
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        name = _TIMEOUT if timeout is None else "timeout"
        raise TrainingError(
            f"{name} must be a number of seconds above 0. Received: {value!r}."
        )
    return seconds


def _create_strategy(cluster: Cluster, seconds: float) -> tf.distribute.Strategy:
    if len(cluster.addresses) == 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    os.environ.update(bypass_proxy(os.environ, list(cluster.addresses)))
    start = time.monotonic()
    _wait_for_all(cluster, seconds)
    left = max(seconds - (time.monotonic() - start), 10.0)
    try:
        with _default_signals():
            _limit_registration(cluster, left)
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        raise TrainingError(_explain(error, cluster)) from error
    atexit.register(_wait_at_exit)
    return strategy


# === Greetings ===


def _wait_for_all(cluster: Cluster, seconds: float) -> None:
    """Waits until every other worker has been seen at its address."""
    missing = cluster.others()
    start = time.monotonic()
    next_message = 10.0
    with _greeting_server(cluster):
        while True:
            for name, address in list(missing.items()):
                if _is_present(cluster, name, address):
                    del missing[name]
            if not missing:
                return
            waited = time.monotonic() - start
            if waited > seconds:
                raise TrainingError(
                    f"Only {len(cluster.names) - len(missing)} of {len(cluster.names)} "
                    f"workers started within {seconds:g} s. Missing: "
                    f"{worker_list(missing)}. Look at their output, and for a firewall "
                    f"between the machines; {_TIMEOUT}=600 waits longer."
                )
            if waited > next_message:
                next_message += 30.0
                progress = f"{waited:.0f} of {seconds:.0f} s"
                print_line(f"Waiting for {worker_list(missing)}: {progress}.")
            time.sleep(min(0.2, seconds / 10))


@contextlib.contextmanager
def _greeting_server(cluster: Cluster) -> Iterator[None]:
    """Sends a greeting to every worker that connects to this one's address."""
    server = _listen(cluster)
    server.settimeout(0.1)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(1)
                    connection.sendall(_greeting(cluster, cluster.name))
                    # Wait until the client closes: if the server closed first,
                    # TIME_WAIT would block the port.
                    connection.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        server.close()


def _listen(cluster: Cluster) -> socket.socket:
    address = cluster.addresses[cluster.index]
    end = time.monotonic() + 5
    while True:
        try:
            port = int(address.rpartition(":")[2])
            return socket.create_server(("", port), backlog=128)
        except OSError as error:
            # A worker that was just killed may still have the port for a while.
            if time.monotonic() > end:
                raise TrainingError(
                    f"{cluster.name.capitalize()} cannot listen on {address}: {error}. "
                    "Give it another port, in the TF_CONFIG of every worker."
                ) from error
        time.sleep(0.2)


def _greeting(cluster: Cluster, name: str) -> bytes:
    checksum = zlib.crc32(" ".join(cluster.addresses).encode())
    return f"tlkit {checksum:08x} {name}".encode()


_PREFIX_LENGTH = len("tlkit 01234567 ")


def _is_present(cluster: Cluster, name: str, address: str) -> bool:
    """Returns whether the worker `name` listens at an address; another is an error."""
    try:
        with _open_connection(address) as connection:
            connection.settimeout(1)
            try:
                received = connection.recv(100)
            except TimeoutError:
                return True  # TensorFlow's server, which sends nothing first
    except OSError:
        return False
    expected = _greeting(cluster, name)
    if received == expected or not received.startswith(b"tlkit"):
        return bool(received)
    other = "a worker that has other addresses"
    if received[:_PREFIX_LENGTH] == expected[:_PREFIX_LENGTH]:
        other = received[_PREFIX_LENGTH:].decode()
    raise TrainingError(
        f"{name.capitalize()} should be at {address}, but there is {other}. TF_CONFIG "
        "must name the same addresses in every worker, and in each a task with an "
        f"index of its own. That of {cluster.name} names "
        f"{', '.join(cluster.addresses)}."
    )


def _open_connection(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=1)


# === TensorFlow ===


def _limit_registration(cluster: Cluster, seconds: float) -> None:
    """Limits how long TensorFlow waits for the others; by default, an hour or forever.

    The setting is private. The strategy uses the one in TensorFlow's eager context
    (test_the_strategy_has_to_be_made_first).
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
    # Without this, the chief's limit would not apply to the other workers.
    service = context.context().coordination_service
    service.cluster_register_with_barrier = True


def _wait_at_exit() -> None:
    """Waits a short time for the others before this process ends.

    A worker that has the result of the last reduction may not have sent its own values
    to all others yet. If it ended now, the reduction would fail in those workers.
    """
    if hasattr(sys, "last_value"):  # after an error, the others should fail at once
        return
    from tensorflow.python.eager import context

    with _default_signals(), contextlib.suppress(tf.errors.OpError):
        context.context().wait_at_barrier("tlkit leaves", _EXIT_TIMEOUT * 1000)


def _explain(error: Exception, cluster: Cluster) -> str:
    text = str(error).partition("\n")[0]
    if "program startup" in text:
        return (
            "The workers must connect before TensorFlow computes anything: create the "
            "strategy in the first lines of the script, by strategy = "
            'tlkit.strategy("multi_worker").'
        )
    return (
        f"{cluster.name.capitalize()} reached all other workers, but could not start "
        "together with them: one may have ended since, or a worker of an earlier job "
        f"may still use its port. TensorFlow says: {text}"
    )


@contextlib.contextmanager
def _default_signals() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM end this process while TensorFlow waits.

    Python handles no signal during that time. TensorFlow installs a handler of SIGTERM,
    which takes it for a notice of preemption and does nothing else. Afterwards, the
    previous handlers are restored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in numbers}
    if previous[signal.SIGINT] is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if handler is not None:  # `None`: it was not set from Python
                signal.signal(number, handler)
