#!/usr/bin/env bash
#SBATCH --job-name=nemo_speechllm
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#
# Trains as a recipe says on the nodes of a SLURM job, a task for each GPU; other numbers are options of sbatch:
#
#   sbatch --nodes=2 examples/launch/slurm.sh --config-name=salm/whisper_smollm2 trainer=ddp …
#
# What takes longer than a job may: jobs that run one after the other, of which each goes on where the last one ended.
#
#   sbatch --array=1-5%1 examples/launch/slurm.sh --config-name=… trainer=ddp …
#
# A job must not be named …bash or …interactive, which NeMo takes for one without srun.
# `python` must be that of the environment with this package: activate it before sbatch.
set -euo pipefail

exec srun --kill-on-bad-exit=1 python -m nemo_speechllm train "$@" \
  ++trainer.num_nodes="$SLURM_NNODES" trainer.devices="$SLURM_NTASKS_PER_NODE"
