"""An image's bill of materials is what its own databases say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from course_lib.images import software

pytestmark = pytest.mark.docker


def test_both_databases_are_read(small_image: str, inference_image: str) -> None:
    base, ours = software.packages(small_image), software.packages(inference_image)
    assert any(one.kind == "deb" and one.name == "libc6" for one in base)
    assert {one.name for one in ours if one.kind == "pypi"} >= {"fastapi", "onnxruntime"}
    assert {one for one in base if one.kind == "deb"} <= set(ours)


def test_the_bill_is_cyclonedx_with_package_urls(inference_image: str, tmp_path: Path) -> None:
    count = software.write_bill_of_materials(inference_image, tmp_path / "sbom.json")
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX" and len(bill["components"]) == count
    assert any(c["purl"].startswith("pkg:pypi/fastapi@") for c in bill["components"])
    assert any(c["purl"].startswith("pkg:deb/debian/libc6@") for c in bill["components"])


def test_without_a_scanner_it_says_so(inference_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert software.vulnerabilities(inference_image) == "not scanned: neither trivy nor grype is on this machine"
