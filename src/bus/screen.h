/* A screen: what a display device shows, and who looks at it.
 *
 * The device side fills in device_class.screen; the looking side (machine/display.c, hv screen)
 * calls those functions with the device's lock held, from its own thread. A device whose picture
 * may have changed calls screen_changed, which costs a load or two when nobody looks or a look is
 * due anyway. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest picture: 4096 x 2160 pixels of 32 bits. */
enum { SCREEN_MAX_WIDTH = 4096, SCREEN_MAX_HEIGHT = 2160 };

/* A picture of 32-bit pixels, 0x00RRGGBB, rows of `width` pixels without gaps. */
struct picture {
    uint32_t width, height;
    uint32_t *pixels; /* room for the largest picture */
};

struct rectangle {
    uint32_t x, y, width, height;
};

/* Text modes: what stands in the character cells, row by row. */
enum { SCREEN_MAX_COLUMNS = 132, SCREEN_MAX_ROWS = 60 };
struct screen_text {
    uint32_t columns, rows; /* 0 in graphics modes */
    struct {
        uint8_t code; /* code page 437 */
        uint8_t attribute;
    } cell[SCREEN_MAX_COLUMNS * SCREEN_MAX_ROWS];
};

struct device;
struct screen_class {
    /* Brings the picture up to date and says which part changed since the last call (all of it,
     * with `whole` or after a change of size). False when nothing did. */
    bool (*render)(struct device *dev, struct picture *picture, struct rectangle *changed,
                   bool whole);
    void (*text)(struct device *dev, struct screen_text *text);
};

/* The looking side. */
struct screen {
    void (*changed)(struct screen *screen); /* any thread; the device's lock may be held */
};
static inline void screen_changed(struct screen *screen)
{
    if (screen)
        screen->changed(screen);
}
