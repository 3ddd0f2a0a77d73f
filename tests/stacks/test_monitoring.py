"""The stack's monitoring: its files are what the programs that read them accept, each alert fires when it should and goes when it should,
leads to a runbook, and asks for metrics that exist.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from course_lib.errors import CourseError
from course_lib.host import unpacked
from course_lib.settings import CHECKOUT

STACK = CHECKOUT / "docker" / "stack"
PROMETHEUS = STACK / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yaml"))
RULE_TESTS = sorted((PROMETHEUS / "tests").glob("*.yaml"))

#: What Prometheus and the blackbox exporter make by themselves.
OWN_METRICS = {"up", "ALERTS", "probe_success", "probe_http_status_code", "probe_ssl_earliest_cert_expiry"}
OWN_METRICS |= {"prometheus_notifications_dropped_total"}


def program(package: str, name: str) -> str:
    try:
        return str(unpacked.program(package, name))
    except CourseError as error:
        pytest.skip(f"{error} {error.why}")


def ran(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, cwd=PROMETHEUS)


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Every rule of a kind (alert or record) by its name."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


ALERTS = rules("alert")


# The programs accept it


def test_promtool_accepts_the_configuration_and_every_rule() -> None:
    checked = ran(program("promtool", "promtool"), "check", "config", "--lint=all", "--lint-fatal", "prometheus.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RULES)} rule files found" in checked.stdout


def test_amtool_accepts_alertmanagers() -> None:
    checked = ran(program("prometheus-alertmanager", "amtool"), "check-config", "alertmanager.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_blackbox_exporter_accepts_its_own() -> None:
    exporter = program("prometheus-blackbox-exporter", "prometheus-blackbox-exporter")
    checked = ran(exporter, "--config.file=blackbox.yaml", "--config.check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_probes_name_modules_that_exist() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())["scrape_configs"]
    modules = yaml.safe_load((PROMETHEUS / "blackbox.yaml").read_text())["modules"]
    asked = {module for job in jobs for module in job.get("params", {}).get("module", [])}
    assert asked == set(modules)


# Alerts fire, resolve, and keep quiet


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda p: p.stem)
def test_alerts_fire_and_resolve(path: Path) -> None:
    done = ran(program("promtool", "promtool"), "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_shown_firing_and_over(alert: str) -> None:
    """In one of the tests it is quiet, then fires, then is quiet again; and the healthy stack loads the file that it is in."""
    for case in (case for path in RULE_TESTS for case in yaml.safe_load(path.read_text())["tests"]):
        looks = [look for look in case["promql_expr_test"] if f'alertname="{alert}"' in look["expr"]]
        fired = [bool(look["exp_samples"]) for look in looks]
        if True in fired and not fired[0] and not fired[-1]:
            break
    else:
        pytest.fail(f"no test shows {alert} quiet, firing and quiet again")
    healthy = yaml.safe_load((PROMETHEUS / "tests" / "health.yaml").read_text())["rule_files"]
    assert {Path(name).name for name in healthy} == {path.name for path in RULES}


# Each alert leads somewhere


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    assert {path.stem for path in (STACK / "runbooks").glob("*.md")} == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_it_is_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert 10 <= int(rule["for"].removesuffix("s")) <= 20
    assert (CHECKOUT / rule["annotations"]["runbook"]).read_text().startswith(f"# {alert}\n")


@pytest.mark.parametrize("alert", ALERTS)
def test_a_runbook_is_whole_and_its_links_hold(alert: str) -> None:
    text = (STACK / "runbooks" / f"{alert}.md").read_text()
    parts = ("**What it means.**", "**What users notice.**", "## First look", "## Likely causes", "## How to see that")
    assert [part for part in parts if part not in text] == []
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (STACK / "runbooks" / link).is_file(), link


def test_inhibition_names_alerts_and_labels_that_exist() -> None:
    jobs = {job["job_name"] for job in yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())["scrape_configs"]}
    known = {"alertname": set(ALERTS), "job": jobs, "dependency": {"chroma", "inference"}}
    for rule in yaml.safe_load((PROMETHEUS / "alertmanager.yaml").read_text())["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            label, values = re.fullmatch(r'(\w+) =~? "?([^"]+)"?', matcher).groups()  # type: ignore[union-attr]
            assert set(values.split("|")) <= known[label], matcher


# Each rule asks for what exists

WORDS = {"sum", "rate", "by", "on", "or", "and", "unless", "absent", "count", "vector", "time", "group_left", "histogram_quantile", "max_over_time"}  # fmt: skip


def metrics_in(expression: str) -> set[str]:
    """Names of the metrics in a PromQL expression: what is left when labels, ranges, lists of labels and words are taken away."""
    text = re.sub(r'\{[^}]*\}|\[[^\]]*\]|"[^"]*"', " ", expression)
    text = re.sub(r"\b(by|on|group_left)\s*\([^)]*\)", " ", text)
    return set(re.findall(r"[a-zA-Z_][\w:]*", text)) - WORDS


def families(text: str) -> dict[str, set[str]]:
    """Series by name, with the labels each has, out of an exposition."""
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^([a-zA-Z_]\w*)(?:\{(.*)\})? ", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)", text, re.MULTILINE):
        found.setdefault(f"{name}_bucket" if kind == "histogram" else name, set())  # no series before its first use
    return found


@pytest.fixture(scope="module")
def inference_metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What a real inference server says on /metrics after a chat, a refused request and a probe."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "docker/inference-server"), "HOST": "127.0.0.1"}
    log = tmp_path_factory.mktemp("server") / "output"
    with log.open("w") as output:
        command = [sys.executable, "-m", "inference_server"]
        process = subprocess.Popen(
            command, env={**environment, "PORT": str(port)}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_until_answers(f"{url}/ready", process, log)
        chat = {"model": "tutor", "messages": [{"role": "user", "content": "What is Docker?"}], "max_tokens": 4}
        body = json.dumps(chat).encode()
        post = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(post, timeout=30).read()
        return families(urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode())
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.fixture(scope="module")
def rag_metrics() -> dict[str, set[str]]:
    """What the RAG service's registry holds; its tests show it on /metrics."""
    program = "from rag_service.metrics import *; from prometheus_client import generate_latest as g; print(g(Metrics().registry).decode())"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "docker/rag-service")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return families(done.stdout)


