import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.distributions import Fixed, Uniform
from loadtests.prompts import Dataset, File, Lengths, Prompts
from loadtests.section import ScenarioError
from loadtests.streams import stream
from loadtests.traces import Row
from loadtests.words import OPENING, STRIDE, WORDS, texts

QUESTIONS = (
    'text,category\nWhere is my card?,card_arrival\n"Why, oh why, was I charged?",fee\nCan I pay?,pay\n'
)


def said(source: Prompts, n: int, seed: int = 1) -> list[str]:
    """The user's words of n single-message prompts."""
    return [message["content"] for (message,) in source.turns(seed, n)]


def test_the_word_list_has_256_different_words_without_spaces():
    assert 256 == len(set(WORDS)) == len(WORDS)
    assert [] == [word for word in WORDS if not re.fullmatch("[a-z]+", word)]


def test_a_prompt_has_as_many_words_as_tokens_were_asked_for():
    lengths = [len(text.split()) for text in said(Lengths(tokens=Uniform(low=5, high=9)), 2000)]
    assert {5, 6, 7, 8, 9} == set(lengths)


def test_without_a_length_a_prompt_has_64_words():
    assert [64] == [len(text.split()) for text in said(Lengths(), 1)]


def test_prompts_of_three_words_or_more_differ_in_their_first_three():
    openings = Counter(tuple(text.split()[:3]) for text in said(Lengths(tokens=Fixed(value=3)), 70_000))
    assert 1 == max(openings.values())


def test_the_openings_go_through_every_number_before_one_repeats():
    # An odd stride has no factor in common with 256^3, a power of two.
    assert 1 == STRIDE % 2 and 256**OPENING == 2**24


def test_another_seed_makes_other_prompts():
    first, second = ({tuple(text.split()[:3]) for text in said(Lengths(), 100, seed)} for seed in (1, 2))
    assert set() == first & second


@given(st.lists(st.integers(0, 30), max_size=50), st.booleans(), st.integers(0, 2**32))
def test_texts_have_the_asked_number_of_words_whatever_the_counts(counts, unique, seed):
    made = texts(stream(seed, "texts"), np.array(counts, dtype=np.int64), unique)
    assert counts == [len(text.split()) for text in made]


def test_texts_go_on_past_one_batch():
    assert [1] * 3000 == [len(text.split()) for text in texts(stream(1, "x"), np.ones(3000, np.int64))]


def test_a_shared_prefix_and_a_system_prompt_open_every_conversation():
    (message,) = Lengths(system="Be brief.", shared_prefix_tokens=20).opening(seed=1)
    system, prefix = message["content"].split("\n\n")
    assert ("system", "Be brief.", 20) == (message["role"], system, len(prefix.split()))


def test_without_them_a_conversation_opens_with_the_user():
    assert () == Lengths().opening(seed=1)


