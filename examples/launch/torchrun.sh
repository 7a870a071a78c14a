#!/usr/bin/env bash
# Trains as a recipe says on all GPUs of this machine:
#
#   examples/launch/torchrun.sh --config-name=salm/whisper_smollm2 trainer=ddp model.train_ds.manifest_filepath=…
#
# and of several, where the same command is given on each of them with one machine's name and a free port of it:
#
#   NODES=2 RENDEZVOUS=node1:29500 examples/launch/torchrun.sh --config-name=… trainer=ddp …
#
# DEVICES is the number of processes on this machine, if it is not that of its GPUs. The same command again goes on
# with a run that was killed, also with other NODES and DEVICES.
set -euo pipefail

nodes=${NODES:-1}
devices=${DEVICES:-$(nvidia-smi --list-gpus | wc -l)}
if [ "$nodes" -gt 1 ]; then
  rendezvous=(--rdzv-backend=c10d --rdzv-id=nemo_speechllm --rdzv-endpoint="${RENDEZVOUS:?give HOST:PORT of one of the machines}")
else
  rendezvous=(--standalone)
fi

exec python -m torch.distributed.run --nnodes="$nodes" --nproc-per-node="$devices" "${rendezvous[@]}" \
  -m nemo_speechllm train "$@" ++trainer.num_nodes="$nodes" trainer.devices="$devices"
