"""The Docker SDK's client: what was made is read back through the engine's API, not through the program that made it."""

from __future__ import annotations

from functools import cache

from docker.errors import DockerException

import docker
from course_lib.errors import CourseError
from course_lib.host import engine


@cache
def client() -> docker.DockerClient:
    """One client a process, on the same engine that the `docker` command uses (the SDK itself knows no contexts).

    Raises:
        CourseError: no engine answers; says which of the reasons it is.
    """
    endpoint = engine.client_endpoint()
    try:
        found = docker.DockerClient(base_url=endpoint, timeout=60) if endpoint else docker.from_env(timeout=60)
        found.ping()
    except DockerException as error:
        engine.require()
        raise CourseError("the Docker engine does not answer", why=str(error), do="Run `make doctor`.") from None
    return found
