"""What an encoding lacks is spelled out, and nothing else changes."""

from __future__ import annotations

import io

import pytest

from pytest_trt.report.plain import encodable, spell_out


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("5.1 × its limit ≤ 2 … → é", "utf-8", "5.1 × its limit ≤ 2 … → é"),
        ("5.1 × its limit ≤ 2 … → é", "ascii", "5.1 x its limit <= 2 ... -> \\xe9"),
        ("5.1 × its limit ≤ 2 … → é", "latin-1", "5.1 × its limit <= 2 ... -> é"),
        ("5.1 × its limit ≤ 2 … → é", "cp1252", "5.1 × its limit <= 2 … -> é"),
        ("two\n ── lines", "ascii", "two\n -- lines"),
        ("as far as it is known: ≤", None, "as far as it is known: ≤"),
        ("a name that is no text: \udcff", "utf-8", "a name that is no text: \\udcff"),
    ],
)
def test_what_the_encoding_lacks_is_spelled_out(text: str, encoding: str | None, shown: str):
    assert encodable(text, encoding) == shown


def test_a_stream_spells_out_what_it_is_given_from_then_on():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="")

    spell_out(stream)
    print("1 → 2", file=stream, flush=True)

    assert raw.getvalue() == b"1 -> 2\n"


def test_a_stream_of_text_lacks_nothing():
    stream = io.StringIO()

    spell_out(stream)
    stream.write("→")

    assert stream.getvalue() == "→"
