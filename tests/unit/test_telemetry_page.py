"""`docs/telemetry.md` and `docs/settings.md` say of telemetry what the code does.

The tables of spans and metrics are made of the services' lists: after a change run it once with
`PARLEY_WRITE_PAGES=1`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType

import pytest

import parley_dispatcher.telemetry
import parley_gateway.telemetry
import parley_history.telemetry
from parley_events.telemetry import Metric, SpanName, TelemetrySettings

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "telemetry.md"
SERVICES: dict[str, ModuleType] = {
    "gateway": parley_gateway.telemetry,
    "dispatcher": parley_dispatcher.telemetry,
    "history": parley_history.telemetry,
}


def spans() -> str:
    lines = []
    for service, listed in SERVICES.items():
        lines += [f"### {service.title()}", ""]
        for span in listed.SPANS:
            lines += [f"**`{span.name}`** ({span.kind}): {span.says}", "", f"- {_names(span.attributes)}"]
            if span.content:
                lines.append(f"- content: {_names(span.content)}")
            lines.append("")
    return "\n".join(lines)


def metrics() -> str:
    lines = []
    for service, listed in SERVICES.items():
        lines += [f"### {service.title()}", "", "| metric | what it is | attributes |", "|---|---|---|"]
        for metric in listed.METRICS:
            kind = f"{metric.instrument}, {metric.unit}"
            lines.append(f"| `{metric.name}` | {metric.says} ({kind}) | {_names(metric.attributes) or '–'} |")
        lines.append("")
    return "\n".join(lines)


def _names(attributes: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in attributes)


@pytest.mark.parametrize(("part", "made"), [("spans", spans()), ("metrics", metrics())])
def test_the_page_has_every_span_and_metric_with_its_attributes(part: str, made: str) -> None:
    text = PAGE.read_text()
    [found] = re.finditer(rf"<!-- {part}: [^\n]*-->\n(.*?)<!-- end -->", text, re.DOTALL)
    if os.environ.get("PARLEY_WRITE_PAGES"):
        PAGE.write_text(text[: found.start(1)] + made + text[found.end(1) :])
        return
    assert found[1] == made, "run it once with PARLEY_WRITE_PAGES=1"


def test_a_list_has_no_name_twice_and_every_attribute_in_a_name() -> None:
    for listed in SERVICES.values():
        names = [entry.name for entry in (*listed.SPANS, *listed.METRICS)]
        assert len(set(names)) == len(names)
        for span in listed.SPANS:
            assert set(re.findall(r"{(.*?)}", span.name)) <= set(span.attributes)
            assert not set(span.content) & set(span.attributes)
        declared = {
            id(value): value for value in vars(listed).values() if isinstance(value, SpanName | Metric)
        }.values()
        assert sorted(entry.name for entry in declared) == sorted(names), "every one that there is stands in the list"


def test_no_metric_has_an_id_for_an_attribute() -> None:
    for listed in SERVICES.values():
        for metric in listed.METRICS:
            ids = [name for name in metric.attributes if name.endswith(".id") and not name.endswith("partition.id")]
            assert not ids, metric.name
            assert "gen_ai.agent.name" not in metric.attributes


# Of each row of the page one value that is not the default, and what it does to telemetry that is on.
EFFECTS = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("http://127.0.0.1:1", TelemetrySettings(True, True)),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ("http://127.0.0.1:1/v1/traces", TelemetrySettings(True, False)),
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ("http://127.0.0.1:1/v1/metrics", TelemetrySettings(False, True)),
    "OTEL_EXPORTER_OTLP_PROTOCOL": ("grpc", None),
    "OTEL_TRACES_EXPORTER": ("none", TelemetrySettings(False, True)),
    "OTEL_METRICS_EXPORTER": ("none", TelemetrySettings(True, False)),
    "OTEL_SDK_DISABLED": ("true", TelemetrySettings()),
    "PARLEY_TRACE_CONTENT": ("1", TelemetrySettings(True, True, True)),
}


def test_every_telemetry_setting_of_the_page_does_what_stands_there() -> None:
    text = (DOCS / "settings.md").read_text()
    [part] = re.findall(r"^## Telemetry\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\| `([A-Z_]+)` \|", part, re.MULTILINE) == list(EFFECTS)
    for name, (value, wanted) in EFFECTS.items():
        on = {} if name.endswith("_ENDPOINT") else {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
        if wanted is None:
            with pytest.raises(ValueError, match=name):
                TelemetrySettings.from_env({**on, name: value})
        else:
            assert TelemetrySettings.from_env({**on, name: value}) == wanted, name


def test_without_an_endpoint_it_is_off_whatever_else_is_set() -> None:
    assert not TelemetrySettings.from_env({}).on
    assert not TelemetrySettings.from_env({"PARLEY_TRACE_CONTENT": "1", "OTEL_TRACES_EXPORTER": "otlp"}).on
    assert not TelemetrySettings.from_env({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}).on


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARLEY_TRACE_CONTENT", "perhaps"),
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        TelemetrySettings.from_env({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", name: value})
