/* Text that is not in a known font, guessed by tesseract, which is loaded when it is wanted. */
#pragma once
#include <glib.h>
#include <stdint.h>

#include "bus/screen.h"

/* The words (struct word; their text is the caller's, `line` counts from 0) in a part of a picture.
 * NULL with an error when tesseract is not installed or fails. */
GArray *guess_words(const uint32_t *pixels, uint32_t width, struct rectangle where, GError **error);
