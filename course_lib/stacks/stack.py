"""A stack: a Compose project that is started, looked at, scaled, broken and taken down, and asked through its front door."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from course_lib import shell, waits
from course_lib.errors import CourseError
from course_lib.lab import display
from course_lib.settings import as_typed
from course_lib.stacks import built_images, health, secret_files
from course_lib.stacks.project import Project
from course_lib.stacks.prometheus import Prometheus
from course_lib.stacks.rag import Rag


class Stack:
    """A Compose project that can be started, looked at, scaled and taken down. `course_stack` makes the course's own.

    Args:
        project: its files and variables.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._ports: dict[tuple[str, int], tuple[int, float]] = {}

    def up(self, *, timeout: float = 240, services: Sequence[str] = ()) -> list[health.State]:
        """Builds what is missing, starts the services, and waits until each one is well.

        Args:
            timeout: seconds until all have to be well.
            services: only these, and what they depend on.

        Raises:
            CourseError: the files are wrong, or a service does not get healthy; says which, and shows its last probe and
                log lines. What had been started is taken down again.
        """
        self.project.prepare()
        if "SECRETS_FOLDER" in self.project.variables:
            secret_files.make(Path(self.project.variables["SECRETS_FOLDER"]))
        built_images.ensure(self.project)
        expected = health.counts(self.project)
        if services:
            expected = {name: count for name, count in expected.items() if name in services}
        live = display.Live()
        # Compose starts nothing that depends on an unhealthy one, even where that is getting better.
        unwell_before = {one.container for one in health.settle(self.project) if not one.well}
        try:
            with ThreadPoolExecutor(1) as pool:
                began = time.monotonic()
                # Compose itself waits where one service depends on another's health, and says little meanwhile.
                started = pool.submit(self.project.run, "up", "--detach", "--no-build", *services, timeout=timeout)
                try:
                    while not started.done():
                        found = health.states(self.project)
                        live.draw_text(health.picture(found, expected))
                        # One that is being replaced by Compose is stopped, then removed, and unhealthy meanwhile.
                        gone = ("exited", "removing")
                        hopeless = [one for one in found if one.hopeless and not one.well and one.status not in gone]
                        # Who ran before may only miss what is being replaced: `health.wait` looks at them.
                        hopeless = [one for one in hopeless if one.up_seconds <= time.monotonic() - began]
                        hopeless = [one for one in hopeless if one.container not in unwell_before]
                        if hopeless and not started.done():
                            raise health.not_well(self.project, hopeless)
                        with suppress(TimeoutError):
                            started.result(0.3)
                except BaseException:  # Ctrl-C, too
                    if not started.done():
                        self.down(show=False)  # ends Compose's own waiting, for which the pool would wait
                    raise
                started.result()
            self._ports.clear()  # a container that was started anew has another port
            return health.wait(self.project, timeout=timeout, expected=expected, live=live)
        except CourseError as error:
            unwell = [one for one in health.states(self.project) if not one.well]
            # The others only wait for these.
            unwell = [one for one in unwell if one.hopeless or one.probe_failed] or unwell
            if unwell and "dependency failed to start" in error.why:
                error = health.not_well(self.project, unwell)
            self.down(show=False)
            raise error from None
        except BaseException:  # Ctrl-C: nothing half started stays
            self.down(show=False)
            raise

    def down(self, *, volumes: bool = False, show: bool = True) -> None:
        """Stops and removes containers and networks; with `volumes` also what they had stored."""
        self._ports.clear()
        self.project.down(volumes=volumes, show=show)

    def remove(self) -> None:
        """Removes everything that belongs to the stack."""
        self.project.dispose()

    def states(self) -> list[health.State]:
        """How each container is."""
        return health.states(self.project)

    def show(self) -> None:
        """Shows the services as a table."""
        display.table(
            [
                {"service": s.service, "container": s.container, "state": s.words(), "image": s.image}
                for s in self.states()
            ]
        )

    def logs(self, service: str, lines: int = 20) -> str:
        """The last log lines of a service, of all its containers."""
        said = self.project.run("logs", "--no-color", f"--tail={lines}", service).output
        return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said)  # Compose clears lines even where it draws none

    def scale(self, service: str, count: int, *, timeout: float = 120) -> None:
        """Starts or stops containers of a service until there are `count`, and waits until they are well.

        Nothing else is restarted: nginx asks Docker's DNS for a service's addresses each second.
        """
        self.project = replace(
            self.project, variables={**self.project.variables, f"{service.upper()}_REPLICAS": str(count)}
        )
        self.project.prepare()
        self.project.write_down([("container", f"{self.project.name}-{service}-{n}") for n in range(1, count + 1)])
        self.project.run(
            "up", "--detach", "--no-build", "--no-deps", "--no-recreate", f"--scale={service}={count}", service
        )
        there = {one.service for one in self.states()}
        expected = {name: n for name, n in health.counts(self.project).items() if name in there}
        health.wait(self.project, timeout=timeout, expected=expected | {service: count})

    def stop(self, service: str) -> None:
        """Stops a service's containers, as an operator would."""
        self.project.run("stop", service)

    def start(self, service: str, *, timeout: float = 120) -> None:
        """Starts a service that was stopped, and waits until the whole stack is well."""
        self._ports.clear()
        self.project.run("start", service)
        self.wait_healthy(timeout=timeout)

    def crash(self, service: str) -> str:
        """Kills everything in one container of a service from inside, as the kernel does when memory runs out; returns the
        container's name. Its restart policy brings it back.

        Raises:
            CourseError: no container of it runs, or it runs without an init: a first process can't be killed from inside.
        """
        victim = next(
            (one.container for one in self.states() if one.service == service and one.status == "running"), ""
        )
        if not victim:
            raise CourseError(f"no container of {service} is running", do="Start the stack: `stack.up()`.")
        init = shell.run(["docker", "inspect", "--format={{.HostConfig.Init}}", victim], show=False, timeout=30).output
        if init != "true":
            raise CourseError(f"{service} can't be killed from inside", do=f"Give {service} an init: `init: true`.")
        self._ports.clear()
        # -1: every process but the first; the first one, the init, ends with them
        shell.run(["docker", "exec", victim, "sh", "-c", "kill -9 -1"], check=False, timeout=30)
        return victim

    def backup(self, file: str) -> str:
        """Writes the documents to a file in the volume `backups`; returns what was written, in a sentence."""
        return self.project.run("run", "--rm", "--no-deps", "backup", "backup", f"/backups/{file}").output

    def restore(self, file: str) -> str:
        """Puts the documents of a backup in the place of those that are stored.

        Raises:
            CourseError: the file is missing, damaged, or of another embedder; nothing was changed.
        """
        return self.project.run("run", "--rm", "--no-deps", "backup", "restore", f"/backups/{file}").output

    def wait_healthy(self, *, timeout: float = 120) -> list[health.State]:
        """Waits until every service is well; one that is unhealthy now may recover.

        Raises:
            CourseError: one did not in time.
        """

        def probe() -> list[health.State]:
            found = self.states()
            if unwell := [one for one in found if not one.well]:
                raise waits.NotYet(", ".join(f"{one.service} {one.words()}" for one in unwell))
            return found

        return waits.until(
            probe,
            what="every service to be healthy again",
            timeout=timeout,
            every=0.3,
            diagnose=lambda: health.explain(self.project, [one for one in self.states() if not one.well]),
        )

    def wait_until(self, service: str, words: str, *, timeout: float = 60) -> health.State:
        """Waits until a container of a service is as said, such as `unhealthy` or `exited`.

        Raises:
            CourseError: it did not get so in time.
        """

        def probe() -> health.State:
            found = [one for one in self.states() if one.service == service]
            for one in found:
                if words in (one.health, one.status):
                    return one
            raise waits.NotYet("; ".join(one.words() for one in found) or "no container")

        return waits.until(probe, what=f"{service} to be {words}", timeout=timeout, every=0.2)

    def execute(self, service: str, *argv: str, check: bool = True, timeout: float = 60) -> shell.Completed:
        """Runs a program inside a service's first container.

        Raises:
            CourseError: it failed.
        """
        return self.project.run("exec", "--no-TTY", service, *argv, show=False, check=check, timeout=timeout)

    def port(self, service: str, port: int) -> int:
        """The port of 127.0.0.1 on which a service's port is published.

        Compose is asked, and asked again after two seconds: a container that was restarted has got another one.

        Raises:
            CourseError: it is not published.
        """
        known, asked = self._ports.get((service, port), (0, 0.0))
        if time.monotonic() - asked < 2:
            return known
        said = self.project.run("port", service, str(port), show=False, check=False).output
        found = said.rpartition(":")[2]
        if not found.isdigit() or found == "0":
            raise CourseError(
                f"port {port} of {service} is not published", do="Is the service running? `stack.show()` tells."
            )
        self._ports[service, port] = (int(found), time.monotonic())
        return int(found)

    @property
    def secrets(self) -> Path:
        """The folder with the stack's certificate and key."""
        return self.project.folder / "secrets"

    @property
    def url(self) -> str:
        """The front door."""
        return f"https://127.0.0.1:{self.port('proxy', 8443)}"

    def addresses(self) -> dict[str, str]:
        """Where a person looks: the front door and its key, the pages of what watches."""
        found = {
            "front door": self.url,
            "its authority": str(as_typed(self.ca)),
            "API key in": str(as_typed(self.secrets / "inference_key")),
        }
        for service, port in (("prometheus", 9090), ("alertmanager", 9093), ("traces", 4318)):
            found[service] = f"http://127.0.0.1:{self.port(service, port)}"
        return found

    @property
    def ca(self) -> Path:
        """The authority that signed the front door's certificate: what a client has to trust."""
        return self.secrets / "ca.pem"

    @cached_property
    def key(self) -> str:
        """The inference API's key."""
        return (self.secrets / "inference_key").read_text().strip()

    def http(self, *, timeout: float = 60) -> httpx.Client:
        """A client for the front door: trusts the stack's own authority, and shows the API key."""
        return httpx.Client(
            base_url=self.url,
            verify=ssl.create_default_context(cafile=str(self.ca)),
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=timeout,
            trust_env=False,  # no proxy on the way to 127.0.0.1
        )

    @property
    def rag(self) -> Rag:
        """The RAG service, through the front door."""
        return Rag(self.http())

    @property
    def prometheus(self) -> Prometheus:
        """What Prometheus knows."""
        return Prometheus(f"http://127.0.0.1:{self.port('prometheus', 9090)}")

    def alerts(self) -> list[dict[str, Any]]:
        """What Alertmanager holds: labels, annotations and state of each alert."""
        try:
            with httpx.Client(timeout=10, trust_env=False) as http:
                found = http.get(f"http://127.0.0.1:{self.port('alertmanager', 9093)}/api/v2/alerts")
            return list(found.raise_for_status().json())
        except httpx.HTTPError as error:
            raise CourseError(
                "Alertmanager does not answer", why=str(error), do="Is it running? `stack.show()` tells.",
                passing=isinstance(error, httpx.TimeoutException),
            ) from None  # fmt: skip


@contextmanager
def running(stack: Stack, **how: Any) -> Iterator[Stack]:
    """A stack that is gone when the block ends, however it ends (see `Stack.up` for the arguments)."""
    try:
        stack.up(**how)
        yield stack
    finally:
        stack.remove()
