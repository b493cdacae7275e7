# As python:X.Y-slim, from Debian's Python: the command is `python`, pip installs where it is told to.
FROM access-mail-standin/debian:trixie
COPY certificates/ /usr/local/share/ca-certificates/
RUN update-ca-certificates \
 && apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-pip python3-venv \
 && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED \
 && ln -s /usr/bin/python3 /usr/local/bin/python
CMD ["python"]
