#!/bin/bash
# The ship moves to the left. It is "/ \" in the lowest row it ever has; the column tells where it is.
column() {
    "$HV" screen "$HV_MACHINE" --text | grep -F '/ \' | tail -1 | awk -F/ '{ print length($1) }'
}
before=$(column)
for _ in $(seq 50); do
    "$HV" send "$HV_MACHINE" key left # a press moves it by one or, when the game looked elsewhere, not at all
    sleep 0.2
    now=$(column)
    [ "$now" -ge "$before" ] || exit 0
done
echo "the ship stays at column $before"
exit 1
