#!/bin/bash
# The picture of a text screen, read by its glyphs, is what stands in its cells. It is tried again when the
# screen changed between the two.
for _ in 1 2 3; do
    "$HV" screen "$HV_MACHINE" --text >cells
    "$HV" screen "$HV_MACHINE" --text --pixels >glyphs
    "$HV" screen "$HV_MACHINE" --text >again
    cmp -s cells again || continue
    cmp -s cells glyphs && exit
    diff cells glyphs
    exit 1
done
echo 'the screen does not stand still'
exit 1
