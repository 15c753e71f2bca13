# Shared by all jobs, which `source` it in the project's root.
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

# SIGTERM reaches every process of a job that is requeued, preempted or cancelled. Our commands shut down cleanly. What
# waits for them, this script and DVC, ignores the signal: once they have ended, Slurm kills what is left.
trap '' TERM

# Shortly before the time limit (--signal), Slurm sends USR1 to this script only.
trap 'scontrol requeue "$SLURM_JOB_ID" || :' USR1

# Run a command so that bash handles signals in the meantime; returns its exit code.
handling_signals() {
    local code
    "$@" &
    while wait $! && code=0 || code=$?; kill -0 $! 2> /dev/null; do :; done
    return "$code"
}
