# What the jobs share: they `source` it, in the project's root.
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

# SIGTERM reaches every process of a job that is requeued, preempted or cancelled. Our commands stop in good order; what
# waits for them, this script and DVC, ignores it: once they end, Slurm kills what is left.
trap '' TERM

# Shortly before the time is up (--signal), Slurm tells this script alone.
trap 'scontrol requeue "$SLURM_JOB_ID" || :' USR1

# Run a command in such a way that bash takes signals meanwhile; gives its exit code.
attended() {
    local code
    "$@" &
    while wait $! && code=0 || code=$?; kill -0 $! 2> /dev/null; do :; done
    return "$code"
}
