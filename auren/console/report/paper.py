"""HTML on standard input to a PDF on standard output: a process of its own, started by rendering.py.

Of its own, so that its memory and its time have an end, a fault in a system library ends nothing else, and what does
not make reports never loads weasyprint. It imports nothing of ours and reads no address, of the net or of a file.
"""

import hashlib
import resource
import sys

MOST_MEMORY = 1536 * 2**20  # bytes of address space
MOST_SECONDS = 120  # of computing


def bound() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def pdf(html: bytes) -> bytes:
    from weasyprint import HTML  # noqa: PLC0415 - after `bound`
    from weasyprint.urls import URLFetcher  # noqa: PLC0415

    # The identifier would be random otherwise: the same report is the same bytes.
    identifier = hashlib.sha256(html).digest()[:16]
    document = HTML(string=html.decode(), url_fetcher=URLFetcher(allowed_protocols=()))
    made: bytes = document.write_pdf(pdf_variant="pdf/ua-1", pdf_identifier=identifier)
    return made


if __name__ == "__main__":
    bound()
    sys.stdout.buffer.write(pdf(sys.stdin.buffer.read()))
