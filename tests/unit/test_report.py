"""Reports: the table in the terminal, what stands below it, the Markdown page and the JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from records import failed, passed, simulated

from pytest_trt import __version__
from pytest_trt.errors import UsageError
from pytest_trt.record import SCHEMA_VERSION, Record
from pytest_trt.report.export import read_report, write_report
from pytest_trt.report.markdown import render
from pytest_trt.report.terminal import notes, table
from pytest_trt.spec.case import Case

RECORDS = [passed(), failed(), simulated()]

TABLE = """\
 case                                         engine          max abs     cosine   top-1   median ms   p95 ms   vs baseline      result
 digits-fp16-b8-tensorrt                      built 12.3 s   1.25e-03   0.999940   1.000        1.25    1.272   +1.0%            passed
 digits-int8-b8[-JIT_CONVOLUTIONS]-tensorrt   cached         1.50e+00   0.910000   0.850         0.5    0.509   missing          accuracy failed
 net-fp16-default-onnxruntime-cpu *           built 0.2 s    0.00e+00          -       -           3    3.054   -10.0% (stale)   latency inconclusive
"""  # noqa: E501 - as it is printed

ONE_BACKEND = """\
 case                                engine          max abs     cosine   top-1   median ms   p95 ms   vs baseline   result
 digits-fp16-b8                      built 12.3 s   1.25e-03   0.999940   1.000        1.25    1.272   +1.0%         passed
 digits-int8-b8[-JIT_CONVOLUTIONS]   cached         1.50e+00   0.910000   0.850         0.5    0.509   missing       accuracy failed
"""  # noqa: E501

NOTES = """\
* simulated: computed in float32, every float16 tensor rounded to float16; latency is not that of float16
synthetic inputs (accuracy on real data is not shown): net
baselines: 1 missing for this environment, so nothing was gated there; record them with --trt-update-baselines=new
baselines: 1 stale, compared but not gated (onnxruntime: 1.30 → 1.31.1)
latency inconclusive (1): the host clock of this machine shows a slowdown only above 629%; not a failure
engines: 2 built in 12.5 s, 1 from the cache"""


def printed(records: list[Record]) -> str:
    """The table without its rule."""
    lines = table(records)
    assert set(lines[1].strip()) == {"─"}
    return "\n".join([lines[0], *lines[2:], ""])


def test_the_table():
    assert printed(RECORDS) == TABLE


def test_the_table_leaves_the_only_backend_out():
    assert printed(RECORDS[:2]) == ONE_BACKEND


def test_ids_are_never_cut():
    record = passed("m" * 200)

    assert record.case.id.removesuffix("-tensorrt") in printed([record])


def test_a_case_that_did_not_run_has_its_row():
    record = Record(Case("m", "fp8", "b1", "fake"), {"accuracy": "skipped", "latency": "skipped"})

    assert printed([record]).splitlines()[1].split() == ["m-fp8-b1", *["-"] * 7, "skipped"]


def test_the_worst_of_several_outputs_is_shown():
    record = passed()
    assert record.accuracy is not None
    outputs = record.accuracy["outputs"]
    outputs["z"] = {**outputs["y"], "max_abs": 7.0, "cosine": None, "top1": 0.5}

    cells = printed([record]).splitlines()[1]
    assert "7.00e+00   0.999940   0.500" in cells


def test_markup_in_names_is_text():
    record = passed()
    record.outcomes["latency"] = "inconclusive"
    record.baseline = {"state": "[bold]new[/bold]"}

    assert "[bold]new[/bold]" in printed([record])


def test_the_notes():
    assert "\n".join(notes(RECORDS)) == NOTES


def test_nothing_to_note_but_engines():
    assert notes([passed()]) == ["engines: 1 built in 12.3 s, 0 from the cache"]


def test_reasons_of_skips_are_counted():
    records = [
        Record(
            Case("m", precision, "b1", "fake"), {"accuracy": "skipped", "latency": "skipped"}, dict.fromkeys(parts, why)
        )
        for precision, parts, why in (
            ("fp8", ("accuracy", "latency"), "no fp8"),
            ("int4", ("accuracy",), "no int4"),
            ("bf16", (), "not said"),
        )
    ]

    assert notes(records)[:2] == ["skipped (2): no fp8", "skipped (1): no int4"]


def test_each_simulation_is_told_once():
    lines = notes([simulated(), simulated("other"), passed()])

    assert len([line for line in lines if line.startswith("* simulated")]) == 1
    assert "synthetic inputs (accuracy on real data is not shown): net, other" in lines


def test_outputs_without_a_value_are_told():
    record = passed()
    assert record.accuracy is not None
    for output in record.accuracy["outputs"].values():
        output["count"] = 0

    assert f"no value was compared, the outputs are empty: {record.case.id}" in notes([record, passed(profile="b1")])


def test_baselines_that_were_written_are_counted():
    records = [passed(), passed(profile="b1")]
    for record in records:
        record.baseline = {"state": "new"}

    assert "baselines: 2 new" in notes(records)


PAGE = """\
# Nightly

- **tensorrt** on NVIDIA H200 143771 MB sm_90, Linux-x86_64; driver 570.86.15; cuda 12.8, tensorrt 10.16.1
- **onnxruntime-cpu** on AMD EPYC x2, Linux-x86_64; driver -; onnxruntime 1.31.1

