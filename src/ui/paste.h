/* The host's clipboard, typed into the guest. */
#pragma once
struct viewer;
void paste_clipboard(struct viewer *viewer);
