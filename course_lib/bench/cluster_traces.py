"""The life of a cluster on this machine: how long it takes to come and to go, and what it leaves behind."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from course_lib import ledger, reaper, shell
from course_lib.cluster import KindCluster, sysctls
from course_lib.images import bases

Say = Callable[[str], None]


@dataclass
class Life:
    """A cluster that is up, and its two ends in seconds."""

    cluster: KindCluster
    up_s: float
    down_s: float = 0.0


class Traces:
    """Every cluster that a bench starts, and what is still there when they are gone."""

    def __init__(self) -> None:
        self.clusters = 0
        self.left: list[str] = []
        """`kind name` of everything that is left, over all clusters."""
        self.kubernetes = ""
        """The version that the nodes run."""
        self._home = _persons_own()
        self._settings = {key: reaper.sysctl(key) for key in sysctls.KUBELET}

    @contextmanager
    def lived(self, workers: int, short: str = "bench") -> Iterator[Life]:
        """A new cluster, up inside the block and gone after it; then it is looked for."""
        cluster = KindCluster(short, source=bases.source()[0], workers=workers)
        _ = cluster.node  # its image is here: what is timed is the cluster
        began = time.monotonic()
        cluster.up()
        life = Life(cluster, time.monotonic() - began)
        self.clusters += 1
        try:
            self.kubernetes = cluster.nodes()[0].version
            volumes = _volumes(cluster)
            yield life
        finally:
            began = time.monotonic()
            cluster.down()
            life.down_s = time.monotonic() - began
        self.left += self._of(cluster, volumes)

    def _of(self, cluster: KindCluster, volumes: set[str]) -> list[str]:
        still = shell.run(["docker", "volume", "ls", "--quiet"], show=False).output.split()
        left = [*cluster.left(), *(f"volume {name}" for name in volumes & set(still))]
        left += [f"folder {cluster.folder}"] if cluster.folder.exists() else []
        left += [f"row {row.kind} {row.name}" for row in ledger.rows() if cluster.name in row.name]
        left += ["file ~/.kube/config, changed"] if _persons_own() != self._home else []
        return left + self._changed_settings()

    def _changed_settings(self) -> list[str]:
        """Kernel settings that have a kubelet's values now and had others. Where a cluster that still lives has a row, it needs them."""
        found = {key: reaper.sysctl(key) for key in self._settings if not reaper.sysctl_rows(key)}
        left = [key for key, value in found.items() if self._settings[key] != value == sysctls.KUBELET[key]]
        return [f"sysctl {key}={found[key]}, was {self._settings[key]}" for key in left]


def _volumes(cluster: KindCluster) -> set[str]:
    """The nameless volumes that the nodes keep their containers in."""
    wanted = "--format={{range .Mounts}}{{.Name}} {{end}}"
    return set(shell.run(["docker", "inspect", wanted, *cluster.containers], show=False).output.split())


def _persons_own() -> str:
    file = Path.home() / ".kube" / "config"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""
