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

"""Word and character error rates of a model on a manifest, and BLEU and chrF of its translations.

    python examples/evaluate.py model=salm_whisper_smollm2 manifest=test.jsonl output_dir=runs/evaluation
    python examples/evaluate.py model=whisper:whisper-base manifest=test.jsonl output_dir=runs/whisper

``model`` is the name of a shipped checkpoint, a ``.nemo`` file or a hub id. For comparison, ``whisper:NAME`` is
Whisper with its own decoder, and ``cascade:ASR+LLM`` an LLM that reads (and translates) what a model or
``whisper:NAME`` has transcribed.

Beside the error rates stand loops, chatter, deletions and answers to silence (rows with ``"text": ""``), and where
there are ``keywords``, in the manifest or in the arguments, how well they are recognised; ``metrics.json`` has the
error rates also by duration and, where rows have an ``snr`` (dB), by noise. Rows whose ``target_lang`` differs from
``lang`` are translations: they have BLEU and chrF by sacrebleu, for each direction and with its signature, and no part
in the error rates.

A line's ``lang`` decides how its words are counted, its ``target_lang`` how BLEU is: by sacrebleu's own tokenizer for
Chinese, Japanese and Korean, which must be installed, and in characters for Thai, Lao, Khmer, Burmese and Tibetan.
Lines without ``lang`` are taken for English where they are in Latin letters. Chinese characters, Kana and the letters
of these languages count as a word each.

``+generation.guards=null``, say, changes the model's generation section. ``predictions.jsonl`` grows batch by batch:
the same command takes up a run that was killed. ``metrics.json`` is written at the end; examples/report.py makes one
HTML page of both.
"""

from nemo.core.config import hydra_runner
from nemo.utils import logging

from nemo_speechllm.command_line import check_settings, emit, run_command
from nemo_speechllm.evaluation.report import format_evaluation
from nemo_speechllm.evaluation.run import EvaluateArguments, evaluate


@hydra_runner(config_name="EvaluateArguments", schema=EvaluateArguments)
def main(cfg: EvaluateArguments) -> None:
    """Write ``predictions.jsonl`` and ``metrics.json``, and print the figures."""
    check_settings(cfg)
    emit(format_evaluation(evaluate(cfg)))
    logging.info(f"predictions.jsonl and metrics.json are in {cfg.output_dir}")


if __name__ == "__main__":
    run_command(main)
