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

mount -t overlay overlay -o "$options" "$directory/root"

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

# A group can go only when it is empty, and this script is in it.
echo 0 >/sys/fs/cgroup/cgroup.procs || true
find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
exit "$status"
