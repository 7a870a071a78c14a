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

"""How well rare words are recognised with a list of keywords: the right ones, none, wrong ones, and both together.

    python examples/evaluate_keywords.py model=salm_whisper_smollm2 manifest=test.jsonl train_manifest=train.jsonl \\
        output_dir=runs/keywords
    python examples/evaluate_keywords.py model=x.nemo manifest=test.jsonl train_manifest=train.jsonl \\
        output_dir=runs/keywords 'sizes=[10,100]' vocabulary=words.txt max_count=0 'evaluate=["batch_size=4"]'

An utterance's keywords are its words of ``min_letters`` and more that at most ``max_count`` training texts hold.
Conditions: ``correct`` (its keywords alone), ``empty``, ``distractors`` (rare words that it does not say, from the
other utterances, the training texts and ``vocabulary``) and ``mixed`` (both, shuffled) at each of ``sizes`` words. In
every condition precision, recall and F are those of all the keywords of the manifest, wherever they occur; leakage is
that of the list that was given, and p compares the word errors with those of ``empty``. Lists depend on ``seed`` and
the utterance alone.

Each condition has a folder with its ``manifest.jsonl`` and the ``evaluation`` that examples/evaluate.py writes there;
the same command takes up a run that was killed. ``results.csv``, ``results.md``, ``results.json`` and ``results.png``
hold all conditions.
"""

from nemo.core.config import hydra_runner

from nemo_speechllm.command_line import check_settings, run_command
from nemo_speechllm.evaluation.keywords import EvaluateKeywordsArguments, evaluate_keywords


@hydra_runner(config_name="EvaluateKeywordsArguments", schema=EvaluateKeywordsArguments)
def main(cfg: EvaluateKeywordsArguments) -> None:
    """Evaluate every condition and write their table."""
    check_settings(cfg)
    evaluate_keywords(cfg)


if __name__ == "__main__":
    run_command(main)
