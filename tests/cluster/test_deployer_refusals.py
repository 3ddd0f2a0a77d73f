"""What the API server's answers are turned into; test_deployer_cluster.py has a server give them."""

from __future__ import annotations

import json

import pytest

from course_lib.cluster import refusals


def answer(message: str, *causes: dict[str, str]) -> str:
    return json.dumps({"kind": "Status", "message": message, "details": {"causes": list(causes)}})


@pytest.mark.parametrize(
    ("status", "body", "what", "do"),
    [
        (400, answer('strict decoding error: unknown field "spec.replica"'), "has a field that its kind does not have", "typing error"),
        (401, answer("Unauthorized"), "does not accept this login", "new kubeconfig"),
        (403, answer('deployments.apps is forbidden: User "x" cannot create resource'), "this user may not do that with Deployment lab/web", "auth can-i"),
        (403, answer('pods "web" is forbidden: exceeded quota: q, requested: cpu=2'), "quota", "describe quota"),
        (403, answer('unable to create new content in namespace lab because it is being terminated'), "being deleted", "Wait"),
        (403, answer('pods "web" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot'), "policy", "mend the manifest"),
        (404, answer('deployments.apps "web" not found'), "there is no Deployment lab/web", "name"),
        (404, answer('namespaces "lab" not found'), "the namespace of Deployment lab/web is not there", "Create"),
        (409, answer('Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas'), "somebody else set fields", "force=True"),
        (409, answer("the object has been modified; please apply your changes"), "in the same moment", "once more"),
        (422, answer("field is immutable"), "can't be changed", "Delete it"),
        (500, answer("failed to create typed patch object: .spec.replica: field not declared in schema"), "has a field that its kind does not have", "typing error"),
        (500, answer("failed to create typed patch object: .spec.ports: element 0: omits key"), "can't merge", "explain"),
        (503, answer("the server is currently unable to handle the request"), "could not answer", "wait"),
        (418, "short and stout", "answered 418", "own words"),
    ],
)  # fmt: skip
def test_an_answer_is_a_sentence_and_says_what_to_do(status: int, body: str, what: str, do: str) -> None:
    told = refusals.of_answer(status, body, "Deployment lab/web")
    assert what in told.what and do in told.do and told.status == status
    assert told.why, "the server's own words are kept"


def test_each_field_that_is_wrong_has_a_line_of_its_own() -> None:
    causes = (
        {"field": "spec.replicas", "message": "must be at least 0"},
        {"field": "spec.selector", "message": "Required"},
    )
    told = refusals.of_answer(422, answer("Deployment is invalid: [one long line]", *causes), "Deployment lab/web")
    assert told.why == "spec.replicas: must be at least 0\nspec.selector: Required"


@pytest.mark.parametrize(
    ("status", "passing"), [(0, True), (429, True), (503, True), (403, False), (404, False), (409, False)]
)
def test_what_may_pass_by_itself(status: int, passing: bool) -> None:
    assert refusals.of_answer(status, "", "x").passing is passing
