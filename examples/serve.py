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

"""Answers over HTTP as OpenAI's interface does: transcription, translation, conversation about audio.

    python examples/serve.py model=salm_whisper_smollm2
    python examples/serve.py 'model=[salm_whisper_smollm2,runs/mine/checkpoints/mine.nemo]' port=9000
    NEMO_SPEECHLLM_API_KEY=secret python examples/serve.py model=x.nemo host=0.0.0.0

``/v1/audio/transcriptions``, ``/v1/audio/translations``, ``/v1/chat/completions``, ``/v1/models``, ``/health`` and
``/metrics`` (Prometheus). Requests of all clients are answered together; what is answered is what transcribe.py
answers. It needs the extra ``serve``: ``pip install 'nemo_speechllm[serve]'``. See docs/serving.md.
"""

from nemo.core.config import hydra_runner

from nemo_speechllm.command_line import check_settings, run_command
from nemo_speechllm.serving.server import ServeArguments, serve


@hydra_runner(config_name="ServeArguments", schema=ServeArguments)
def main(cfg: ServeArguments) -> None:
    """Serve until the process is told to end."""
    check_settings(cfg)
    serve(cfg)


if __name__ == "__main__":
    run_command(main)
