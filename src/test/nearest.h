/* What comes nearest to a text that was not found. Any thread. */
#pragma once

/* The distance (characters to be changed) between `wanted` and the part of a line of `text` that is
 * nearest to it; `part` gets that part, to be freed. -1: nothing is near. */
int nearest_part(const char *text, const char *wanted, char **part);
