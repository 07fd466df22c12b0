"""Write the tables of docs/reference/ from params, settings, HTTP API, Makefile and metrics.

    make reference       python -m scripts.reference

Each page is written by hand up to MARKER; the rest is replaced. Tests check that the committed
pages are what this writes, and that the metrics of the pipeline are all described by hand.
"""

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry.dvc_lock import read_yaml
from serving.app import create_app
from serving.metrics import Metrics
from serving.settings import Settings
from stages.params import Params

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
MARKER = "<!-- The rest is written by `make reference`. -->\n"
Rows = Sequence[Sequence[str]]


def render(rows: Rows) -> str:
    """Return rows as a Markdown table; the first is the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines) + "\n"


def params() -> str:
    """Return the page of params.yaml: each key, its committed value, its meaning."""
    values = read_yaml(ROOT / "params.yaml")
    parts = []
    for section, info in Params.model_fields.items():
        docstring = inspect.getdoc(info.annotation) or ""
        rows = [("key", "value", "meaning")]
        for name, meaning in describe_attributes(docstring).items():
            value = values[section].get(name, "–")
            text = "null" if value is None else str(value).replace("'", '"')
            rows.append((f"`{section}.{name}`", f"`{text}`", meaning))
        parts.append(f"\n## {section}\n\n{docstring.splitlines()[0]}\n\n{render(rows)}")
    return "".join(parts)


def describe_attributes(docstring: str) -> dict[str, str]:
    """Return the entries under `Attributes:`; `a, b: text` is one for each."""
    block = docstring.partition("Attributes:\n")[2].partition("\n\n")[0]
    entries = re.split(r"\n(?=    \w)", block.replace("\n        ", " ").rstrip())
    attributes = {}
    for entry in entries:
        names, _, meaning = entry.strip().partition(": ")
        attributes.update(dict.fromkeys(names.split(", "), meaning))
    return attributes


def settings() -> str:
    """Return the page of the service's environment variables."""
    rows = [("variable", "default", "meaning")]
    for name, info in Settings.model_fields.items():
        default = "" if info.default in (None, "") else f"`{info.default}`"
        rows.append((f"`{name.upper()}`", default, info.description or ""))
    return "\n" + render(rows)


def http_api() -> str:
    """Return the page of the HTTP API: routes, statuses, and the fields of each body."""
    api = create_app(Settings.model_construct()).openapi()
    routes = [("route", "meaning", "body", "answer")]
    statuses: dict[str, str] = {}
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            statuses |= {status: answer["description"] for status, answer in answers.items()}
            bodies = [link_schema(operation.get("requestBody", {})), link_schema(answers["200"])]
            routes.append((f"`{method.upper()} {path}`", operation["description"], *bodies))
    statuses_table = render([("status", "meaning"), *sorted(statuses.items())])
    parts = [f"\n{render(routes)}\n## Statuses\n\n{statuses_table}"]
    for name, schema in api["components"]["schemas"].items():
        fields = [("field", "type", "meaning")]
        for field, value in schema.get("properties", {}).items():
            required = "" if field in schema.get("required", ()) else ", optional"
            example = "".join(f"such as `{text}`" for text in value.get("examples", [])[:1])
            meaning = value.get("description", example)
            fields.append((f"`{field}`", describe_type(value) + required, meaning))
        parts.append(f"\n## {name}\n\n{schema.get('description', '')}\n\n{render(fields)}")
    return re.sub("\n{3,}", "\n\n", "".join(parts))


def link_schema(body: dict[str, Any]) -> str:
    """Return the link to a body's schema, nothing if it has none."""
    schema = body.get("content", {}).get("application/json", {}).get("schema", {})
    return describe_type(schema) if "$ref" in schema else ""


def describe_type(schema: dict[str, Any]) -> str:
    """Return a JSON schema's type in words, with links to the page's own sections."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if options := schema.get("anyOf"):
        return " or ".join(map(describe_type, options))
    if values := schema.get("enum"):
        return " or ".join(f"`{value}`" for value in values)
    if schema.get("type") == "array":
        return f"list of {describe_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def make_targets() -> str:
    """Return the page of the Makefile's targets."""
    parts = []
    for section in re.split(r"^##@ ", (ROOT / "Makefile").read_text("utf-8"), flags=re.M)[1:]:
        title, _, text = section.partition("\n")
        targets = re.findall(r"^([a-z-]+):.*?## (.*)$", text, re.M)
        rows = [(f"`make {name}`", meaning) for name, meaning in targets]
        parts.append(f"\n## {title}\n\n{render([('command', 'effect'), *rows])}")
    return "".join(parts)


def service_metrics() -> str:
    """Return the table of the service's metrics."""
    rows: list[Sequence[str]] = [("metric", "type", "labels", "meaning")]
    for metric in vars(Metrics()).values():
        if hasattr(metric, "describe"):
            family = next(iter(metric.describe()))
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            rows.append((f"`{name}`", family.type, labels, family.documentation))
    return "\n" + render(rows)


PAGES = {
    "params": params,
    "settings": settings,
    "http-api": http_api,
    "make-targets": make_targets,
    "metrics": service_metrics,
}


def render_page(name: str) -> str:
    """Return a whole page: what is written by hand up to MARKER, and the rest."""
    beginning = (REFERENCE / f"{name}.md").read_text("utf-8").partition(MARKER)[0]
    return beginning + MARKER + PAGES[name]()


def main() -> None:
    """Write all pages."""
    for name in PAGES:
        (REFERENCE / f"{name}.md").write_text(render_page(name), encoding="utf-8")


if __name__ == "__main__":
    main()
