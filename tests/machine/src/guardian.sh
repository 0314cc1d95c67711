# Holds one machine: mounts its tree, runs systemd-nspawn, and ends when that ends or when standard input closes.
#
# Runs as PID 1 of a PID namespace and in a mount namespace of its own. The process that wants the machine holds the
# other end of standard input: however it dies, the input closes, this script ends, and with it the kernel ends every
# process of the machine and drops its mounts.
#
# Usage: guardian DIRECTORY MOUNT-OPTIONS NAME -- systemd-nspawn ARGUMENTS...
set -eu
directory=$1 options=$2 name=$3
shift 4

# Held as long as the tree may be mounted; a later sweep leaves a locked directory alone.
exec 9<"$directory/lock"
flock --shared 9

# nspawn gives the machine the unified hierarchy only where it finds it, whatever the host has mounted.
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=/sys/fs/cgroup/$name
# Processes live in leaves only, or the kernel refuses to hand controllers down.
mkdir -p "$group/guardian" "$group/machine"
echo 0 >"$group/guardian/cgroup.procs"
for controller in $(cat "$group/cgroup.controllers"); do
    echo "+$controller" >"$group/cgroup.subtree_control" || true
done

# What the machine writes is thrown away or kept whole: nobody has to wait for the disk when a database wants to be sure.
# The kernel leaves a note so that nobody trusts such a tree after the host's own crash; a reboot of the machine is none.
rm -rf "$directory/work/work/incompat"
mount -t overlay overlay -o "$options,volatile" "$directory/root"

exec 3<&0
{
    echo 0 >"$group/machine/cgroup.procs"
    exec "$@" </dev/null 3<&- 9<&-
} &
nspawn=$!
{
    cat <&3 >/dev/null
    kill -KILL "$nspawn"
} 9<&- &
exec 3<&-

status=0
wait "$nspawn" || status=$?

# A killed nspawn leaves its machine running.
echo 1 >"$group/machine/cgroup.kill" || true
# A group can go only when it is empty, and this script and its watcher are in one.
while read -r process; do
    echo "$process" >/sys/fs/cgroup/cgroup.procs || true
done <"$group/guardian/cgroup.procs"
# What has been killed is gone a moment later.
attempts=0
until find "$group" -depth -type d -delete 2>/dev/null || [ "$attempts" -ge 50 ]; do
    attempts=$((attempts + 1))
    sleep 0.05
done
exit "$status"
