/* The guest's picture as a PNG file. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct viewer;

/* Into the user's Pictures folder; says where, or why not, in the strip. */
void screenshot_take(struct viewer *viewer);

/* Writes a new file DIRECTORY/NAME-TIME.png and returns its path; NULL with an error. */
char *screenshot_write(const char *directory, const char *name, const uint32_t *pixels,
                       uint32_t width, uint32_t height, GError **error);
