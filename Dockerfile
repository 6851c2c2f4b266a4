# dxseg in a container, for `dxseg serve`, `dxseg train` and every other command. docs/how-to/install.md has examples.
#   docker build -t dxseg .
#   docker build -t dxseg:gpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
FROM python:3.12-slim

# Builds of torch for processors; for a GPU an index of CUDA builds, which bring CUDA's libraries along.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Extras of pyproject.toml, separated by commas.
ARG EXTRAS=serve,onnx
# The build gets no history of git, from which the version is read otherwise.
ARG VERSION=0.0.0+docker

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
RUN pip install --index-url "$TORCH_INDEX" torch torchvision

WORKDIR /opt/dxseg
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN SETUPTOOLS_SCM_PRETEND_VERSION="$VERSION" pip install ".[$EXTRAS]"

RUN useradd --create-home --uid 1000 dxseg
USER dxseg
# Datasets, runs and models are mounted here.
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["dxseg"]
CMD ["--help"]
