# Two images from the same steps: `docker build .` is for CPUs, `docker build --target gpu .` adds CuPy and its CUDA libraries.
# Each step is one that the tests take too (tests/box): a virtual environment, the pinned build tools, the service from a wheel.

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt ./
RUN python -m venv /venv && /venv/bin/python -m pip install --constraint constraints.txt hatchling
COPY pyproject.toml ./
COPY service ./service
RUN /venv/bin/python -m pip install --constraint constraints.txt --no-build-isolation .

FROM build AS build-gpu
RUN /venv/bin/python -m pip install --constraint constraints.txt --no-build-isolation '.[gpu]'

FROM python:3.11-slim-bookworm AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin gradledger \
    && install --directory --owner gradledger --group gradledger /data
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 GRADLEDGER_DATA_DIR=/data
USER 10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["gradledger", "healthcheck"]
CMD ["gradledger", "serve", "--host", "0.0.0.0"]

FROM runtime AS gpu
# The driver comes from the host: NVIDIA's container runtime reads the first two. The root file system may be read-only, so
# CuPy keeps its compiled kernels in memory.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility CUPY_CACHE_IN_MEMORY=1 GRADLEDGER_DEVICE=gpu
COPY --from=build-gpu /venv /venv

# The last target is what `docker build` makes when none is named.
FROM runtime AS cpu
COPY --from=build /venv /venv
