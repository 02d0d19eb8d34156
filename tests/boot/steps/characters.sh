#!/bin/sh
# characters.sh COUNT: each printable character behind each other one, somewhere, in lines of 80.
awk -v count="$1" 'BEGIN {
    for (i = 1; i <= count; i++) {
        state = (state * 69069 + 12345) % 4294967296
        printf "%c", i % 80 ? 32 + int(state / 65536) % 95 : 10
    }
}'
