# An image to train and predict with, for a CPU or an NVIDIA GPU. (Nodes of a Ray cluster: pipelines/cluster/Dockerfile.)
#
#     docker build -t adafocus .                                                                     # CPU
#     docker build -t adafocus:gpu --build-arg TORCH=https://download.pytorch.org/whl/cu130 .       # GPU: brings CUDA's libraries
#     docker run --rm -v "$PWD:/data" adafocus predict video.mp4 --checkpoint shared/folder
#     docker run --rm --gpus all --ipc=host -v "$PWD:/data" adafocus:gpu train --recipe folder --shards shards/mine
#
# BASE may be another image that has Python 3.11, such as one of your own on nvidia/cuda; EXTRAS what else to install: hub, app, server.
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG TORCH=https://download.pytorch.org/whl/cpu
ARG EXTRAS=hub
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg git && rm -rf /var/lib/apt/lists/*
# What the NVIDIA runtime looks for: without them it gives a container no GPU.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY constraints.txt /build/
# First and alone: the project's own requirements are then fulfilled, and the default build with CUDA's gigabytes is not fetched.
RUN pip install --no-cache-dir --constraint /build/constraints.txt --index-url ${TORCH} --extra-index-url https://pypi.org/simple torch torchvision
COPY pyproject.toml README.md LICENSE /build/
COPY preprocessing /build/preprocessing
COPY adafocus /build/adafocus
COPY pipelines /build/pipelines
RUN pip install --no-cache-dir --constraint /build/constraints.txt "/build[${EXTRAS}]" && rm -rf /build
RUN useradd --create-home --uid 1000 user
USER user
WORKDIR /data
ENTRYPOINT ["adafocus"]
CMD ["--help"]
