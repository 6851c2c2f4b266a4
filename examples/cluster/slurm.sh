#!/bin/sh
# Trains on a SLURM cluster, one task a GPU:
#   sbatch slurm.sh DATASET --out RUN ...
# Requeued, by SLURM or by hand, it goes on from the last finished epoch.
#SBATCH --job-name=dxseg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --requeue
set -eu
exec srun --kill-on-bad-exit=1 dxseg train "$@"
