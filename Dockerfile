# Three images from one file:
#   docker build --target gateway -t hotswap .                 slim: no torch, no vLLM
#   docker build --target engine -t hotswap-engine .           vLLM for the CPU, with our plugin
#   docker build --target worker -t hotswap-worker .           training
# For a GPU: --build-arg ENGINE_EXTRA=engine, and run it with the NVIDIA runtime (the wheels bring CUDA).
# Where pip needs a wheel index of its own (the CPU builds of torch do): --build-arg PIP_EXTRA_INDEX_URL=...
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS source
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 PATH=/opt/hotswap/bin:$PATH
RUN python -m venv /opt/hotswap && pip install --upgrade "pip>=25"
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gateway gateway
COPY adapters adapters
COPY training training
COPY loadtests loadtests

FROM source AS build-gateway
RUN pip install -c constraints.txt .

FROM source AS build-engine
ARG ENGINE_EXTRA=engine-cpu
# doctor removes the wheels that break vLLM and installs the NF4 plugin. What else it misses in an image that
# is still being built (a base, memory) is no reason to stop, so its verdict is left to `hotswap doctor` later.
RUN pip install -c constraints.txt ".[${ENGINE_EXTRA}]" && (hotswap doctor --fix || true)

FROM source AS build-worker
RUN pip install -c constraints.txt ".[training]"

FROM ${PYTHON_IMAGE} AS runtime
ENV PATH=/opt/hotswap/bin:$PATH PYTHONUNBUFFERED=1 HOTSWAP_STATE_DIR=/var/lib/hotswap
RUN useradd --create-home --uid 10001 hotswap && install -d -o hotswap -g hotswap /var/lib/hotswap
WORKDIR /var/lib/hotswap
VOLUME /var/lib/hotswap

# Needs a prepared base in the volume (/var/lib/hotswap/base/<name>) and engines named in hotswap.toml.
FROM runtime AS gateway
COPY --from=build-gateway /opt/hotswap /opt/hotswap
ENV HOTSWAP_SERVER__HOST=0.0.0.0 HOTSWAP_ENGINE__ENABLED=false
USER hotswap
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["hotswap"]
CMD ["up"]

# A remote engine. Mount the gateway's state folder at the same path, and give VLLM_API_KEY and the model:
#   docker run -e VLLM_API_KEY -v state:/var/lib/hotswap hotswap-engine --model /var/lib/hotswap/base/NAME \
#     --served-model-name NAME --quantization bitsandbytes --load-format bitsandbytes --dtype bfloat16
FROM runtime AS engine
# vLLM's CPU build loads libnuma, and compiles kernels when it starts.
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 && rm -rf /var/lib/apt/lists/*
COPY --from=build-engine /opt/hotswap /opt/hotswap
ENV VLLM_PLUGINS=bitsandbytes,hotswap VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 VLLM_CPU_KVCACHE_SPACE=1 \
    HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
USER hotswap
EXPOSE 8000
ENTRYPOINT ["python", "-m", "vllm.entrypoints.openai.api_server", "--enable-lora", "--max-loras", "8", \
  "--max-cpu-loras", "64", "--max-lora-rank", "32", "--max-model-len", "2048"]

# Trains and registers over the gateway's API: give HOTSWAP_URL and HOTSWAP_API_KEY, and mount the base.
FROM runtime AS worker
COPY --from=build-worker /opt/hotswap /opt/hotswap
USER hotswap
ENTRYPOINT ["hotswap", "train"]
CMD ["--help"]
