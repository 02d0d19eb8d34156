/* Where the picture goes: aspect, scaling, the window's size. Plain arithmetic, no SDL. */
#pragma once
#include <stdint.h>

enum scaling { SCALING_FIT, SCALING_INTEGER, SCALING_ONE_TO_ONE };

struct box {
    int x, y, width, height;
};

/* The size of a mode on a real monitor, in square pixels: modes below 640 x 480 (VGA text, mode
 * 13h, EGA) fill a 4:3 tube whatever their count of dots. */
struct box geometry_shown(uint32_t width, uint32_t height);

/* The place in `room` for a picture of width x height pixels. SCALING_INTEGER and
 * SCALING_ONE_TO_ONE fall back to fitting when the room is too small for the picture. */
struct box geometry_place(uint32_t width, uint32_t height, enum scaling scaling, struct box room);

/* Where x is between `from` and `from + length`, of 0 to range; outside it is at the nearer end. */
uint32_t geometry_scale(int x, int from, int length, uint32_t range);

/* The size that a window for this mode opens with, at most `most`: small modes are enlarged, large
 * ones shrunk, both without changing their shape. */
struct box geometry_natural(uint32_t width, uint32_t height, enum scaling scaling, struct box most);
