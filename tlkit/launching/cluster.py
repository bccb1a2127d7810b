"""Clusters: the workers of a job, as `TF_CONFIG` and SLURM name them."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import TrainingError

# Clients' own ports are taken from above 32768 (Linux) or 49152 (macOS, Windows): no
# connection in passing can take one from here before its worker listens.
PORTS = range(20000, 32768)

EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """The workers that train together, and which of them this process is.

    Args:
        addresses: Host and port of each worker, the chief's first.
        names: What they are called, such as `"worker 0"`; as long as `addresses`.
        index: Place of this process among them.
    """

    addresses: tuple[str, ...]
    names: tuple[str, ...]
    index: int

    def others(self) -> dict[str, str]:
        """The addresses of the other workers, by name."""
        pairs = zip(self.names, self.addresses, strict=True)
        return {name: address for name, address in pairs if name != self.name}

    @property
    def name(self) -> str:
        """What this process is called."""
        return self.names[self.index]


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """Reads `TF_CONFIG`.

    Args:
        environment: The environment of the process.

    Returns:
        The cluster, or `None` where `TF_CONFIG` is missing or names no cluster.

    Raises:
        TrainingError: It is there, and not what TensorFlow needs.
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
    places = [(job, k) for job in ("chief", "worker") for k in range(len(jobs[job]))]
    job, task = _task(text, config, jobs)
    return Cluster(
        addresses=tuple(jobs["chief"] + jobs["worker"]),
        names=tuple(name if name == "chief" else f"{name} {k}" for name, k in places),
        index=places.index((job, task)),
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
    everybody = jobs["chief"] + jobs["worker"]
    if len(jobs["chief"]) > 1:
        raise _wrong(text, "it names more than one chief")
    if not everybody:
        raise _wrong(text, "`cluster` names no worker")
    for address in everybody:
        if everybody.count(address) > 1:
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
    there = len(jobs[job])
    if not str(index).isdigit() or int(index) >= there:
        which = f"0 to {there - 1}" if there else "none"
        raise _wrong(
            text, f"`task` is {job} {index!r}, and the cluster has {which} of that type"
        )
    return job, int(index)


def _wrong(text: str, reason: str) -> TrainingError:
    return TrainingError(
        f"TF_CONFIG must name all workers and say which one this is, as in {EXAMPLE}. "
        f"Here, {reason}. Received: {text[:500]}"
    )


def config_of(addresses: list[str], index: int) -> str:
    """The `TF_CONFIG` of one worker.

    Args:
        addresses: Host and port of each worker.
        index: Which of them.

    Returns:
        JSON.
    """
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def free_addresses(count: int) -> list[str]:
    """Finds ports of this machine that nobody listens on.

    Args:
        count: How many.

    Returns:
        As many different addresses on the loopback interface.

    Raises:
        TrainingError: There are not so many.
    """
    taken: list[socket.socket] = []
    try:
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            if len(taken) == count:
                break
            one = socket.socket()
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                one.close()
            else:
                taken.append(one)  # held until all are found: no port comes twice
        if len(taken) < count:
            raise TrainingError(
                f"There are {len(taken)} free ports on this machine for {count} "
                f"workers (looked from {PORTS.start} to {PORTS.stop - 1})."
            )
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in taken]
    finally:
        for one in taken:
            one.close()


def unproxied(environment: Mapping[str, str], addresses: list[str]) -> dict[str, str]:
    """What to set so that workers speak to each other directly.

    gRPC sends even what goes to 127.0.0.1 through the proxy that `http_proxy` names,
    and then waits for ever.

    Args:
        environment: The environment of the process.
        addresses: Host and port of each worker.

    Returns:
        Variables to set; none where there is no proxy.
    """
    proxies = ("grpc_proxy", "http_proxy", "https_proxy")
    if not any(environment.get(name) for name in proxies):
        return {}
    before = environment.get("no_grpc_proxy") or environment.get("no_proxy") or ""
    hosts = dict.fromkeys(address.rpartition(":")[0] for address in addresses)
    return {"no_grpc_proxy": ",".join(filter(None, [before, *hosts]))}
