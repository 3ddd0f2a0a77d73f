"""The cluster's API: login by a kubeconfig or from inside a pod; each call has an end, each refusal is a sentence.

Objects come as the API server sends them, as nested dicts with the names that manifests have, too: the same code reads
an old cluster, a new one, and a recorded answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError, ResourceNotUniqueError
from kubernetes.dynamic.resource import Resource, ResourceList

from course_lib.cluster import refusals
from course_lib.errors import CourseError

Object = dict[str, Any]
#: Who owns the fields that the course sets (server-side apply keeps account of it in metadata.managedFields).
MANAGER = "course"
#: Seconds to connect, and between two pieces of an answer.
_TIMEOUT = (20.0, 60.0)
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class Api:
    """One cluster, as one user. Holds no state outside itself, so that a program can speak with several clusters.

    Args:
        kubeconfig: a file; by default what kubectl takes: KUBECONFIG, ~/.kube/config, or a pod's own service account.
        context: a context in it; by default its current one.

    Raises:
        CourseError: there is no such file or context, or it can't be read.
    """

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        self.configuration = _login(kubeconfig, context)
        self.client = _Client(self.configuration)

    @property
    def host(self) -> str:
        return str(self.configuration.host)

    @cached_property
    def version(self) -> tuple[int, int]:
        """(major, minor) of the API server."""
        said = self._resources.version["kubernetes"]
        return int(said["major"]), int(str(said["minor"]).rstrip("+"))

    def get(self, version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """One object.

        Args:
            version: its apiVersion, as in `apps/v1`.

        Raises:
            ApiError: it is not there (`status` 404), or the server does not say.
        """
        with self._explained(_name(kind, name, namespace)):
            return cast(Object, self.kind(version, kind).get(name=name, namespace=namespace, serializer=_plain))

    def find(self, version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """One object, or None where it is not there."""
        try:
            return self.get(version, kind, name, namespace)
        except refusals.ApiError as error:
            if error.status == 404:
                return None
            raise

    def objects(
        self, version: str, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """Objects of a kind, in a namespace or in all, by label and field selectors."""
        with self._explained(_name(kind, "", namespace)):
            selected = {"label_selector": labels or None, "field_selector": fields or None}
            found = self.kind(version, kind).get(namespace=namespace, serializer=_plain, **selected)
        return list(found.get("items") or [])

    def apply(self, manifest: Object, namespace: str, *, force: bool = True, dry_run: bool = False) -> Object:
        """Server-side apply: the server merges what the manifest says into what others have set, and keeps account of
        who owns which field. A field that its kind does not have is refused (by servers before 1.27: passed over).

        Returns:
            the object as it is then.
        """
        kind = self.kind(str(manifest.get("apiVersion", "")), str(manifest.get("kind", "")))
        name = manifest["metadata"]["name"]
        with self._explained(_name(kind.kind, name, namespace if kind.namespaced else None)):
            done = kind.server_side_apply(
                body=manifest, namespace=namespace, field_manager=MANAGER, force_conflicts=force,
                dry_run="All" if dry_run else None, query_params=[("fieldValidation", "Strict")], serializer=_plain,
            )  # fmt: skip
        return cast(Object, done)

    def patch(
        self, version: str, kind: str, name: str, namespace: str, body: object, *, how: str = "strategic-merge-patch"
    ) -> Object:
        """Changes some fields of an object.

        Args:
            body: the fields (`strategic-merge-patch` knows which lists go by name), or the operations of a `json-patch`.
        """
        with self._explained(_name(kind, name, namespace)):
            done = self.kind(version, kind).patch(
                body=body, name=name, namespace=namespace, content_type=f"application/{how}+json",
                field_manager=MANAGER, serializer=_plain,
            )  # fmt: skip
        return cast(Object, done)

    def delete(self, version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Asks for an object's end, and of what belongs to it; one that is gone is no error. Does not wait."""
        with self._explained(_name(kind, name, namespace)):
            try:
                self.kind(version, kind).delete(
                    name=name, namespace=namespace, propagation_policy="Background", serializer=_plain
                )
            except client.ApiException as error:
                if error.status != 404:
                    raise

    def read(self, path: str, query: Mapping[str, object] | None = None) -> bytes:
        """The body that is answered to a GET: log lines, metrics, what has no kind."""
        with self._explained(path):
            answer = self._resources_of.request("get", path, query_params=list((query or {}).items()), serialize=False)
            return bytes(answer.data)

    def kind(self, version: str, kind: str) -> Resource:
        """Where objects of a kind are, by the server's own list (discovery).

        Raises:
            CourseError: it has no such kind.
        """
        # Without the prefix, `v1` would be looked for in each group that has a v1, and each would be asked for its list.
        prefix = "apis" if "/" in version else "api"
        with self._explained(kind):
            try:
                return cast(Resource, self._resources.get(prefix=prefix, api_version=version, kind=kind))
            except (ResourceNotFoundError, ResourceNotUniqueError):
                raise refusals.of_kind(kind, version) from None

    def kinds(self) -> list[Resource]:
        """Every kind that lives in namespaces and can be listed and deleted, in the version that the server prefers."""
        with self._explained("the kinds"):
            each = [one for several in self._resources for one in several]
        return [
            one
            for one in each
            if not isinstance(one, ResourceList)
            and one.namespaced
            and one.preferred
            and {"list", "delete"} <= set(one.verbs)
        ]

    @cached_property
    def _resources_of(self) -> DynamicClient:
        # By default what a server knows is remembered in /tmp under a name made of its address, and the next cluster may
        # get the same address: this path can't be written, so nothing is remembered longer than this object lives.
        with self._explained("the API server"):
            return DynamicClient(self.client, cache_file=f"{os.devnull}/none")

    @property
    def _resources(self) -> Any:
        return self._resources_of.resources

    @contextmanager
    def _explained(self, about: str) -> Iterator[None]:
        try:
            yield
        except client.ApiException as error:
            if not error.status:
                raise refusals.of_silence(self.host, error) from None
            body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
            raise refusals.of_answer(int(error.status), body, about) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise refusals.of_silence(self.host, error) from None


