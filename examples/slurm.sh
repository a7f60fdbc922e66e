#!/bin/bash
# Trains on the GPUs of several machines, and goes on in a new job when its time is over:
#
#     sbatch --job-name rfnet-2020 examples/slurm.sh --dataset brats2020 --data-root /data/BraTS2020 --batch-size 8
#
# from a clone of this repository with its .venv, on a file system that all machines share. The arguments are those of
# `python -m gss_train.main`, without --output: the run folder is runs/<job name>, and a job of the same name goes on
# with it. docs/training.md explains the signals.

#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=6
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -u

mkdir -p runs

# The first process listens there for the others. A machine may hold two jobs; ports from 32768 on are lent at random.
machines=$(scontrol show hostnames "$SLURM_JOB_NODELIST") || exit 2
MASTER_ADDR=${machines%%$'\n'*}
MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))
export MASTER_ADDR MASTER_PORT
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

out_of_time=no
stop() {
    out_of_time=yes
    # To every process of the job but this shell. srun would answer a SIGTERM of its own by killing them.
    scancel --signal=TERM "$SLURM_JOB_ID"
}
trap stop USR1

# One task for each GPU takes the place of torchrun. `exec` leaves no shell between SLURM's signal and Python. All tasks
# of a machine see all of its GPUs, and pick theirs by LOCAL_RANK.
# shellcheck disable=SC2016  # every task fills in its own variables
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 --label bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    exec .venv/bin/python -m gss_train.main "$@"
' gss_train "$@" --output "runs/$SLURM_JOB_NAME" &
training=$!

wait "$training"
status=$?
# The signal has ended that `wait`, while the processes were still saving.
if [ "$out_of_time" = yes ]; then
    wait "$training"
    status=$?
fi

if [ "$out_of_time" = yes ] && [ "$status" -ne 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
