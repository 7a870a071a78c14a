# Copyright (c) 2026, The nemo_speechllm authors.  All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""A section is whole after `complete`: defaults stand in it, and what nobody reads or what cannot be is named."""

import re
from dataclasses import dataclass
from typing import ClassVar

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.recipes import SettingError, complete
from nemo_speechllm.recipes.settings import Limits, limits_of, setting, whole_number, written


@dataclass
class Part:
    beside: ClassVar = lambda given: ["width"]

    type: str = setting("part")
    size: int = setting(4, at_least=1, at_most=8)


@dataclass
class Other:
    type: str = setting("other")
    depth: float | None = setting(None, above=0)


@dataclass
class Whole:
    name: str = setting()
    rate: float = setting(0.5, at_least=0, below=1)
    mode: str | None = setting(None, one_of=("fast", "slow"))
    flag: bool = setting(False)
    layers: list[int] | None = setting(None, at_least=0)
    texts: dict[str, str] = setting({})
    part: dict | None = setting(None, types={"part": Part, "other": Other})
    below: Part = setting(Part)
    digest: str | None = written()


def test_defaults_are_filled_in_and_each_section_has_its_own():
    first, second = complete(Whole, {"name": "a"}), complete(Whole, {"name": "b", "part": {}})
    expected = {"name": "a", "rate": 0.5, "mode": None, "flag": False, "layers": None, "texts": {}, "part": None}
    assert first == expected | {"below": {"type": "part", "size": 4}}
    assert second.part == {"type": "part", "size": 4} and "digest" not in second
    first.texts.asr = "Say it."
    assert complete(Whole, {"name": "a"}).texts == {}


def test_what_is_given_stays_and_a_whole_section_stays_the_same():
    given = OmegaConf.create(
        {
            "up": 7,
            "whole": {"name": "a", "rate": 0, "mode": "fast", "layers": [1, "${up}"], "texts": {"asr": ""}}
            | {"part": {"type": "other", "depth": 2.5}, "below": {"width": 9, "size": 8}, "digest": "0f"},
        }
    ).whole
    once = complete(Whole, given)
    assert (once.rate, once.mode, once.layers, once.below, once.digest) == (
        *(0, "fast", [1, 7]),
        *({"type": "part", "size": 8, "width": 9}, "0f"),
    )
    assert once.part == {"type": "other", "depth": 2.5} and complete(Whole, once) == once
    assert complete(Other, Other(depth=1.0)) == {"type": "other", "depth": 1.0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nmae": "a"}, "model has no setting 'nmae'; did you mean 'name'?"),
        ({"below": {"sise": 3}}, "model.below has no setting 'sise'; did you mean 'size'?"),
        ({"below": {"witdh": 3}}, "model.below has no setting 'witdh'; did you mean 'width'?"),
        ({"part": {"type": "other", "dept": 3}}, "model.part has no setting 'dept'; did you mean 'depth'?"),
        ({"zzz": 1}, r"model has no setting 'zzz'; known are \['below', 'digest'"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(given, message):
    with pytest.raises(SettingError, match=f"^{message}"):
        complete(Whole, {"name": "a"} | given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": 1}, "model.rate is 1; it must be a number, at least 0 and below 1"),
        ({"rate": float("nan")}, "model.rate is nan; it must be a number"),
        ({"rate": "0.5"}, "model.rate is '0.5'; it must be a number"),
        ({"rate": True}, "model.rate is True; it must be a number"),
        ({"rate": None}, "model.rate is None; it must be a number"),
        ({"rate": {"a": 1}}, "model.rate is {'a': 1}; it must be a number"),
        ({"mode": "quick"}, "model.mode is 'quick'; it must be one of fast, slow, or null"),
        ({"flag": "maybe"}, "model.flag is 'maybe'; it must be true or false"),
        ({"flag": 1}, "model.flag is 1; it must be true or false"),
        ({"layers": 3}, "model.layers is 3; it must be a list of values, each a whole number, at least 0, or null"),
        ({"layers": [-1]}, r"model.layers is \[-1\]; it must be a list of values, each a whole number, at least 0"),
        ({"texts": {"asr": None}}, "model.texts is {'asr': None}; it must be a mapping"),
        ({"texts": ["asr"]}, r"model.texts is \['asr'\]; it must be a mapping"),
        ({"below": 3}, "model.below is 3; it must be a section with settings such as"),
        ({"below": None}, "model.below is None; it must be a section"),
        ({"below": {"size": 9}}, "model.below.size is 9; it must be a whole number, from 1 to 8$"),
        ({"below": {"size": 2.0}}, "model.below.size is 2.0; it must be a whole number"),
        ({"part": {"type": "third"}}, "model.part.type is 'third'; it must be one of part, other"),
        ({"part": "other"}, "model.part is 'other'; it must be a section with a `type`"),
        ({"name": "???"}, "model.name is missing, and has no default; give model.name=..."),
    ],
)
def test_what_cannot_be_is_named_with_key_value_and_range(given, message):
    with pytest.raises(SettingError, match=f"^{message}"):
        complete(Whole, {"name": "a"} | given)


def test_a_setting_without_default_must_be_given():
    with pytest.raises(SettingError, match="^model.x.name is missing, and has no default; give model.x.name=..."):
        complete(Whole, {}, "model.x")


def test_what_was_inherited_of_another_type_says_nothing_at_its_default_and_is_an_error_otherwise():
    whole = complete(Whole, {"name": "a", "part": {"type": "other", "size": 4, "depth": 1}})
    assert whole.part == {"type": "other", "depth": 1.0}
    with pytest.raises(SettingError, match="model.part.size is 5, but nothing of type other reads it; leave it out"):
        complete(Whole, {"name": "a", "part": {"type": "other", "size": 5}})


@pytest.mark.parametrize("value", [0, 9, 4.0, "4", True, None, float("inf"), [4]])
def test_an_argument_of_a_call_is_checked_as_a_setting_is(value):
    size = limits_of(Part, "size")
    assert size == Limits(at_least=1, at_most=8) and whole_number("size", 4, size) == 4
    with pytest.raises(
        ValueError, match=rf"^size is {re.escape(repr(value))}; it must be a whole number, from 1 to 8!"
    ):
        whole_number("size", value, size, "!")
