from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from history_rows import row

from pytest_trt.errors import UsageError
from pytest_trt.history.log import HistoryLog


def test_what_is_appended_is_read(tmp_path: Path):
    log = HistoryLog(tmp_path / "history")
    older, newer = [row(1), row(1, id="net-fp32-b1-fake")], [row(40)]

    second, first = log.append(newer), log.append(older)

    assert first == tmp_path / "history" / "2026-01" / "run-0001.jsonl"
    assert second == tmp_path / "history" / "2026-02" / "run-0040.jsonl"
    assert log.read() == ([*older, *newer], [])


def test_a_missing_folder_is_an_empty_history(tmp_path: Path):
    assert HistoryLog(tmp_path / "none").read() == ([], [])
    assert HistoryLog(tmp_path / "none").append([]) is None
    assert not (tmp_path / "none").exists()


def test_runs_at_once_lose_nothing(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: HistoryLog(tmp_path).append([row(1, run=f"r{n}"), row(2, run=f"r{n}", id="b")]), range(40)
            )
        )

    rows, problems = HistoryLog(tmp_path).read()

    assert problems == []
    assert {(found.run, found.id) for found in rows} == {
        (f"r{n}", id) for n in range(40) for id in ("digits-fp16-b8-tensorrt", "b")
    }
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".jsonl"] * 40


def test_a_broken_line_is_named_and_hides_nothing(tmp_path: Path):
    log = HistoryLog(tmp_path)
    file = log.append([row(1), row(1, id="b")])
    assert file is not None
    first, second = file.read_text().splitlines()
    later = json.dumps({**row(2).to_json(), "schema": 9})
    file.write_text("\n".join([first, second[:50], "", "<<<<<<< main", "[]", '{"schema": 1}', later, second]) + "\n")

    rows, problems = log.read()

    assert [found.id for found in rows] == ["b", "digits-fp16-b8-tensorrt"]
    assert [problem.split(": ")[0] for problem in problems] == [f"{file}:{number}" for number in (2, 4, 5, 6, 7)]
    assert problems[3].endswith("'run' is missing")
    assert problems[4].endswith("schema 9 is not 1")


def test_bytes_that_are_no_text_are_a_broken_line(tmp_path: Path):
    log = HistoryLog(tmp_path)
    file = log.append([row(1)])
    assert file is not None
    file.write_bytes(b"\xff\xfe\n" + file.read_bytes())

    rows, problems = log.read()

    assert rows == [row(1)]
    assert problems[0].startswith(f"{file}:1: ")


def test_a_file_that_cannot_be_read_is_named_and_hides_nothing(tmp_path: Path):
    log = HistoryLog(tmp_path)
    log.append([row(1)])
    (tmp_path / "folder.jsonl").mkdir()

    assert log.read() == ([row(1)], [f"{tmp_path / 'folder.jsonl'}: cannot be read: Is a directory"])


def test_files_may_be_put_together(tmp_path: Path):
    log = HistoryLog(tmp_path)
    files = [log.append([row(number)]) for number in (1, 2)]
    (tmp_path / "all.jsonl").write_text("".join(file.read_text() for file in files if file))

    assert log.read() == ([row(1), row(2)], [])


def test_a_file_in_place_of_the_folder_is_said(tmp_path: Path):
    (tmp_path / "history").write_text("")
    log = HistoryLog(tmp_path / "history")

    with pytest.raises(UsageError, match=r"--trt-history: .*history is a file"):
        log.read()
    with pytest.raises(UsageError, match=r"--trt-history: .*cannot be written"):
        log.append([row()])
