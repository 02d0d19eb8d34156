# shellcheck shell=bash
# What the boot tests' runner and their programs for kernels' logs share.

hardware_kvm() { [ -w /dev/kvm ] && grep -qwE '^flags.*(svm|vmx)' /proc/cpuinfo; }

# The lines of a kernel's log without time stamps, without what differs from boot to boot, and
# without complaints that only say how slow and uneven an emulated host is.
kernel_lines() {
    tr -d '\r' | sed -E 's/^\[ *[0-9.]+\] //; s/0x[0-9a-f]+/0xN/g; s/[0-9]+\.[0-9]+/N/g' |
        grep -vE 'clocksource: Long readout|hrtimer: interrupt took|interrupt took too long' |
        sort -u
}
