"""Two clusters side by side on one machine: each answers with its own, they share nothing, and one outlives the other."""

from __future__ import annotations

import json
from typing import Any

from course_lib import shell
from course_lib.bench.cluster_traces import Say, Traces
from course_lib.cluster import Deployer, KindCluster

_OBJECT: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ship"}}


def figures(traces: Traces, say: Say) -> dict[str, Any]:
    """Starts both, tells each another name under the same key, and takes one away.

    Returns:
        how many of the two know their own name, how many containers, networks, volumes and ports they share, and how many
        nodes of the one that stays are Ready when the other is gone.
    """
    names = {"Aurora": "bench", "Borealis": "bench-beside"}
    with traces.lived(0, names["Aurora"]) as first:
        with traces.lived(0, names["Borealis"]) as second:
            say("side by side: both are up")
            both = dict(zip(names, (first.cluster, second.cluster), strict=True))
            deployers = {name: _deployer(cluster) for name, cluster in both.items()}
            for name, deployer in deployers.items():
                deployer.apply([_OBJECT | {"data": {"name": name}}])
            known = {name: _ship(deployer) == name for name, deployer in deployers.items()}
            ours, theirs = objects(first.cluster), objects(second.cluster)
        say("side by side: one is gone")
        ready = [node.ready for node in first.cluster.nodes()]
        still = _ship(deployers["Aurora"]) == "Aurora"
    return {
        "answering": sum(known.values()),
        "shared": len(ours & theirs),
        "shared_names": sorted(ours & theirs),
        "objects": [len(ours), len(theirs)],
        "stays": all(ready) and still,
    }


def objects(cluster: KindCluster) -> set[str]:
    """What the engine and this machine have of a cluster: containers, networks, volumes, published ports, and its kubeconfig."""
    found = {f"kubeconfig {cluster.kubeconfig}", f"server {_server(cluster)}"}
    for one in json.loads(shell.run(["docker", "container", "inspect", *cluster.containers], show=False).stdout):
        found.add(f"container {one['Name']}")
        found |= {f"volume {mount['Name']}" for mount in one["Mounts"] if mount.get("Name")}
        found |= {f"network {name}" for name in one["NetworkSettings"]["Networks"]}
        for published in one["NetworkSettings"]["Ports"].values():
            found |= {f"port {each['HostIp']}:{each['HostPort']}" for each in published or []}
    return found


def _deployer(cluster: KindCluster) -> Deployer:
    return Deployer("default", kubeconfig=cluster.kubeconfig, kubectl=cluster.source)


def _ship(deployer: Deployer) -> str:
    return str(deployer.api.get("v1", "ConfigMap", "ship", deployer.namespace)["data"]["name"])


def _server(cluster: KindCluster) -> str:
    return _deployer(cluster).api.host
