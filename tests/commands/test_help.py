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

"""What help prints; that it is printed, and where, is tested in tests/test_main.py."""

from nemo_speechllm.commands.catalogue import commands
from nemo_speechllm.commands.help import of_command, overview


def test_the_overview_has_a_line_for_each_command():
    assert all(f"\n  {name} " in overview() for name in commands())
    assert "register-python-argcomplete nemo-speechllm" in overview()


def test_the_overview_of_a_group_has_its_commands_alone():
    assert "\n  data check-manifest " in overview("data") and "\n  train " not in overview("data")


def test_settings_stand_with_defaults_and_meaning():
    text = of_command(commands()["transcribe"])
    assert text.startswith("usage: nemo-speechllm transcribe key=value …\n")
    assert "    model: str = ???\n" in text
    assert "    keywords_file: str | None = None  # the same, one word or phrase a line\n" in text
    assert "\"prompt='What, exactly, is said?'\"" in text


def test_recipes_are_listed_and_ones_own_are_taken():
    text = of_command(commands()["train"])
    assert "    salm/whisper_smollm2_finetune\n" in text and "--config-dir=FOLDER" in text
