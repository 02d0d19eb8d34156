#!/bin/bash
# reads-lines.sh WORD: the lines of the standard input from WORD to WORD-END, which are more than 20, stand on
# the screen just so.
part() { sed -n "/^$1\$/,/^$1-END/p" | sed 's/ *$//'; }
part "$1" >written
"$HV" screen "$HV_MACHINE" --text | part "$1" >glyphs
[ "$(wc -l <written)" -ge 20 ] || { echo 'the guest has written little'; exit 1; }
diff written glyphs
