import re
from pathlib import Path

import pytest

from loadtests.arrivals import Trace
from loadtests.section import ScenarioError
from loadtests.traces import Row, prompts, read

AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-12 23:59:59.501143+00:00,2162,5
2024-05-13 00:00:00.001143+00:00,2399,0
"""
MOONCAKE = """{"timestamp": 3000, "input_length": 1100, "output_length": 26, "hash_ids": [46, 47, 48]}
{"timestamp": 4500, "input_length": 1300, "output_length": 52, "hash_ids": [46, 47, 2353]}

{"timestamp": 4500, "input_length": 5, "output_length": 1, "hash_ids": []}
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "trace") -> Path:
        file = tmp_path / name
        file.write_text(text)
        return file

    return write


def azure(file: Path, seconds: float = 100, speed: float = 1) -> list[Row]:
    return read(Trace(file=file, format="azure", speed=speed), seconds)


def mooncake(file: Path, seconds: float = 100) -> list[Row]:
    return read(Trace(file=file, format="mooncake"), seconds)


def test_an_azure_trace_of_2023_begins_at_0_and_keeps_its_gaps_and_tokens(write):
    rows = azure(write(AZURE_2023))
    assert [(374, 44), (396, 109), (879, 55)] == [(row.input_tokens, row.output_tokens) for row in rows]
    assert [0, 4.314579, 4.541877] == pytest.approx([row.at for row in rows], abs=2e-6)


def test_an_azure_trace_of_2024_crosses_midnight_and_counts_0_tokens_as_1(write):
    assert [Row(0, 2162, 5), Row(0.5, 2399, 1)] == azure(write(AZURE_2024))


def test_azure_columns_may_come_in_any_order(write):
    text = "GeneratedTokens,TIMESTAMP,More,ContextTokens\n9,2024-05-12 00:00:00,x,7\n"
    assert [Row(0, 7, 9)] == azure(write(text))


def test_a_byte_order_mark_before_the_header_does_no_harm(write):
    assert 2 == len(azure(write("\ufeff" + AZURE_2024)))


def test_speed_2_replays_twice_as_fast(write):
    assert [0, 0.25] == [row.at for row in azure(write(AZURE_2024), speed=2)]


def test_rows_due_after_the_end_are_not_even_read(write):
    file = write(AZURE_2024 + "this is not a row\n")
    assert [Row(0, 2162, 5)] == azure(file, seconds=0.5)


def test_a_mooncake_trace_is_in_milliseconds(write):
    assert [(0, 1100, 26), (1.5, 1300, 52), (1.5, 5, 1)] == [
        (row.at, row.input_tokens, row.output_tokens) for row in mooncake(write(MOONCAKE))
    ]


def test_mooncake_prompts_share_exactly_the_blocks_that_they_have_in_common(write):
    first, second, _ = (text.split() for text in prompts(mooncake(write(MOONCAKE)), seed=1))
    same = next(i for i, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    assert 1024 <= same < 1024 + 5  # the next words differ but for chance, 1 in 256 each
    assert [1100, 1300] == [len(first), len(second)]


def test_a_block_reads_the_same_in_whichever_row_it_is():
    rows = [Row(0, 512, 1, (7,)), Row(1, 1024, 1, (8, 7))]
    alone, after = prompts(rows, seed=1)
    assert alone.split() == after.split()[512:]


def test_words_past_the_known_blocks_are_the_rows_own():
    rows = [Row(0, 600, 1, (7,)), Row(1, 600, 1, (7,))]
    first, second = (text.split() for text in prompts(rows, seed=1))
    assert [600, 600] == [len(first), len(second)]
    assert first[:512] == second[:512]
    assert first[512:515] != second[512:515]


def test_blocks_beyond_the_length_are_left_out():
    (text,) = prompts([Row(0, 512, 1, (7, 8))], seed=1)
    assert 512 == len(text.split())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "TIMESTAMP,ContextToken,GeneratedTokens\n",
            "line 1: no column ContextTokens; did you mean 'ContextToken'",
        ),
        ("", "line 1: no column TIMESTAMP"),
        (AZURE_2023 + "yesterday,1,1\n", "line 5: 'yesterday,1,1' is not a request"),
        (AZURE_2023 + "2023-11-16 18:16:00,12.5,1\n", "line 5: .*; write it as 2023-"),
        (AZURE_2023 + "2023-11-16 18:16:00,12\n", "line 5: .* or remove the line"),
        (AZURE_2023 + "2023-11-16 18:16:00,-3,1\n", "line 5: .*below 0"),
        (AZURE_2023 + "2023-11-16 18:16:00+00:00,1,1\n", "line 5: .*offset-naive"),
        (AZURE_2023 + "2023-11-16 18:15:50,1,1\n", "line 5: it is 1.22247 s before the line above; sort"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "holds no requests"),
    ],
)
def test_a_bad_azure_row_is_an_error_with_file_line_and_fix(write, text, says):
    file = write(text)
    with pytest.raises(ScenarioError, match=f"{re.escape(str(file))}.*{says}"):
        azure(file)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1: not a request .* or remove the line"),
        ('{"timestamp": 0, "output_length": 1}', "line 1: .*input_length"),
        ('{"timestamp": 0, "input_length": -1, "output_length": 1}', "line 1: .*>= 0"),
        ('{"timestamp": "0", "input_length": 1, "output_length": 1}', "line 1: .*timestamp"),
        ("\n", "holds no requests"),
    ],
)
def test_a_bad_mooncake_row_is_an_error_with_file_line_and_fix(write, line, says):
    file = write(line)
    with pytest.raises(ScenarioError, match=f"{re.escape(str(file))}.*{says}"):
        mooncake(file)


def test_a_missing_trace_says_where_to_get_one_and_how_to_give_it(tmp_path):
    with pytest.raises(ScenarioError, match=r"nowhere\.csv.*AzurePublicDataset.*arrivals\.file"):
        azure(tmp_path / "nowhere.csv")


def test_a_trace_that_is_not_text_is_an_error(tmp_path):
    file = tmp_path / "trace"
    file.write_bytes(b"TIMESTAMP,ContextTokens,GeneratedTokens\n\xff\xfe,1,1\n")
    with pytest.raises(ScenarioError, match="cannot be read"):
        azure(file)
