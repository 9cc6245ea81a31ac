#!/bin/sh
# Starts a Slurm of one node, this machine, with everything in one new folder, and prints the folder.
#
#     apt-get install slurmctld slurmd munge slurm-client
#     folder=$(tests/slurm/start.sh)
#     SLURM_CONF=$folder/slurm.conf sinfo
#     tests/slurm/stop.sh "$folder"
#
# For tests, as root in a sandbox: nothing here is how a cluster is to be run.
set -eu

for program in munged slurmctld slurmd; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || {
        echo "start.sh: $program is not here: apt-get install slurmctld slurmd munge slurm-client" >&2
        exit 1
    }
done
PATH=$PATH:/usr/sbin
host=$(hostname -s)
folder=$(mktemp -d /tmp/slurm.XXXXXX)
chmod 755 "$folder"
mkdir "$folder/state" "$folder/spool" "$folder/munge"

# A key and a socket of its own: a munge that is there already is left alone.
dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 2>/dev/null
chmod 700 "$folder/munge"
chmod 600 "$folder/munge/key"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
    --seed-file="$folder/munge/seed" >&2

# No control groups, no accounting: what a container may not have.
cat >"$folder/slurm.conf" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${SLURMCTLD_PORT:-16817}
SlurmdPort=${SLURMD_PORT:-16818}
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=30
MinJobAge=300
MaxArraySize=${MAX_ARRAY_SIZE:-1001}
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF

SLURM_CONF=$folder/slurm.conf
export SLURM_CONF
slurmctld -f "$SLURM_CONF" >&2
slurmd -f "$SLURM_CONF" -N "$host" >&2
for _ in $(seq 60); do
    if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then
        echo "$folder"
        exit 0
    fi
    sleep 1
done
echo "start.sh: the node is not ready after a minute; see $folder/*.log" >&2
exit 1
