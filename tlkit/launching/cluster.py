"""The cluster of a job: addresses and names of its workers, from `TF_CONFIG`.

Tested in tests/test_launch.py.
"""

import json
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import TrainingError

# Below the ports that systems assign to clients (from 32768 on Linux, from 49152 on
# macOS and Windows), so no client can take a port before its worker listens.
PORTS = range(20000, 32768)

EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """The workers that train together, and the index of this process.

    Args:
        addresses: Host and port of each worker, the chief's first.
        names: Names of the workers, such as `"worker 0"`; as long as `addresses`.
        index: Index of this process in both.
    """

    addresses: tuple[str, ...]
    names: tuple[str, ...]
    index: int

    def others(self) -> dict[str, str]:
        """Returns the addresses of the other workers, by name."""
        pairs = zip(self.names, self.addresses, strict=True)
        return {name: address for name, address in pairs if name != self.name}

    @property
    def name(self) -> str:
        """Name of this process."""
        return self.names[self.index]


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """Reads `TF_CONFIG`.

    Args:
        environment: The environment of the process.

    Returns:
        The cluster, or `None` if `TF_CONFIG` is missing or names no cluster.

    Raises:
        TrainingError: `TF_CONFIG` is invalid.
    """
    text = environment.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _wrong(text, f"it is no JSON ({error})") from error
    if not isinstance(config, dict):
        raise _wrong(text, "it is no JSON object")
    if not config.get("cluster"):
        return None
    jobs = _jobs(text, config["cluster"])
    tasks = [(job, k) for job in ("chief", "worker") for k in range(len(jobs[job]))]
    job, task = _task(text, config, jobs)
    return Cluster(
        addresses=tuple(jobs["chief"] + jobs["worker"]),
        names=tuple(name if name == "chief" else f"{name} {k}" for name, k in tasks),
        index=tasks.index((job, task)),
    )


def _jobs(text: str, cluster: Any) -> dict[str, list[str]]:
    if not isinstance(cluster, dict):
        raise _wrong(text, "`cluster` is no object")
    unknown = sorted(set(cluster) - {"chief", "worker", "evaluator"})
    if unknown:
        raise _wrong(text, f"`cluster` has {unknown[0]!r}, which cannot train here")
    jobs = {job: cluster.get(job) or [] for job in ("chief", "worker")}
    for job, addresses in jobs.items():
        if not isinstance(addresses, list):
            raise _wrong(text, f"{job!r} is no list of addresses")
        for address in addresses:
            if not isinstance(address, str) or not _is_address(address):
                raise _wrong(text, f"{address!r} is no address such as 'host1:2222'")
    workers = jobs["chief"] + jobs["worker"]
    if len(jobs["chief"]) > 1:
        raise _wrong(text, "it names more than one chief")
    if not workers:
        raise _wrong(text, "`cluster` names no worker")
    for address in workers:
        if workers.count(address) > 1:
            raise _wrong(text, f"two workers have the address {address}")
    return jobs


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65536


def _task(text: str, config: dict[str, Any], jobs: dict[str, list[str]]):
    task = config.get("task")
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        raise _wrong(text, "`task` does not say the type and the index of this worker")
    job, index = task["type"], task["index"]
    if job not in jobs:
        raise _wrong(text, f"a task of type {job!r} does not train")
    count = len(jobs[job])
    if not str(index).isdigit() or int(index) >= count:
        which = f"0 to {count - 1}" if count else "none"
        raise _wrong(
            text, f"`task` is {job} {index!r}, and the cluster has {which} of that type"
        )
    return job, int(index)


def _wrong(text: str, reason: str) -> TrainingError:
    return TrainingError(
        f"TF_CONFIG must name all workers and say which one this is, as in {EXAMPLE}. "
        f"Here, {reason}. Received: {text[:500]}"
    )


def tf_config(addresses: list[str], index: int) -> str:
    """Returns the `TF_CONFIG` of the worker with that index, as JSON."""
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def free_addresses(count: int) -> list[str]:
    """Returns different addresses on the loopback interface, with unused ports.

    Args:
        count: The number of addresses.

    Raises:
        TrainingError: There are not enough unused ports.
    """
    sockets: list[socket.socket] = []
    try:
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            if len(sockets) == count:
                break
            one = socket.socket()
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                one.close()
            else:
                sockets.append(one)  # open until all are bound: no port comes twice
        if len(sockets) < count:
            raise TrainingError(
                f"There are {len(sockets)} free ports on this machine for {count} "
                f"workers (tried {PORTS.start} to {PORTS.stop - 1})."
            )
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    finally:
        for one in sockets:
            one.close()


def bypass_proxy(
    environment: Mapping[str, str], addresses: list[str]
) -> dict[str, str]:
    """Returns the variables to set so that workers connect without a proxy.

    gRPC uses the proxy in `http_proxy` even for 127.0.0.1, and then waits forever.

    Args:
        environment: The environment of the process.
        addresses: Host and port of each worker.

    Returns:
        The variables; empty if there is no proxy.
    """
    proxies = ("grpc_proxy", "http_proxy", "https_proxy")
    if not any(environment.get(name) for name in proxies):
        return {}
    before = environment.get("no_grpc_proxy") or environment.get("no_proxy") or ""
    hosts = dict.fromkeys(address.rpartition(":")[0] for address in addresses)
    return {"no_grpc_proxy": ",".join(filter(None, [before, *hosts]))}
