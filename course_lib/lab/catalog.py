"""The labs and their steps, the extensions beside them, and the readings without which a step did not happen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from course_lib.errors import CourseError


@dataclass(frozen=True)
class Step:
    """One numbered step of a lab.

    `needs` names the facts that have to be read back from a backend inside the step; without any one of them it fails.
    """

    id: str
    title: str
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Lab:
    """One lab: where its notebook is, and its steps."""

    id: str
    name: str
    title: str
    steps: tuple[Step, ...]
    extension: bool = False
    """Beside the seven labs: it has steps of its own and runs when it is asked for."""

    @property
    def notebook(self) -> str:
        """Its path in labs/, in solutions/ and in work/."""
        return f"extensions/{self.name}.ipynb" if self.extension else f"lab-{self.id}-{self.name}.ipynb"

    def has_copy(self, path: Path) -> bool:
        """Whether a notebook's name is that of a copy of this lab's."""
        return path.name.startswith(self.name if self.extension else f"lab-{self.id}-")


LABS: dict[str, Lab] = {
    lab.id: lab
    for lab in (
        Lab(
            "4.4.1",
            "docker-ml-image",
            "Docker: one image for a model",
            (
                Step("4.4.1.1", "A Dockerfile that extends its base", ("image.extends-base",)),
                Step("4.4.1.2", "The model's dependencies, locked", ("image.packages-locked", "image.pip-check")),
                Step(
                    "4.4.1.3", "Two stages: build here, run there", ("image.nothing-left-of-the-build", "image.stages")
                ),
                Step(
                    "4.4.1.4",
                    "GPU support",
                    ("container.device-request", "container.gpu-outcome", "server.predictions"),
                ),
                Step("4.4.1.5", "A health check that notices", ("container.healthy", "container.unhealthy")),
                Step(
                    "4.4.1.6",
                    "Build, run, ask",
                    ("image.built", "container.runs-image", "server.predictions", "server.chat"),
                ),
                Step("4.4.1.7", "What the size is made of", ("image.size", "images.compared")),
            ),
        ),
        Lab(
            "4.4.2",
            "compose-stack",
            "Docker Compose: a stack that answers",
            (
                Step("4.4.2.1", "Services: model, database, monitoring", ("stack.service", "stack.services-running")),
                Step("4.4.2.2", "Networks: front and back", ("stack.network", "stack.unreachable", "stack.reachable")),
                Step("4.4.2.3", "Volumes: what survives", ("stack.documents-survived", "stack.documents-gone")),
                Step(
                    "4.4.2.4", "GPU allocation", ("stack.gpu-configured", "stack.device-request", "stack.gpu-outcome")
                ),
                Step("4.4.2.5", "Health checks for all services", ("stack.health", "stack.all-healthy")),
                Step("4.4.2.6", "Ask the stack", ("rag.answer", "prometheus.counted", "stack.trace")),
            ),
        ),
        Lab(
            "4.4.5",
            "kubernetes",
            "Kubernetes: a cluster that mends itself",
            (
                Step("4.4.5.1", "A cluster, and one for GPUs", ("cluster.nodes-ready", "cluster.gpu-config")),
                Step("4.4.5.2", "A Deployment", ("deployment.rolled-out", "config.in-use", "secret.in-use")),
                Step("4.4.5.3", "A Service, asked from outside", ("service.endpoints", "service.answered")),
                Step("4.4.5.4", "A pod that asks for a GPU", ("gpu.requested", "gpu.outcome")),
                Step("4.4.5.5", "Replicas", ("replicas.count", "replicas.spread")),
                Step("4.4.5.6", "Pods that are unwell", ("pod.no-traffic", "pod.restarted")),
                Step("4.4.5.7", "Replicas that follow the load", ("hpa.scaled-up", "hpa.scaled-down")),
            ),
        ),
    )
}

#: What goes beyond the seven labs. Nothing runs them but who names them.
EXTENSIONS: dict[str, Lab] = {
    lab.id: lab
    for lab in (
        Lab(
            "rollouts",
            "rollouts",
            "Rollouts: a new version, and how not to regret it",
            (
                Step("rollouts.1", "Rolling update", ("rolling.promoted", "rolling.rolled-back", "load.accounted")),
                Step(
                    "rollouts.2",
                    "Blue/green",
                    ("blue-green.switched", "blue-green.refused", "blue-green.switched-back", "load.accounted"),
                ),
                Step(
                    "rollouts.3",
                    "Canary",
                    (
                        "canary.promoted",
                        "canary.rolled-back",
                        "traffic.by-weight",
                        "traffic.by-replicas",
                        "load.accounted",
                    ),
                ),
                Step("rollouts.4", "Shadow", ("shadow.passed", "shadow.stopped", "shadow.unseen", "load.accounted")),
                Step("rollouts.5", "A/B test", ("experiment.sticky", "experiment.decided", "load.accounted")),
            ),
            extension=True,
        ),
    )
}


def every() -> dict[str, Lab]:
    """The labs and the extensions, by id."""
    return LABS | EXTENSIONS


def lab(lab_id: str) -> Lab:
    """A lab or an extension by its id.

    Raises:
        CourseError: there is none of that id; lists those there are.
    """
    known = every()
    if lab_id not in known:
        raise CourseError(f"there is no lab {lab_id!r}", do=f"Choose one of: {', '.join(known)}.")
    return known[lab_id]


def step(step_id: str) -> Step:
    """A step by its id, such as 4.4.1.6.

    Raises:
        CourseError: there is none of that id.
    """
    for one in lab(step_id.rpartition(".")[0]).steps:
        if one.id == step_id:
            return one
    raise CourseError(f"there is no step {step_id!r}", do="The steps are listed by `lab.progress()`.")