def wait_until_answers(url: str, process: subprocess.Popen[Any], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return
        except (OSError, urllib.error.URLError):
            assert time.monotonic() < end, f"{url} did not answer:\n{log.read_text()}"
            time.sleep(0.1)


def test_every_metric_of_a_rule_is_one_that_a_service_exposes(
    inference_metrics: dict[str, set[str]], rag_metrics: dict[str, set[str]]
) -> None:
    known = set(inference_metrics) | set(rag_metrics) | OWN_METRICS | set(rules("record"))
    asked = {name for rule in (rules("record") | ALERTS).values() for name in metrics_in(rule["expr"])}
    assert {"up", "http_requests_total", "inference_time_to_first_token_seconds_bucket", "rag_documents"} <= asked
    assert sorted(asked - known) == []
    assert {"route", "status", "method"} <= inference_metrics["http_requests_total"]
    assert {"route", "le"} <= inference_metrics["http_request_duration_seconds_bucket"]
    assert {"model", "le"} <= inference_metrics["inference_duration_seconds_bucket"]
    assert {"stage", "le"} <= rag_metrics["rag_stage_duration_seconds_bucket"]
    assert "dependency" in rag_metrics["rag_dependency_up"] and "result" in rag_metrics["rag_cache_requests_total"]


@pytest.mark.parametrize("alert", ALERTS)
def test_a_runbooks_queries_ask_for_what_exists(alert: str, rag_metrics: dict[str, set[str]]) -> None:
    queries = re.findall(r"query instant \S+ '([^']+)'", (STACK / "runbooks" / f"{alert}.md").read_text())
    assert queries
    for query in queries:
        assert metrics_in(query) <= set(rules("record")) | OWN_METRICS | set(rag_metrics), query


@pytest.mark.parametrize(
    ("file", "names"),
    [("rules/limits.yaml", ["compose.yaml"]), ("limits.gpu.yaml", ["compose.yaml", "compose.gpu.yaml"])],
)
def test_memory_limits_are_those_of_the_compose_files(file: str, names: list[str]) -> None:
    limits = re.findall(r"vector\((\d+)\)\s+labels: \{job: (\w+)\}", (PROMETHEUS / file).read_text())
    assert [service for _, service in limits] == ["inference", "rag"]
    files = [yaml.safe_load((STACK / name).read_text())["services"] for name in names]
    units = {"k": 2**10, "m": 2**20, "g": 2**30}
    for size, service in limits:
        last = [services[service] for services in files if "deploy" in services.get(service, {})][-1]
        text = str(last["deploy"]["resources"]["limits"]["memory"])
        text = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text).lower().removesuffix("b")
        assert int(size) == int(float(text.rstrip("kmg")) * units.get(text[-1], 1)), service