def test_a_trace_gives_the_lengths_unless_the_scenario_does():
    rows = [Row(0, 12, 1), Row(1, 30, 1)]
    recorded = [message["content"] for (message,) in Lengths().turns(1, 2, rows)]
    fixed = [message["content"] for (message,) in Lengths(tokens=Fixed(value=5)).turns(1, 2, rows)]
    assert [12, 30] == [len(text.split()) for text in recorded]
    assert [5, 5] == [len(text.split()) for text in fixed]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "one\n\n  two  \nthree\n"),
        ("p.csv", "\ufeffprompt,id\none,1\ntwo,2\nthree,3\n"),
        ("p.jsonl", '{"prompt": "one"}\n{"prompt": "two", "id": 2}\n\n{"prompt": "three"}\n'),
    ],
)
def test_a_file_of_each_kind_gives_its_prompts(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert {"one", "two", "three"} == set(said(File(file=tmp_path / name), 3))


def test_each_prompt_of_a_file_is_used_once_before_any_is_used_again(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(f"prompt {i}" for i in range(40)))
    drawn = said(File(file=tmp_path / "p.txt"), 100)
    assert {2: 20, 3: 20} == Counter(Counter(drawn).values())
    assert 40 == len(set(drawn[:40])) == len(set(drawn[40:80]))
    assert drawn[:40] != drawn[40:80]


def test_no_prompts_are_drawn_for_no_requests(tmp_path):
    (tmp_path / "p.txt").write_text("one\n")
    assert [] == said(File(file=tmp_path / "p.txt"), 0)


def test_a_row_with_messages_is_a_conversation(tmp_path):
    messages = [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Hello", "name": "x"}]
    (tmp_path / "p.jsonl").write_text(json.dumps({"messages": messages}))
    (made,) = File(file=tmp_path / "p.jsonl").turns(1, 1)
    assert ({"role": "system", "content": "Rhyme."}, {"role": "user", "content": "Hello"}) == made


def test_a_dataset_is_one_column_of_a_csv(tmp_path):
    (tmp_path / "questions.csv").write_text(QUESTIONS)
    drawn = said(Dataset(path=tmp_path / "questions.csv"), 3)
    assert {"Where is my card?", "Why, oh why, was I charged?", "Can I pay?"} == set(drawn)


def test_a_dataset_folder_is_read_by_split(tmp_path):
    (tmp_path / "train.csv").write_text("text\ntrained\n")
    (tmp_path / "test.jsonl").write_text('{"text": "tested"}\n')
    assert ["trained"] == said(Dataset(path=tmp_path), 1)
    assert ["tested"] == said(Dataset(path=tmp_path, split="test"), 1)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.csv", QUESTIONS, "line 1: no column 'prompt'; known here: category, text; set prompts.column"),
        ("p.csv", "prompt\none\n   \n", "line 3: prompt = '   ' is not a text; mend or remove"),
        ("p.csv", "id,prompt\n1\n", "line 2: prompt = None is not a text"),
        ("p.csv", "prompt\n" + "a" * 200_000, "cannot be read: field larger"),
        (
            "p.jsonl",
            '{"prompt": "a"}\n{"prompts": "b"}\n',
            "line 2: neither 'prompt' nor 'messages'; did you mean 'pr",
        ),
        ("p.jsonl", "[1]\n", "line 1: neither 'prompt' nor 'messages'; it is no object"),
        ("p.jsonl", "nothing\n", "line 1: not JSON .*; mend or remove the line"),
        ("p.jsonl", '{"messages": [{"role": "user"}]}\n', "line 1: messages must be a list of"),
        (
            "p.jsonl",
            '{"messages": [{"role": "user", "content": [1]}]}\n',
            "line 1: messages must be a list of",
        ),
        ("p.jsonl", '{"messages": []}\n', "line 1: messages is empty"),
        ("p.txt", "\n\n", "holds no prompts"),
        ("p.parquet", "", "'?.parquet'? is not one of .txt, .csv, .jsonl"),
    ],
)
def test_a_bad_row_is_an_error_with_file_line_and_fix(tmp_path: Path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(ScenarioError, match=f"{re.escape(str(tmp_path / name))}.*{says}"):
        said(File(file=tmp_path / name), 1)


def test_a_missing_file_says_what_is_missing_and_how_to_give_it():
    with pytest.raises(ScenarioError, match=r"prompts\.file = 'nowhere\.csv': no such file; give the path"):
        said(File(file=Path("nowhere.csv")), 1)


def test_a_missing_dataset_says_what_is_missing_and_how_to_give_it():
    with pytest.raises(
        ScenarioError, match=r"prompts\.path = 'nowhere': no such .* with train\.csv or .* 'text'"
    ):
        said(Dataset(path=Path("nowhere")), 1)


def test_a_folder_without_the_split_lists_what_it_has(tmp_path):
    (tmp_path / "test.csv").write_text(QUESTIONS)
    with pytest.raises(ScenarioError, match=r"neither train\.csv nor train\.jsonl \(it has test\.csv\)"):
        said(Dataset(path=tmp_path), 1)
