# medseg predict for exported models, on the CPU, without torch: docs/guides/deploy.md says how to run it.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/medseg
ENV PATH=/opt/medseg/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt requirements-deploy.txt ./
RUN pip install -c constraints.txt -r requirements-deploy.txt
COPY pyproject.toml README.md LICENSE ./
COPY medseg medseg
COPY configs configs
COPY data_samples data_samples
RUN pip install --no-deps . && python -m compileall -q /opt/medseg

FROM python:3.11-slim
COPY --from=build /opt/medseg /opt/medseg
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin medseg
# Nothing is written outside of the output folder and /tmp, so that the root file system may be read-only.
ENV PATH=/opt/medseg/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["medseg"]
CMD ["--help"]
