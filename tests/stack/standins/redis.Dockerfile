# As redis:7, from Debian's Redis 7.0: uid 999, data in /data.
FROM access-mail-standin/debian:bookworm
RUN groupadd --system --gid 999 redis \
 && useradd --system --gid redis --uid 999 redis \
 && apt-get update \
 && apt-get install -y --no-install-recommends redis-server \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o redis -g redis /data
VOLUME /data
WORKDIR /data
CMD ["redis-server"]
