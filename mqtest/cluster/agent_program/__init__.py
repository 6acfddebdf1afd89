"""The program inside the agent container: the only code of mqtest that runs with privilege.

It is handed over when the container starts and called once a command, JSON in and out (`__main__`). It runs under
the container's own Python with the standard library alone, and with the host's PIDs in sight, so every command
proves first that what it touches is ours (`proofs`):

    proofs       a process, a loop device, a filesystem, a network namespace: ours, or refused
    disks        image files with a filesystem, attached to loop devices
    power        silence, disks that forget, and death; SIGKILL; the witness files
    disk_faults  disks that fill up, fail, stand still or limp
    clocks       wall clocks that jump
    packets      iptables rules in a node's network namespace
"""
