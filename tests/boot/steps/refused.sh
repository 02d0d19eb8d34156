#!/bin/sh
# refused.sh STATUS TEXT OPTION...: hv run with these ends with that status and says so.
wanted=$1 text=$2 status=0
shift 2
said=$("$HV" run --headless --memory 16M --name refused "$@" 2>&1) || status=$?
[ $status = "$wanted" ] && printf '%s\n' "$said" | grep -q "$text" && exit
echo "status $status, not $wanted ($text): $said"
exit 1
