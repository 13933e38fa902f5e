"""The PDF, read back as a person would."""

import re
import shutil
import subprocess
import zlib
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from django.test import Client
from django.urls import reverse

from auren.console.models import Export
from auren.console.report import rendering
from auren.console.report.libraries import lacking
from auren.console.report.rendering import PROGRAM, Unmakeable, rendered
from devices.models import Assignment, Patient
from tests.console.exports.test_pages import body, file_of, make, posted
from tests.console.report.reported import of, page

pytestmark = pytest.mark.skipif(
    bool(lacking()) or not shutil.which("pdftotext"),
    reason="reports need libpango, libharfbuzz-subset and, to be read back, poppler-utils of the system",
)


def read_back(content: bytes, *command: str) -> str:
    return subprocess.run([*command, "-"], input=content, capture_output=True, check=True).stdout.decode()


def text_of(content: bytes) -> str:
    return subprocess.run(
        ["pdftotext", "-layout", "-", "-"], input=content, capture_output=True, check=True
    ).stdout.decode()


def unpacked(content: bytes) -> bytes:
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    return b"".join(zlib.decompressobj().decompress(stream) for stream in streams if stream.startswith(b"x"))


def made(text: str) -> bytes:
    return b"".join(rendered(text))


def test_the_pdf_reads_as_the_page_is_tagged_and_the_same_bytes_again(week: Patient) -> None:
    content = made(page(of(week)))
    text = text_of(content)
    for said in ("Ada Nowak", "user_1", "1 Nov 2026 to 10 Nov 2026", "9 of 10", "51 bpm", "Page 1 of", "no diagnosis"):
        assert said in text
    about = read_back(content, "pdfinfo")
    assert "Report of Ada Nowak, 1 Nov 2026 to 10 Nov 2026" in about
    assert "A4" in about
    assert "pdfuaid:part" in read_back(content, "pdfinfo", "-meta")
    assert b"(Resting heart rate by day, 1 Nov 2026 to 10 Nov 2026: 9 of 10 days have data" in unpacked(content)
    assert made(page(of(week))) == content


def test_names_of_any_kind_can_be_laid_out(patient: Patient) -> None:
    name = "W" * 100 + " שרה כהן محمد 😀 山田 <script>alert(1)</script>"
    text = text_of(made(page(replace(of(patient, days=2), name=name, external_id="x" * 255))))
    assert "<script>" in text


def test_no_address_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.svg"
    secret.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="90" height="20"><text y="15">SECRET</text></svg>')
    text = f'<html lang="en"><title>x</title><body><p>shown</p><img alt="x" src="{secret.as_uri()}"></body></html>'
    found = text_of(made(text))
    assert "shown" in found
    assert "SECRET" not in found


def test_making_it_gives_signs_of_life_and_can_be_stopped() -> None:
    text = f'<html lang="en"><title>x</title><body>{"<p>word</p>" * 20_000}</body></html>'
    beats = cast("Generator[bytes]", rendered(text))
    assert next(beats) == b""
    beats.close()


def test_what_cannot_be_laid_out_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "paper.py"
    broken.write_text("raise SystemExit(3)")
    monkeypatch.setattr(rendering, "PROGRAM", (PROGRAM[0], str(broken)))
    with pytest.raises(Unmakeable, match="could not be laid out"):
        made("<p>")


def test_it_is_asked_for_watched_and_taken_as_other_exports(
    clinic: Client, week: Patient, assigned: Assignment
) -> None:
    export = posted(clinic, week, format="pdf", start="2026-11-01", end="2026-11-10")
    assert (export.state, export.direct) == ("waiting", False)
    assert "It is next." in clinic.get(reverse("export", args=[export.pk])).content.decode()
    make()
    export = Export.objects.get(pk=export.pk)
    assert (export.state, export.error, export.samples_done, export.samples_total) == ("done", "", 16, 16)
    response = clinic.get(file_of(export))
    assert response.headers["Content-Type"] == "application/pdf"
    assert response.headers["Content-Disposition"] == 'attachment; filename="auren-user_1-2026-11-01-2026-11-10.pdf"'
    assert f"clara export {export.pk}" in text_of(body(response))
