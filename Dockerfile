# The CUDA libraries come as wheels, so the base needs none: the host brings the
# driver, by the NVIDIA container toolkit. See docs/tpu_gpu.md.
FROM python:3.12-slim

WORKDIR /opt/ioa_jax
COPY . .
RUN pip install --no-cache-dir '.[cuda13,http,eval]'

ENTRYPOINT ["ioa"]
CMD ["--help"]
