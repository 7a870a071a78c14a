# A PyTorch (or NeMo) image with Python 3.11 or 3.12; --build-arg BASE_IMAGE=... takes another one.
ARG BASE_IMAGE=pytorch/pytorch:2.13.0-cuda12.6-cudnn9-runtime
FROM ${BASE_IMAGE} AS workspace

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ffmpeg git libsndfile1 make python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /workspace/nemo_speechllm
COPY setup.py pyproject.toml constraints.txt Makefile README.md LICENSE ./
COPY nemo_speechllm ./nemo_speechllm
COPY conf ./conf
COPY examples ./examples
COPY tests ./tests
COPY CHANGELOG.md Dockerfile MANIFEST.in ./
COPY docs ./docs
COPY .ci ./.ci

# The environment of the Makefile; it sees the image's own torch, so that is not downloaded a second time.
RUN PIP_NO_CACHE_DIR=1 make venv VENV_FLAGS=--system-site-packages
ENV PATH="/workspace/nemo_speechllm/.venv/bin:${PATH}"

# A server: docker build --target serve -t speechllm-serve .
#   docker run -p 8000:8000 -e NEMO_SPEECHLLM_API_KEY=secret -v speechllm:/cache speechllm-serve
#   docker run -p 8000:8000 -v speechllm:/cache -v "$PWD/runs:/runs:ro" speechllm-serve model=/runs/mine/checkpoints/mine.nemo
FROM workspace AS serve
ENV NEMO_SPEECHLLM_CACHE=/cache
RUN useradd --create-home speechllm && install --directory --owner=speechllm /cache
USER speechllm
WORKDIR /home/speechllm
VOLUME /cache
EXPOSE 8000
HEALTHCHECK --start-period=10m CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["nemo-speechllm", "serve", "host=0.0.0.0"]
CMD ["model=salm_whisper_smollm2"]

# What `docker build .` makes: the workspace.
FROM workspace
