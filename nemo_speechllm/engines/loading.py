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

"""The LLM of a recipe that writes or judges texts: in this process, through vLLM or behind an endpoint."""

from omegaconf import DictConfig
from transformers import AutoTokenizer

from nemo_speechllm import assets
from nemo_speechllm.engines.engine import Engine
from nemo_speechllm.engines.transformers_engine import TransformersEngine
from nemo_speechllm.engines.vllm_engine import VLLMEngine
from nemo_speechllm.modules.llm import load_llm

ENGINES = ("transformers", "vllm", "endpoint")


def check_engine(cfg: DictConfig) -> None:
    """Check that there is such an engine.

    Raises:
        ValueError: there is no such ``engine``.
    """
    if cfg.engine not in ENGINES:
        raise ValueError(f"engine={cfg.engine}: there are {', '.join(ENGINES)}")


def load_engine(cfg: DictConfig) -> Engine:
    """Load the engine that a config describes.

    Args:
        cfg: ``engine``, ``llm``, ``max_new_tokens``, ``transformers`` (``batch_size``, ``dtype``) and ``endpoint``
            (``url``, ``model`` and what else `EndpointEngine` takes).

    Raises:
        ValueError: there is no such engine.
        nemo_speechllm.assets.AssetError: the LLM cannot be found.
    """
    check_engine(cfg)
    if cfg.engine == "endpoint":
        from nemo_speechllm.engines.endpoint import EndpointEngine  # the client takes a second to import

        return EndpointEngine(**cfg.endpoint, max_new_tokens=cfg.max_new_tokens)
    if cfg.engine == "vllm":
        return VLLMEngine(str(assets.resolve(cfg.llm)), max_new_tokens=cfg.max_new_tokens)
    return load_transformers(cfg.llm, cfg.transformers.dtype, cfg.transformers.batch_size, cfg.max_new_tokens)


def load_transformers(
    reference: str, dtype: str = "float32", batch_size: int = 1, max_new_tokens: int = 256
) -> TransformersEngine:
    """Load a Hugging Face LLM into this process.

    Args:
        reference: asset name, folder or hub id.
        dtype, batch_size, max_new_tokens: as of `TransformersEngine`; ``float32`` for answers that are the same in any
            batch.

    Raises:
        nemo_speechllm.assets.AssetError: the LLM cannot be found.
    """
    folder = assets.resolve(reference)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return TransformersEngine(load_llm(folder, dtype), tokenizer, batch_size, max_new_tokens)
