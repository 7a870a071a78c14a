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

"""Does a speech LM answer text as its bare LLM does, token for token? With a frozen LLM (DeSTA2, 2409.20007) it must.

    python examples/evaluate_text_ability.py model=runs/desta2/checkpoints/desta2.nemo output_dir=runs/text_ability

Both are asked the questions of a text file, one a line (by default those in
``nemo_speechllm/metrics/text_questions.txt``), greedily and one by one: the model through ``generate``, the LLM loaded
anew from where the checkpoint says it came from (``model.llm.pretrained``), with its own tokenizer and chat template
and plain Hugging Face ``generate``. System prompt, chat template and repetition penalty are the model's where its
recipe names them; what a question holds is text for both, never a control token.

``metrics.json`` says how many tokens differ, 0 where the ability is retained, and ``answers.jsonl`` what both
answered.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import MISSING, DictConfig
from transformers import AutoTokenizer, GenerationConfig

from nemo_speechllm import assets
from nemo_speechllm.command_line import check_settings, emit, run_command
from nemo_speechllm.data.conversation import Conversation, Turn
from nemo_speechllm.files import FolderLock, as_object, write_json
from nemo_speechllm.manifests.manifest import write_manifest
from nemo_speechllm.metrics.text_ability import QUESTIONS, differing_tokens, read_questions, text_ability_report
from nemo_speechllm.models import load_model
from nemo_speechllm.models.decoder_only import DecoderOnlySpeechLM
from nemo_speechllm.modules.llm import load_llm
from nemo_speechllm.prompts.chat_prompt import ChatPrompt


@dataclass
class EvaluateTextAbilityArguments:
    """Which model is compared with its LLM, on which questions."""

    model: str = MISSING
    output_dir: str = MISSING
    questions: str = str(QUESTIONS)
    max_new_tokens: int = 64


def ask_model(model: DecoderOnlySpeechLM, questions: list[str], max_new_tokens: int) -> list[dict[str, Any]]:
    """Return ``text`` and token ``ids`` of the model's answers."""
    asked = [Conversation(question, [Turn("user", [question])]) for question in questions]
    answers = model.generate(asked, 1, max_new_tokens, beam_size=1)
    return [{"text": answer.text, "ids": answer.ids} for answer in answers]


@torch.inference_mode()
def ask_llm(
    cfg: DictConfig, questions: list[str], max_new_tokens: int, end_token_id: int, device: torch.device
) -> list[dict[str, Any]]:
    """Ask the same of the LLM that a model's config names.

    Args:
        cfg: the model's.
        end_token_id: ends an answer of the model; the LLM's own end tokens do, too.
    """
    folder = assets.resolve(cfg.llm.pretrained)
    tokenizer, llm = (
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        load_llm(folder, cfg.llm.get("dtype", "float32")),
    )
    llm = llm.to(device).eval()
    own = llm.generation_config.eos_token_id
    ends = {end_token_id, *(own if isinstance(own, list) else [own] if own is not None else [])}
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        repetition_penalty=cfg.generation.repetition_penalty,
        eos_token_id=sorted(ends),
        pad_token_id=end_token_id,
    )
    chat = ChatPrompt(tokenizer, cfg.prompt.get("system_prompt"), cfg.prompt.get("chat_template"))
    answers = []
    for question in questions:
        segments = chat.segments(Conversation(question, [Turn("user", [question])]))
        prompt = torch.tensor([[token for segment in segments for token in segment.ids]], device=device)
        ids = llm.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=greedy)
        ids = ids[0, prompt.shape[1] :].tolist()
        ids = ids[:-1] if ids[-1] in ends else ids
        answers.append({"text": tokenizer.decode(ids, skip_special_tokens=True).strip(), "ids": ids})
    return answers


@hydra_runner(config_name="EvaluateTextAbilityArguments", schema=EvaluateTextAbilityArguments)
def main(cfg: EvaluateTextAbilityArguments) -> None:
    """Write both answers to every question and how far they differ."""
    check_settings(cfg)
    output = Path(cfg.output_dir)
    lock = FolderLock(output, "evaluation")
    questions, model = read_questions(cfg.questions), load_model(cfg.model)
    if not isinstance(model, DecoderOnlySpeechLM):
        raise ValueError(f"model={cfg.model} is a {type(model).__name__}, which has no LLM to be compared with")
    of_model = ask_model(model, questions, cfg.max_new_tokens)
    model_cfg, end_token_id, device = model.cfg, model.prompt.end_token_id, model.device
    del model  # a large LLM is held once
    of_llm = ask_llm(model_cfg, questions, cfg.max_new_tokens, end_token_id, device)
    answers = [
        {"question": question, "model": model_answer["text"], "llm": llm_answer["text"]}
        | {"model_ids": model_answer["ids"], "llm_ids": llm_answer["ids"]}
        | {"differing_tokens": differing_tokens(model_answer["ids"], llm_answer["ids"])}
        for question, model_answer, llm_answer in zip(questions, of_model, of_llm, strict=True)
    ]
    report = text_ability_report(answers)
    write_manifest(output / "answers.jsonl", answers)
    write_json(output / "metrics.json", {"model": cfg.model, "llm": model_cfg.llm.pretrained, **as_object(report)})
    lock.release()
    emit(
        f"{report.differing_tokens} of {report.tokens} tokens differ, in {report.differing_answers} of "
        f"{report.questions} answers"
    )
    logging.info(f"answers.jsonl and metrics.json are in {output}")


if __name__ == "__main__":
    run_command(main)
