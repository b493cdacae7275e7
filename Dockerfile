# Access Mail. The last stage is the product; `--target demo` adds the simulated Teleport and mailbox.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m venv --without-pip /opt/access-mail \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/build.txt \
 && /opt/build/bin/pip --python /opt/access-mail/bin/python install --no-cache-dir --require-hashes --only-binary :all: \
    -r requirements/runtime.txt
COPY LICENSE README.md pyproject.toml ./
COPY console console
COPY services services
COPY shared shared
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /opt/build/bin/pip --python /opt/access-mail/bin/python install --no-cache-dir --no-deps --no-index /wheel/*.whl

FROM build AS build-demo
COPY requirements/demo.txt requirements/
RUN /opt/build/bin/pip --python /opt/access-mail/bin/python install --no-cache-dir --require-hashes --only-binary :all: \
    -r requirements/demo.txt

FROM python:${PYTHON}-slim AS base
# Volumes that are new take over the owner of these; /run/teleport is where docker-compose.yml has the identity.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin access-mail \
 && install -d -o access-mail -g access-mail -m 0750 /data /run/teleport
ENV PATH=/opt/access-mail/bin:$PATH \
    PYTHONUNBUFFERED=1
WORKDIR /
USER 10001:10001

FROM base AS demo
COPY --from=build-demo /opt/access-mail /opt/access-mail
COPY simulators /opt/demo/simulators
ENV PYTHONPATH=/opt/demo
CMD ["python", "-P", "-m", "simulators.teleport", "--host", "0.0.0.0"]

FROM base
COPY --from=build /opt/access-mail /opt/access-mail
ARG COMMIT=""
ENV ACCESS_MAIL_COMMIT=${COMMIT} \
    STATE_DIRECTORY=/data/valkey
LABEL org.opencontainers.image.title="Access Mail" \
      org.opencontainers.image.description="Tells people by e-mail about Teleport's Just-in-Time Access Requests" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}"
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-P", "-m", "console.healthcheck"]
ENTRYPOINT ["access-mail"]
CMD ["--help"]
