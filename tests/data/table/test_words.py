"""Words for nothing are no name, and a name that is written in several ways is one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.data.table.label_lists import find_separator, split_list
from dxseg.data.table.words import Words, is_missing, spelling_key
from dxseg.errors import DxsegError

NOTHING = ["NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NaT", "none", "None", "NULL", "nil"]
NOTHING += [
    "unknown",
    "Unknown ",
    " UNK",
    "empty",
    "missing",
    "not  available",
    "?",
    "??",
    "-",
    ".",
]
NAMES = ["benign", "0", "nano", "nana", "BI-RADS 4", "no", "N", "a?", "P-1", "+", "nulliparous"]


@pytest.mark.parametrize("word", ["", " ", *NOTHING])
def test_words_for_nothing(word: str) -> None:
    assert is_missing(word)


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    assert not is_missing(name)
    assert is_missing(name.upper(), [f" {name} "])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Benign", " benign", True),
        ("grade 1", "Grade1", True),
        ("1", "1.0", True),
        ("-1,00", "-1", True),
        ("Läsion", unicodedata.normalize("NFD", "läsion"), True),
        ("no\u00a0lesion\u200b", "No lesion", True),
        ("1", "10", False),
        ("1.5", "15", False),
        ("1.0.0", "1", False),
        ("type 1 1", "type 11", False),
        ("benign", "malign", False),
    ],
)
def test_keys_of_spellings(one: str, other: str, same: bool) -> None:
    assert (spelling_key(one) == spelling_key(other)) is same


def test_the_most_frequent_spelling_is_used_and_told() -> None:
    words = Words("label")
    spelled = words.spellings(
        ["benign", "Benign", "Benign", " benign", "1.0", "NA", "nan", "NA", ""]
    )
    assert spelled == {
        "benign": "benign",
        " benign": "benign",
        "Benign": "benign",
        "1.0": "1",
        "NA": "",
        "nan": "",
        "": "",
    }
    assert words.notes() == [
        "label: 3 values mean missing (2 'NA', 1 'nan')",
        "label: 'Benign' read as 'benign'",
        "label: '1.0' read as '1'",
    ]


def test_given_names_stay_as_they_are_even_words_for_nothing() -> None:
    words = Words("label", missing=["99"], given=["none", "A", "a"])
    spelled = words.spellings(["None", "none", "A", "a", "NA", "99"])
    assert spelled == {"None": "none", "none": "none", "A": "A", "a": "a", "NA": "", "99": ""}


@given(
    values=st.lists(st.sampled_from([*NOTHING, *NAMES, "Benign", " BENIGN", "0.0", "n o"])),
    given_names=st.lists(st.sampled_from([*NAMES, "none"]), unique=True, max_size=2),
)
def test_no_word_for_nothing_becomes_a_name_and_no_name_has_two_spellings(
    values: list[str], given_names: list[str]
) -> None:
    words = Words("label", given=given_names)
    spelled = words.spellings(values)
    assert set(spelled) == set(values)
    names = set(spelled.values()) - {""} - set(given_names)
    assert not any(is_missing(name) for name in names)
    assert len({spelling_key(name) for name in names}) == len(names)
    for text, name in spelled.items():
        assert name == "" or spelling_key(name) == spelling_key(text)
        assert name != "" or is_missing(text)


@pytest.mark.parametrize("mark", [";", "|", ",", "\n", "/", "+", "&"])
def test_the_separator_of_a_column_is_found(mark: str) -> None:
    values = [f"mass{mark} cyst", "mass", f"a b{mark}mass"]
    assert find_separator(values, "label") == mark
    assert split_list(values[0], mark) == ["mass", "cyst"]


def test_lists_of_python_and_names_with_rare_marks() -> None:
    values = ["['BI-RADS 4/5', 'cyst']", "['cyst']"]
    assert find_separator(values, "label") == ","
    assert [split_list(text, ",") for text in values] == [["BI-RADS 4/5", "cyst"], ["cyst"]]
    assert find_separator(["mass", "cyst"], "label") is None


def test_different_separators_are_a_question() -> None:
    with pytest.raises(DxsegError, match=r"label: 'a;b' and 'a\|b'.*--label-separator"):
        find_separator(["a;b", "a|b"], "label")
