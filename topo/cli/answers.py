"""What `topo check` answered, for machines: JSON, and the XML of JUnit that CI services show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from xml.etree import ElementTree

from topo._support.screen import printable
from topo._version import __version__
from topo.check import Finding

SCHEMA = "topo-check/1"


@dataclass(frozen=True)
class Answer:
    """One file's: the checks that were asked, where they fail, the lines for a reader, or why there is no answer."""

    file: str
    checks: tuple[str, ...] = ()
    found: tuple[Finding, ...] = ()
    lines: tuple[str, ...] = ()
    kept: int | None = None
    size: int | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """yes, no or error."""
        return "error" if self.error else "no" if self.found else "yes"


def as_json(answers: Sequence[Answer]) -> str:
    """{"schema", "version", "answer", "files": [{"file", "answer", "checks", "findings", ...}]}; answer: the worst."""
    said = [answer.said for answer in answers]
    files = [
        {
            "file": answer.file,
            "answer": answer.said,
            "checks": list(answer.checks),
            "findings": [asdict(finding) for finding in answer.found],
            "kept": answer.kept,
            "params": answer.size,
            "notes": list(answer.notes),
            "error": answer.error,
        }
        for answer in answers
    ]
    worst = next(word for word in ("error", "no", "yes") if word in said)
    document = {"schema": SCHEMA, "version": __version__, "answer": worst, "files": files}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def as_junit(answers: Sequence[Answer]) -> str:
    """A test suite for each file, a test for each check; findings are failures, a file without answer is an error."""
    root = ElementTree.Element("testsuites", name="topo check")
    for answer in answers:
        names = answer.checks or ("read",)
        failed = {finding.check for finding in answer.found}
        counts = {"tests": len(names), "failures": len(failed), "errors": int(bool(answer.error))}
        counted = {key: str(value) for key, value in counts.items()}
        suite = ElementTree.SubElement(root, "testsuite", attrib={"name": printable(answer.file), **counted})
        for name in names:
            case = ElementTree.SubElement(suite, "testcase", classname=printable(answer.file), name=name)
            if answer.error:
                ElementTree.SubElement(case, "error", message=printable(answer.error))
            messages = [printable(finding.message) for finding in answer.found if finding.check == name]
            if messages:
                ElementTree.SubElement(case, "failure", message=messages[0]).text = "\n".join(messages)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"
