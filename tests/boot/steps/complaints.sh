#!/bin/bash
# complaints.sh [--task] [KNOWN]: the kernel's lines on the standard input have nothing that the file does
# not have; --task: of what images/linux-task prints. `kernel_lines` leaves out what differs each time.
. "$(dirname "$(readlink -f "$0")")/../lib.sh"
lines='s/\r//'
if [ "${1:-}" = --task ]; then
    lines='s/^complaint: <.>//p;d'
    shift
fi
sed "$lines" | grep . | kernel_lines | grep -vxF -f "${1:-/dev/null}"
[ "${PIPESTATUS[3]}" = 1 ]