class _Client(client.ApiClient):
    """The library's own has no limit unless each call gives one, and its discovery gives none."""

    def call_api(
        self, method: Any, url: Any, header_params: Any = None, body: Any = None, post_params: Any = None,
        _request_timeout: Any = None,
    ) -> Any:  # fmt: skip
        return super().call_api(method, url, header_params, body, post_params, _request_timeout or _TIMEOUT)


def _login(kubeconfig: Path | None, context: str | None) -> client.Configuration:
    found = client.Configuration()
    named = os.environ.get("KUBECONFIG")
    given = kubeconfig or (Path(named) if named else None)
    file = given or Path.home() / ".kube" / "config"
    try:
        if given is None and not file.exists() and _SERVICE_ACCOUNT.exists():
            config.load_incluster_config(client_configuration=found)  # reads the token again as it is renewed
        else:
            config.load_kube_config(str(file), context=context, client_configuration=found)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError) as error:
        raise _no_login(file, context, error) from None
    # Once and no more: whoever waits asks again by itself, and the library's own tries are each a line in the notebook.
    found.retries = urllib3.Retry(0)
    # No proxy leads to this machine's own loopback, whatever HTTPS_PROXY says (kubectl sees it so, too).
    found.no_proxy = ",".join(filter(None, (found.no_proxy, "127.0.0.0/8", "::1", "localhost")))
    return found


def _no_login(file: Path, context: str | None, error: Exception) -> CourseError:
    if not file.exists() and os.pathsep not in str(file):
        return CourseError(
            f"there is no kubeconfig at {file}",
            do="Start a cluster (`course cluster up`), or name another file: kubeconfig=…, or the variable KUBECONFIG.",
        )
    try:
        known = [one["name"] for one in config.list_kube_config_contexts(str(file))[0]]
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError):
        known = []
    if context and known and context not in known:
        return CourseError(f"{file} has no context {context}", do=f"It has these: {', '.join(known)}.")
    return CourseError(
        f"the kubeconfig {file} does not lead to a cluster",
        why=str(error),
        do="`kubectl config view` shows it as read.",
    )


def _plain(_: object, answer: Object) -> Object:
    return answer


def _name(kind: str, name: str, namespace: str | None) -> str:
    """An object as errors name it: `Deployment lab/web`."""
    return f"{kind} {'/'.join(part for part in (namespace, name) if part)}".strip()
