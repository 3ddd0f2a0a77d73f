"""The person's own kubeconfig, as kubectl finds it; read, and never written."""

from __future__ import annotations

import os
from pathlib import Path

from course_lib import shell
from course_lib.cluster import tools
from course_lib.errors import CourseError

OWN = "Leave TARGET out, and the course makes a cluster of its own."


class PersonsKubeconfig:
    """What the variable KUBECONFIG names, else ~/.kube/config.

    Args:
        source: where kubectl comes from, if it is not here.
    """

    def __init__(self, source: tools.Source) -> None:
        self._source = source

    @property
    def files(self) -> str:
        """Whole paths, as the variable has them: a row of the ledger is read by a process with another working folder."""
        named = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        return os.pathsep.join(str(Path(one).absolute()) for one in named.split(os.pathsep) if one)

    def current(self) -> str:
        """The current context.

        Raises:
            CourseError: there is none.
        """
        said = self.kubectl("config", "current-context").output
        if not said:
            raise CourseError(
                "the kubeconfig has no current context",
                why=f"It is {self.files}.",
                do="Name one: KUBE_CONTEXT, in the environment or in course.toml. `kubectl config get-contexts` lists them.",
            )
        return said

    def context(self, name: str) -> str:
        """A kubeconfig that has one of its contexts, and all that belongs to it, certificates or token included.

        Raises:
            CourseError: there is no such context, or it can't be read.
        """
        known = self.kubectl("config", "get-contexts", "--output=name").output.splitlines()
        if not known:
            raise CourseError(
                "there is no kubeconfig with a context in it",
                why=f"Looked at: {self.files}.",
                do=f"Get one from whoever runs the cluster, and name it in KUBECONFIG. {OWN}",
            )
        if name not in known:
            raise CourseError(
                f"the kubeconfig has no context {name}",
                why=f"It has these: {', '.join(known)}.",
                do="Set KUBE_CONTEXT to one of them, or leave it out for the current one.",
            )
        said = self.kubectl("config", "view", "--minify", "--flatten", "--raw", f"--context={name}")
        if not said.output:
            raise CourseError(
                f"context {name} can't be read from the kubeconfig",
                why=said.stderr.strip()[-800:],
                do=f"`kubectl --context={name} get nodes` has to answer first.",
            )
        return said.stdout

    def kubectl(self, *arguments: str) -> shell.Completed:
        """kubectl as the person has it; a failure is for the caller to see."""
        program = str(tools.kubectl(self._source))
        return shell.run([program, *arguments], show=False, check=False, timeout=30, env={"KUBECONFIG": self.files})
