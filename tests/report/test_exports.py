"""What other tools read: JUnit XML, Markdown, spans of OpenTelemetry, annotations of Grafana."""

from __future__ import annotations

import http.server
import json
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from faultline.api.run import Run, Verdict
from faultline.errors import ObserveFailed
from faultline.report import annotations, junit, markdown

Read = Callable[[str], Run]


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what it is sent; answers as the collector of OpenTelemetry and as Grafana do."""

    got: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []
    made: ClassVar[list[dict[str, Any]]] = []
    code: ClassVar[int] = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.got.append((self.path, headers, body))
        if self.path == "/api/annotations" and self.code == 200:
            self.made.append(json.loads(body))
            self.answer({"message": "Annotation added", "id": len(self.made)})
        else:
            self.answer({"message": "nothing for you"})

    def do_GET(self) -> None:
        tags = parse_qs(urlsplit(self.path).query).get("tags", [])
        found = [each for each in self.made if set(tags) <= set(each["tags"])]
        self.answer([{"timeEnd": each["time"], **each} for each in found])

    def answer(self, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(self.code)
        if self.code == 302:
            self.send_header("Location", "http://127.0.0.1:9/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def receiver() -> Iterator[str]:
    Receiver.got, Receiver.made, Receiver.code = [], [], 200
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


# ---------------------------------------------------------------------- JUnit


def cases(run: Run) -> dict[str, ET.Element]:
    suite = ET.fromstring(junit.junit(run)).find("testsuite")
    assert suite is not None
    return {case.get("name", ""): case for case in suite.findall("testcase")}


def ends(case: ET.Element) -> list[tuple[str, str | None]]:
    return [(each.tag, each.get("type")) for each in case]


@pytest.mark.parametrize("verdict", [*Verdict, None])
def test_no_verdict_is_rounded_into_another(held: Run, verdict: Verdict | None) -> None:
    held.status.verdict = verdict
    expected = {
        Verdict.HELD: [],
        Verdict.BROKE: [("failure", "broke")],
        None: [("error", "not finished")],
    }
    case = next(iter(cases(held).values()))
    assert ends(case) == expected.get(verdict, [("error", str(verdict))])


def test_the_numbers_of_a_suite_are_those_of_its_cases(run: Run) -> None:
    root = ET.fromstring(junit.junit(run))
    every = list(root.iter("testcase"))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        count = sum(case.find(tag) is not None for case in every)
        assert root.get(name) == str(count)
    assert root.get("tests") == str(len(every))
    if str(run.status.verdict) != "held":
        assert int(root.get("failures", "0")) + int(root.get("errors", "0")) > 0


def test_a_fault_passes_only_if_its_effect_and_its_end_are_proven(recorded: Read) -> None:
    def end(change: Callable[[Any], None]) -> list[tuple[str, str | None]]:
        run = recorded("run-held")
        change(run.status.faults[0])
        return next(ends(case) for name, case in cases(run).items() if name.startswith("fault "))

    def update(**values: Any) -> Callable[[Any], None]:
        return lambda fault: [setattr(fault, key, value) for key, value in values.items()] and None

    assert end(update()) == []
    assert end(update(effect="ineffective")) == [("error", "not effective")]
    assert end(update(effect="unmeasured")) == [("error", "not measured")]
    assert end(update(effect=None)) == [("error", "not measured")]
    assert end(update(residue=["a qdisc"])) == [("error", "recovery incomplete")]
    assert end(update(end="needs a person")) == [("error", "recovery incomplete")]
    assert end(update(end=None)) == [("error", "recovery incomplete")]
    assert end(update(started=None)) == [("error", "never injected")]


def test_nodes_are_cases_and_only_a_condition_skips_one(complete: Run) -> None:
    complete.status.nodes[5].type = "task"
    found = cases(complete)
    assert ends(found["task ask"]) == [("failure", "broke")]
    assert ends(found["probe look"]) == []
    assert ends(found["wait late"]) == [("error", "aborted")]
    assert ends(found["approval never"]) == [("error", "not finished")]
    assert ends(found["task other"]) == [("skipped", None)]
    assert [name for name in found if name.startswith("judgement unknown")]


def test_texts_that_xml_cannot_hold_are_replaced(held: Run) -> None:
    held.status.reason = "a\x00b\x1b[31m</testcase>]]>\ud800 漢"
    held.status.verdict = Verdict.BROKE
    failure = next(iter(cases(held).values())).find("failure")
    assert failure is not None
    assert failure.get("message") == "a\ufffdb\ufffd[31m</testcase>]]>\ufffd 漢"


# ---------------------------------------------------------------------- Markdown


def test_markdown_is_short_and_says_verdict_faults_and_regressions(
    complete: Run, recorded: Read
) -> None:
    text = markdown.markdown(complete, recorded("run-held"))
    assert text.startswith("## ❌ Broke: ")
    assert "slow\\-db" in text
    assert "Regression: verdict: held became broke" in text
    assert len(text.split("<details>")[0].splitlines()) < 60
    assert markdown.markdown(recorded("run-not-effective")).startswith("## ⚠️ Not effective: ")


def test_no_text_of_a_document_is_markup(held: Run) -> None:
    hostile = "<img src=x>|a|\n# x [l](javascript:1) `c` **b** ![i](u) &amp;"
    held.status.reason = hostile
    held.status.faults[0].name = hostile
    text = markdown.markdown(held)
    assert "<img" not in text
    assert "\n# x" not in text
    assert "](" not in text
    heads = [line for line in text.splitlines() if line.startswith("| Fault |")]
    row = text.splitlines()[text.splitlines().index(heads[0]) + 2]
    assert row.replace("\\|", "").count("|") == 6


# ---------------------------------------------------------------------- OpenTelemetry


def decoded(body: bytes) -> Any:
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    request = service.ExportTraceServiceRequest()
    request.ParseFromString(body)
    return request


def plain(attributes: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in attributes}


def test_spans_arrive_with_their_times_parents_and_names(receiver: str, complete: Run) -> None:
    spans = pytest.importorskip("faultline.report.spans")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    count = spans.send(complete, receiver, {"Authorization": "Bearer t0ken"})
    path, headers, body = Receiver.got[0]
    assert (path, headers["authorization"]) == ("/v1/traces", "Bearer t0ken")
    resource = decoded(body).resource_spans[0]
    assert plain(resource.resource.attributes)["service.name"] == "faultline"
    assert plain(resource.resource.attributes)["host.name"] == "test-data"
    found = {span.name: span for span in resource.scope_spans[0].spans}
    assert len(found) == count
    root = found["experiment web-latency"]
    assert root.parent_span_id == b""
    assert root.start_time_unix_nano == round((complete.status.started or 0) * 1e9)
    assert root.status.code == 2, "the hypothesis broke"
    assert found["fault slow-db"].parent_span_id == root.span_id
    assert plain(found["fault slow-db"].attributes)["faultline.fault.effect"] == "effective"
    assert "effective" in [event.name for event in found["fault slow-db"].events]
    assert found["task ask"].parent_span_id == found["serial inner"].span_id
    assert found["serial inner"].parent_span_id == found["parallel all"].span_id
    assert all(span.trace_id == root.trace_id for span in found.values())
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in found.values())


def test_phases_are_spans_where_there_is_no_graph(receiver: str, held: Run) -> None:
    spans = pytest.importorskip("faultline.report.spans")
    spans.send(held, f"{receiver}/v1/traces")
    spans.send(held, f"{receiver}/other")
    first, second = (decoded(body).resource_spans[0].scope_spans[0] for _, _, body in Receiver.got)
    assert [path for path, _, _ in Receiver.got] == ["/v1/traces", "/other"]
    names = {span.name: span.status.code for span in first.spans}
    assert names["phase steady state"] == 0
    assert names["experiment web-latency"] == 1
    assert [s.span_id for s in first.spans] == [s.span_id for s in second.spans], "sent twice"
    assert json.loads(spans.otlp_json(held))["resourceSpans"]


def test_a_collector_that_refuses_is_an_error_with_what_it_said(receiver: str, held: Run) -> None:
    spans = pytest.importorskip("faultline.report.spans")
    Receiver.code = 400
    with pytest.raises(ObserveFailed, match="could not be sent"):
        spans.send(held, receiver)


# ---------------------------------------------------------------------- Grafana


def test_annotations_are_made_once(receiver: str, complete: Run) -> None:
    header = {"Authorization": "Bearer t0ken"}
    made = annotations.send(complete, receiver, header, "board", 3)
    assert made == len(Receiver.made) == len(annotations.every(complete)) == 5
    whole = Receiver.made[0]
    assert whole["timeEnd"] - whole["time"] == 31_000
    assert (whole["dashboardUID"], whole["panelId"]) == ("board", 3)
    assert {"faultline", "run:run-broke", "verdict:broke"} <= set(whole["tags"])
    moment = next(each for each in Receiver.made if "discovered" in each["tags"])
    assert "timeEnd" not in moment
    assert Receiver.got[0][1]["authorization"] == "Bearer t0ken"
    assert annotations.send(complete, receiver, header, "board", 3) == 0, "all are there"


def test_texts_for_grafana_are_no_html(held: Run) -> None:
    held.status.faults[0].name = "<script>alert(1)</script>"
    text = json.loads(annotations.to_json(held))[1]["text"]
    assert text.startswith("&lt;script&gt;")


@pytest.mark.parametrize("code", [302, 401, 500])
def test_what_grafana_says_of_its_failure_is_told(receiver: str, held: Run, code: int) -> None:
    Receiver.code = code
    with pytest.raises(ObserveFailed, match=f"Grafana answered {code}"):
        annotations.send(held, receiver, {})


def test_an_address_that_is_none_is_refused(held: Run) -> None:
    with pytest.raises(ObserveFailed, match="not an address"):
        annotations.send(held, "file:///etc/passwd", {})
    with pytest.raises(ObserveFailed, match="refused"):
        annotations.send(held, "http://127.0.0.1:9", {})


def test_a_run_that_never_began_is_exported_without_anything(held: Run) -> None:
    spans = pytest.importorskip("faultline.report.spans")
    empty = held.model_copy(update={"status": type(held.status)()})
    assert spans.spans(empty) == []
    assert annotations.every(empty) == []
    assert markdown.markdown(empty)
    assert ends(next(iter(cases(empty).values()))) == [("error", "not finished")]
