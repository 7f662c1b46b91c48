# All programs of dfs in one small image: `docker build -t dfs .`

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p dfs-master -p dfs-storagenode -p dfs-replicator -p dfs-mount -p dfs-cli \
    && mkdir /out \
    && cd target/release \
    && cp dfs dfs-master dfs-storagenode dfs-replicator dfs-mount /out/ \
    && strip /out/*

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends fuse3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 dfs \
    && useradd --system --uid 10001 --gid dfs --home-dir /data --shell /usr/sbin/nologin dfs \
    && install -d -o dfs -g dfs /data \
    && install -d /mnt/dfs
COPY --from=build /out/ /usr/local/bin/
# A named volume that is mounted here takes over the owner. Only the mount needs more than this user.
USER dfs
WORKDIR /data
CMD ["dfs", "--help"]