## digits
"""


def test_the_page_begins_with_the_environments():
    assert render(RECORDS, "Nightly").startswith(PAGE)
    assert render([passed(), passed(profile="b1")], "t").count("**tensorrt**") == 1


def rows_of(page: str) -> dict[str, dict[str, str]]:
    """Cells by column, by case; a bar that is escaped is no border."""
    lines = [line.replace("\\|", "\0") for line in page.splitlines() if line.startswith("| ")]
    split = [[cell.strip().replace("\0", "|") for cell in line.strip("|").split("|")] for line in lines]
    headers = [i for i, cells in enumerate(split) if cells[0] == "case"]
    assert all(len(cells) == len(split[0]) for cells in split)
    return {cells[0]: dict(zip(split[headers[0]], cells, strict=True)) for cells in split if cells[0] != "case"}


def test_the_page_has_a_row_per_case():
    rows = rows_of(render(RECORDS, "Nightly"))

    assert list(rows) == [
        "digits-fp16-b8-tensorrt",
        "digits-int8-b8[-JIT_CONVOLUTIONS]-tensorrt",
        "net-fp16-default-onnxruntime-cpu *",
    ]
    first, second, third = rows.values()
    assert (first["build s"], first["plan MB"], first["median ms"], first["CoV"]) == ("12.3", "1.23", "1.25", "1.63%")
    assert (first["vs baseline"], first["result"], first["clock"]) == ("+1.0%", "passed", "graph")
    assert (second["max abs"], second["top-1"], second["vs baseline"]) == ("1.50e+00", "0.850", "missing")
    assert (third["vs baseline"], third["clock"]) == ("-10.0% (stale)", "host")


def test_every_failure_and_note_is_on_the_page():
    page = render(RECORDS, "Nightly")

    case = "digits-int8-b8[-JIT_CONVOLUTIONS]-tensorrt"
    assert f'- `{case}` accuracy: digits[int8, b8]: output "y" is not close | 3 / 80 mismatched' in page
    assert all(f"- {line.removeprefix('* ')}" in page for line in notes(RECORDS))
    assert "## What failed" not in render([passed()], "t")


def test_a_bar_in_a_cell_does_not_break_the_table():
    record = passed()
    record.baseline = {"state": "a|b"}

    assert "+1.0% (a\\|b)" in render([record], "t")
    assert rows_of(render([record], "t"))["digits-fp16-b8"]["vs baseline"] == "+1.0% (a|b)"


def test_a_page_without_records():
    assert render([], "Nothing").startswith("# Nothing\n")


def test_a_report_reads_as_the_records_it_was_written_from(tmp_path: Path):
    path = tmp_path / "deep" / "report.json"
    records = [*RECORDS, Record(Case("m", "fp8", "b1", "fake"), {"accuracy": "skipped"}, {"accuracy": "no fp8"})]
    write_report(path, records, tmp_path)

    assert read_report(path) == records
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["schema"], content["pytest_trt"]) == (SCHEMA_VERSION, __version__)
    assert content["totals"] == {"failed": 1, "inconclusive": 1, "passed": 1, "skipped": 1}
    assert [r["id"] for r in content["records"]] == [r.case.id for r in records]
    assert "→" in path.read_text(encoding="utf-8")  # text as people read it, not as escapes


def test_a_report_without_samples(tmp_path: Path):
    path = tmp_path / "report.json"
    write_report(path, [passed()], tmp_path, samples=False)
    (record,) = read_report(path)

    assert record.latency is not None
    assert "samples_ms" not in record.latency
    assert record.latency["summary"] == (passed().latency or {})["summary"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_json_is_not_written(tmp_path: Path, value: float):
    """A reader other than Python's would refuse the whole file."""
    record = passed()
    assert record.engine is not None
    record.engine["build_seconds"] = value

    with pytest.raises(ValueError, match="JSON"):
        write_report(tmp_path / "report.json", [record], tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_a_report_that_cannot_be_written_names_its_path(tmp_path: Path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "report.json"

    with pytest.raises(UsageError, match="cannot be written") as caught:
        write_report(path, [passed()], tmp_path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a report of pytest-trt (JSONDecodeError"),
        ("[]", "not a report of pytest-trt (TypeError"),
        ("{}", "not a report of pytest-trt (KeyError: 'schema')"),
        ('{"schema": 1}', "not a report of pytest-trt (KeyError: 'records')"),
        ('{"schema": 1, "records": [1]}', "not a report of pytest-trt (TypeError"),
        ('{"schema": 1, "records": [{}]}', "not a report of pytest-trt (KeyError: 'case')"),
        ('{"schema": 1, "records": [{"case": {"tactics": []}}]}', "not a report of pytest-trt (TypeError"),
        ('{"schema": 2, "records": []}', "report schema 2 is not 1"),
    ],
)
def test_what_is_no_report_is_named(tmp_path: Path, content: str, message: str):
    path = tmp_path / "report.json"
    path.write_text(content)

    with pytest.raises(UsageError) as caught:
        read_report(path)
    assert caught.value.message.startswith(f"{path}: {message}")


def test_a_missing_report_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"none\.json: cannot be read: No such file"):
        read_report(tmp_path / "none.json")


def test_reports_leave_records_as_they_are():
    before = [dataclasses.asdict(record) for record in RECORDS]
    table(RECORDS)
    notes(RECORDS)
    render(RECORDS, "t")

    assert [dataclasses.asdict(record) for record in RECORDS] == before


def test_what_is_said_of_several_metrics_alike_stands_once():
    def judged(record: Record, sentence: str) -> Record:
        verdict = {"outcome": "pass", "gates": True, "against": "baseline", "sentence": sentence}
        accuracy = {**(record.accuracy or {}), "metrics": {"score": {"verdict": verdict}}}
        return dataclasses.replace(record, accuracy=accuracy)

    records = [judged(passed(), "no worse"), judged(passed(), "no worse"), judged(passed(), "better")]
    said = [line for line in notes(records) if "metric" in line]
    first = records[0].case.id
    assert said == [f"{first} and 1 more: metric score: pass (no worse)", f"{first}: metric score: pass (better)"]
