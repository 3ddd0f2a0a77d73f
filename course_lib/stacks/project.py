"""A Compose project: its files and variables in one env file, its objects written down before they are made.

Everything `docker compose` needs stands in the project's env file (which files, which name, which profiles, which values),
so the command that is shown is short and works in a terminal, too: `docker compose --env-file work/stack/rag/.env ps`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from course_lib import ledger, reaper, shell
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT, as_typed, settings
from course_lib.stacks import explanations

#: What Compose takes from the environment; a learner's own must not change what the course runs.
_COMPOSE_VARIABLES = ("COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME")
_LISTERS: tuple[tuple[ledger.Kind, tuple[str, ...]], ...] = (
    ("container", ("ps", "--all", "--format={{.Names}}")),
    ("network", ("network", "ls", "--format={{.Name}}")),
    ("volume", ("volume", "ls", "--format={{.Name}}")),
)


@dataclass(frozen=True)
class Project:
    """Files, variables and profiles that make one Compose project.

    Args:
        short: its name among this checkout's projects; the whole name has the checkout's number in front, so two stacks
            on one machine do not collide.
        files: Compose files, the later ones laid over the earlier.
        variables: values for `${…}` in them.
        profiles: those that are switched on.
    """

    short: str
    files: tuple[Path, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return settings().object_name(self.short)

    @property
    def folder(self) -> Path:
        """Where its env file, its secrets and its labels lie while it lives."""
        return settings().work_dir / "stack" / self.short

    @property
    def env_file(self) -> Path:
        return self.folder / ".env"

    @property
    def _ownership(self) -> Path:
        return self.folder / "ownership.yaml"

    @property
    def _list(self) -> Path:
        """What was written down for it. Names alone can't tell: those of project `a-b` begin like those of `a`."""
        return self.folder / "objects.json"

    def command(self, *arguments: str) -> list[str]:
        """A `docker compose` command line of this project, to run in the checkout's folder."""
        return ["docker", "compose", f"--env-file={as_typed(self.env_file)}", *arguments]

    def run(
        self,
        *arguments: str,
        show: bool = True,
        check: bool = True,
        timeout: float = 300,
        input: str | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> shell.Completed:
        """Runs `docker compose` with these arguments.

        Raises:
            CourseError: it failed; says in a sentence what is known of the reason.
        """
        try:
            return shell.run(
                self.command(*arguments),
                show=show,
                check=check,
                timeout=timeout,
                input=input,
                on_line=on_line,
                cwd=CHECKOUT,
                env=self._environment(),
            )
        except shell.CommandError as error:
            raise explanations.of_command(error, self.name) from None

    def prepare(self, *, owned: bool = True) -> None:
        """Writes the env file, and labels for all that these files make; each of these gets its row in the ledger.

        Args:
            owned: False for a stack that a person starts by hand and takes down by hand: no rows, no labels.

        Raises:
            CourseError: a file is missing or is no Compose file, a variable has no value.
        """
        for file in self.files:
            if not file.is_file():
                raise CourseError(f"there is no Compose file {file.name}", do=f"Write it: {file}.")
        if owned:
            ledger.write_down("folder", str(self.folder))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_env(self.files)
        if not owned:
            return
        config = self.config(all_profiles=True)
        self._ownership.write_text(yaml.safe_dump(self._labels(config), sort_keys=False))
        self._write_env((*self.files, self._ownership))
        self.write_down(self.objects(config))

    def write_down(self, objects: Sequence[tuple[ledger.Kind, str]]) -> None:
        """Gives things that are about to be made their rows, and notes whose they are.

        What has a name of its own and is there already was made by somebody else: it is used, and stays.
        """
        mine = dict.fromkeys(self._written())
        for kind, name in objects:
            if name.startswith((f"{self.name}-", f"{self.name}_")) or not reaper.exists(kind, name):
                mine[kind, name] = None
                ledger.write_down(kind, name)
        self._list.write_text(json.dumps(list(mine)))

    def _written(self) -> list[tuple[ledger.Kind, str]]:
        return [(kind, name) for kind, name in json.loads(self._list.read_text())] if self._list.exists() else []

    def config(self, *, all_profiles: bool = False) -> dict[str, Any]:
        """The merged and interpolated configuration, as Compose itself sees it.

        Raises:
            CourseError: the files can't be merged; says where.
        """
        everything = ["--profile=*"] if all_profiles else []
        said = self.run(*everything, "config", "--format=json", show=False)
        return dict(json.loads(said.stdout))

    def objects(self, config: Mapping[str, Any]) -> list[tuple[ledger.Kind, str]]:
        """(kind, name) of what `up` will make."""
        found: list[tuple[ledger.Kind, str]] = []
        for service, what in config["services"].items():
            named = what.get("container_name")
            count = int((what.get("deploy") or {}).get("replicas", 1))
            found += [("container", named or f"{self.name}-{service}-{n}") for n in range(1, count + 1)]
        for kind, key in (("network", "networks"), ("volume", "volumes")):
            for what in (config.get(key) or {}).values():
                if not what.get("external"):
                    found.append((kind, what["name"]))  # type: ignore[arg-type]  # one of the two words above
        return found

    @cached_property
    def services(self) -> tuple[str, ...]:
        """The services of the profiles that are on."""
        return tuple(self.run("config", "--services", show=False).output.split())

    def down(self, *, volumes: bool = False, show: bool = True) -> None:
        """Stops and removes containers and networks; named volumes too if asked."""
        self.run("--profile=*", "down", "--remove-orphans", *(["--volumes"] if volumes else []), show=show)

    def dispose(self) -> None:
        """Removes everything of the project, its volumes and its folder included, and strikes the rows."""
        mine = f"com.docker.compose.project={self.name}"
        found = set(self._written())
        for kind, lister in _LISTERS:
            listed = shell.run(["docker", *lister, f"--filter=label={mine}"], show=False, check=False)
            found |= {(kind, name) for name in listed.output.split()}
        # Not by `down --volumes`, which also takes what a file of the project names and somebody else has made.
        containers = [name for kind, name in found if kind == "container"]
        if containers:  # all at once, and then one by one what is left
            with contextlib.suppress(CourseError):  # it took too long
                shell.run(["docker", "rm", "--force", "--volumes", *containers], show=False, check=False, timeout=180)
        us = ledger.Session.current()
        reaper.remove_all(ledger.Row(kind, name, "run", "", us) for kind, name in found)
        shutil.rmtree(self.folder, ignore_errors=True)
        ledger.strike("folder", str(self.folder))

    def _labels(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A Compose file that lays the course's labels over every object of a configuration."""
        labels = ledger.labels("run")
        kept = set(self.variables.values())
        services: dict[str, Any] = {}
        for name, what in config["services"].items():
            services[name] = {"labels": labels}
            if "build" in what:
                image = what.get("image", f"{self.name}-{name}")
                lifetime: ledger.Lifetime = "kept" if image in kept else "run"
                services[name]["build"] = {"labels": ledger.labels(lifetime, "image", reference=image)}
        laid: dict[str, Any] = {"services": services}
        for key in ("networks", "volumes"):
            own = [name for name, what in (config.get(key) or {}).items() if not what.get("external")]
            if own:
                laid[key] = {name: {"labels": labels} for name in own}
        return laid

    def _write_env(self, files: Sequence[Path]) -> None:
        lines = {
            "COMPOSE_PROJECT_NAME": self.name,
            "COMPOSE_FILE": ":".join(str(file) for file in files),
            "COMPOSE_PATH_SEPARATOR": ":",
            "COMPOSE_PROFILES": ",".join(self.profiles),
            **self.variables,
        }
        self.env_file.write_text("".join(f"{key}={_quoted(value)}\n" for key, value in lines.items()))

    def _environment(self) -> dict[str, str]:
        """A shell's variables win over an env file's; here the env file is meant."""
        from_file = dict(line.split("=", 1) for line in self.env_file.read_text().splitlines())
        set_here = {key: value.strip("'") for key, value in from_file.items() if key in _COMPOSE_VARIABLES}
        return {"COMPOSE_ENV_FILES": "", **set_here, **self.variables}


def _quoted(value: str) -> str:
    """A value as an env file takes it literally.

    Raises:
        CourseError: it has a quote or a line break, which no env file can hold literally.
    """
    if "'" in value or "\n" in value:
        raise CourseError(f"{value!r} can't stand in an env file", do="Use a path or value without quotes.")
    return f"'{value}'" if value else ""
