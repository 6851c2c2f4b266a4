#!/bin/sh
# Trains on one or several machines, one process a device. Call it on every machine:
#   torchrun.sh MACHINES PROCESSES HEAD DATASET --out RUN ...
# MACHINES of PROCESSES each; HEAD is the name of one of them. Dataset and run lie on a disk that
# all of them see. When a process dies, all start again from the last finished epoch.
set -eu
machines=$1 processes=$2 head=$3
shift 3
exec torchrun --nnodes "$machines" --nproc-per-node "$processes" --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "$head:29400" --rdzv-id dxseg \
  --no-python dxseg train "$@"
