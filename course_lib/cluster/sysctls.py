"""What a kubelet changes on the host itself: kernel settings that no container has for itself. They are put back."""

from __future__ import annotations

from course_lib import ledger, reaper
from course_lib.ledger import Lifetime
from course_lib.settings import CHECKOUT

#: What the kubelet sets where it finds another value (pkg/kubelet/cm and its `--protect-kernel-defaults`).
KUBELET = {
    "vm.overcommit_memory": "1",
    "vm.panic_on_oom": "0",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "kernel.keys.root_maxkeys": "1000000",
    "kernel.keys.root_maxbytes": "25000000",
}


def write_down(lifetime: Lifetime) -> None:
    """Notes each setting that a kubelet is about to change, with its value of now; on Linux only, elsewhere it is a virtual
    machine's and not this one's."""
    for key, value in KUBELET.items():
        now = reaper.sysctl(key)
        if now and now != value:
            ledger.write_down("sysctl", f"{key}={now}", lifetime)


def put_back() -> None:
    """Gives them the values of before; who is not root can't, and leaves them."""
    rows = ledger.rows(lifetime="run", session=ledger.Session.current())
    rows += ledger.rows(lifetime="kept", checkout=CHECKOUT)
    reaper.remove_all(row for row in rows if row.kind == "sysctl")