# The blackbox exporter, for real: what `proxy` asks fails for an authority that is not the stack's


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet."""


def authority(folder: Path, name: str, days: int) -> tuple[Path, Path, Path]:
    """A certificate authority, and a certificate for 127.0.0.1 that it signed: (authority, certificate, key)."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificates, and is not here")
    ca, ca_key, cert, key, request, names = (
        folder / f"{name}{end}" for end in ("-ca.pem", "-ca.key", ".pem", ".key", ".csr", ".ext")
    )
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    new = [openssl, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        [*new, "-x509", "-days", "30", "-subj", f"/CN={name}", "-keyout", ca_key, "-out", ca],
        [*new, "-subj", "/CN=proxy", "-keyout", key, "-out", request],
        [openssl, "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", str(days), "-extfile", names, "-out", cert],
    ):  # fmt: skip
        subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=30)
    return ca, cert, key


@contextmanager
def https_server(cert: Path, key: Path) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def test_the_probe_of_the_proxy_verifies_its_certificate_and_sees_its_end(tmp_path: Path) -> None:
    exporter = program("prometheus-blackbox-exporter", "prometheus-blackbox-exporter")
    ca, cert, key = authority(tmp_path, "stack", days=20)
    _, other_cert, other_key = authority(tmp_path, "stranger", days=20)
    config = tmp_path / "blackbox.yaml"
    text = (PROMETHEUS / "blackbox.yaml").read_text()
    assert "/run/secrets/ca.pem" in text
    config.write_text(text.replace("/run/secrets/ca.pem", str(ca)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    log = tmp_path / "output"
    with log.open("w") as output:
        command = [exporter, f"--config.file={config}", f"--web.listen-address={address}"]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_answers(f"http://{address}/-/healthy", process, log)

        def ask(port: int, path: str) -> dict[str, float]:
            query = urllib.parse.urlencode({"module": "https", "target": f"https://127.0.0.1:{port}{path}"})
            said = urllib.request.urlopen(f"http://{address}/probe?{query}", timeout=10).read().decode()
            return {name: float(value) for name, value in re.findall(r"^(probe_\w+) (\S+)$", said, re.MULTILINE)}

        with https_server(cert, key) as port:
            seen = ask(port, "/healthz")
            assert seen["probe_success"] == 1
            assert 19 < (seen["probe_ssl_earliest_cert_expiry"] - time.time()) / 86400 < 21
            assert ask(port, "/elsewhere")["probe_success"] == 0
        with https_server(other_cert, other_key) as port:
            seen = ask(port, "/healthz")
            assert seen["probe_success"] == 0
            assert "probe_ssl_earliest_cert_expiry" not in seen
    finally:
        process.kill()
        process.wait(timeout=10)
