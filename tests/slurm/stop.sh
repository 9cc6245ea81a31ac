#!/bin/sh
# Ends the Slurm that start.sh started in a folder, and removes the folder.
set -eu
folder=${1:?the folder that start.sh printed}
[ -f "$folder/slurm.conf" ] && [ -f "$folder/munged.pid" ] || {
    echo "stop.sh: $folder: no Slurm of start.sh is here" >&2
    exit 1
}
for name in slurmd slurmctld munged; do
    if [ -f "$folder/$name.pid" ]; then
        kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    fi
done
# They write as they end.
sleep 2
rm -r "$folder"
