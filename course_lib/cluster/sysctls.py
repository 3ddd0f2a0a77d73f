"""What a kubelet changes on the host itself: kernel settings that no container has for itself. They are put back."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from course_lib import ledger, reaper, shell
from course_lib.ledger import Lifetime

#: What the kubelet sets where it finds another value (pkg/kubelet/cm and its `--protect-kernel-defaults`).
KUBELET = {
    "vm.overcommit_memory": "1",
    "vm.panic_on_oom": "0",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "kernel.keys.root_maxkeys": "1000000",
    "kernel.keys.root_maxbytes": "25000000",
}
#: The values of before the first cluster of this machine, for clusters of another user or another ledger, which see no row of
#: it: theirs may begin while it runs, and outlast it. Gone with the last cluster, as the settings are with a reboot.
NOTES = Path("/run/course-kernel-settings")


def write_down(cluster: str, lifetime: Lifetime) -> None:
    """Notes each setting that a cluster's kubelets are about to change, with its value of before the first cluster; on Linux
    only, elsewhere it is a virtual machine's and not this one's."""
    for key, value in KUBELET.items():
        now = reaper.sysctl(key)
        # A cluster that is there already may have changed it: then its row knows what was before.
        before = next((row.name.partition("=")[2].partition(" ")[0] for row in reaper.sysctl_rows(key)), now)
        if before == value and (NOTES / key).exists() and clusters_run():
            before = (NOTES / key).read_text()
        if before and before != value:
            ledger.write_down("sysctl", f"{key}={before} for {cluster}", lifetime)
            with suppress(OSError):  # who may not write there can't change the setting, either
                NOTES.mkdir(exist_ok=True)
                (NOTES / key).write_text(before)


def put_back(cluster: str) -> None:
    """Gives them the values of before, where no other cluster needs them; who is not root can't, and leaves them."""
    reaper.remove_all(row for row in ledger.rows() if row.kind == "sysctl" and row.name.endswith(f" for {cluster}"))
    if NOTES.exists() and not clusters_run():
        shutil.rmtree(NOTES, ignore_errors=True)


def clusters_run() -> bool:
    """Whether there is a node of a kind cluster on this machine, whoever's."""
    asked = ["docker", "ps", "--quiet", "--filter=label=io.x-k8s.kind.cluster"]
    return bool(shell.run(asked, show=False, check=False, timeout=30).output)
