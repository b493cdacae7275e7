#!/usr/bin/env bash
# Makes images that stand in for public ones where no registry can be reached: build.sh IMAGE...
# As root on Debian, with a running engine. They trust what this machine trusts: never push them anywhere.
set -euo pipefail
cd "$(dirname "$0")"
export DOCKER_BUILDKIT=0 DOCKER_CLI_HINTS=false
work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sed -n 1p)

has() { docker image inspect "$1" >"$work/inspected" 2>&1; }

debian() { # SUITE: a bare Debian as an image
  local name=access-mail-standin/debian:$1
  has "$name" && return
  debootstrap --variant=minbase --include=ca-certificates "$1" "$work/$1" "$mirror" >"$work/$1.log" || {
    cat "$work/$1.log" >&2
    return 1
  }
  tar --create --directory="$work/$1" --exclude='./var/cache/apt/*' --exclude='./usr/share/doc/*' \
    --exclude='./usr/share/locale/*' --exclude='./usr/share/man/*' . |
    docker import --change 'CMD ["bash"]' - "$name" >"$work/$1.id"
}

build() { # KIND TAG
  local context=$work/$1
  mkdir -p "$context/certificates"
  cp "$1.Dockerfile" "$context/Dockerfile"
  find /usr/local/share/ca-certificates -name '*.crt' -exec cp {} "$context/certificates" ';'
  docker build --quiet --label access-mail.stand-in="$1" --tag "$2" "$context"
}

for image; do
  case $image in
    python:* | prom/prometheus:*) suites+=(trixie) ;;
    redis:*) suites+=(bookworm) ;;
    *) echo "there is no stand-in for $image" >&2 && exit 2 ;;
  esac
done
for suite in $(printf '%s\n' "${suites[@]}" | sort --unique); do
  debian "$suite" &
  bases+=($!)
done
for base in "${bases[@]}"; do wait "$base"; done
for image; do
  kind=${image#*/}
  build "${kind%%:*}" "$image" &
  builds+=($!)
done
for one in "${builds[@]}"; do wait "$one"; done
