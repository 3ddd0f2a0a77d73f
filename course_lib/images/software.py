"""What software an image carries: a bill of materials (CycloneDX), and known vulnerabilities where a scanner is here."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.images import inspection

#: Reads both package databases; works in any image with Python, distribution tools or not.
_LOOK = """
import json, pathlib
from importlib import metadata
found = [["pypi", d.metadata["Name"], d.version, ""] for d in metadata.distributions()]
release = pathlib.Path("/etc/os-release")
lines = release.read_text().splitlines() if release.exists() else []
vendor = next((line[3:].strip("\\"'") for line in lines if line.startswith("ID=")), "debian")
status = pathlib.Path("/var/lib/dpkg/status")
if status.exists():
    for paragraph in status.read_text().split("\\n\\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" "))
        if "installed" in fields.get("Status", ""):
            found.append(["deb", fields["Package"], fields["Version"], vendor])
print(json.dumps(sorted(found)))
"""


@dataclass(frozen=True)
class Package:
    """One package of an image."""

    kind: str
    """`deb` or `pypi`, as a package URL says it."""
    name: str
    version: str
    vendor: str = ""
    """Whose package it is, as its package URL says it: `debian`, `ubuntu`; empty for Python's."""


def packages(reference: str) -> list[Package]:
    """Every Debian and Python package of an image, read from its own databases."""
    return [Package(*one) for one in json.loads(inspection.in_container(reference, _LOOK, user="0"))]


def write_bill_of_materials(reference: str, path: Path) -> int:
    """Writes an image's packages as CycloneDX 1.6 JSON, which scanners and registries read; returns how many."""
    found = packages(reference)
    bom = Bom()
    image = Component(name=reference, type=ComponentType.CONTAINER)
    bom.metadata.component = image
    for one in found:
        url = PackageURL(one.kind, one.vendor or None, one.name, one.version)
        bom.components.add(Component(name=one.name, version=one.version, type=ComponentType.LIBRARY, purl=url))
    bom.register_dependency(image, bom.components)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(JsonV1Dot6(bom).output_as_string(indent=2))
    return len(found)


def vulnerabilities(reference: str) -> dict[str, int] | str:
    """Known vulnerabilities by severity, by trivy or grype, whichever is here; or a sentence that says why not.

    A scanner's database comes from the network; without it there is no answer, and none is made up.
    """
    try:
        if shutil.which("trivy"):
            said = shell.run(["trivy", "image", "--quiet", "--format=json", "--scanners=vuln", reference], timeout=600)
            results = json.loads(said.stdout).get("Results") or []
            return dict(Counter(v["Severity"].lower() for r in results for v in r.get("Vulnerabilities") or []))
        if shutil.which("grype"):
            said = shell.run(["grype", "--quiet", "--output=json", f"docker:{reference}"], timeout=600)
            return dict(Counter(m["vulnerability"]["severity"].lower() for m in json.loads(said.stdout)["matches"]))
    except CourseError as error:
        return f"not scanned: {error.why.splitlines()[-1] if error.why else error.what}"
    return "not scanned: neither trivy nor grype is on this machine"


def table(*references: str) -> list[dict[str, object]]:
    """How many packages images carry, and what a scanner says of them."""
    rows: list[dict[str, object]] = []
    for reference in references:
        count = Counter(one.kind for one in packages(reference))
        known = vulnerabilities(reference)
        said = (
            known if isinstance(known, str) else ", ".join(f"{n} {severity}" for severity, n in known.items()) or "none"
        )
        rows.append(
            {
                "image": reference,
                "Debian packages": count["deb"],
                "Python packages": count["pypi"],
                "known vulnerabilities": said,
            }
        )
    return rows
