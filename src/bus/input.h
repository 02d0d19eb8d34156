/* Keyboard and pointer events, from whoever has them (window, hv send) to the device that the guest
 * reads (device_class.input). Keys are USB HID usages of page 7 (HUT 1.12 section 10), which are
 * also SDL's scancodes. Called with the device's lock held. A class may have only keys or only a
 * pointer: the other functions are NULL. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum pointer_button { BUTTON_LEFT = 1, BUTTON_RIGHT = 2, BUTTON_MIDDLE = 4 };

enum { POINTER_RANGE = 32767 };
/* Where a pixel's middle is, 0..POINTER_RANGE over a picture of `size` pixels. */
static inline int pointer_position(uint32_t pixel, uint32_t size)
{
    return (int)(((2 * (uint64_t)pixel + 1) * POINTER_RANGE) / (2 * (uint64_t)size));
}

enum lamp { LAMP_SCROLL = 1, LAMP_NUM = 2, LAMP_CAPS = 4 };

enum key_loss {
    KEYS_LOST = 1,      /* some were thrown away that the guest had not taken */
    KEYS_FORGOTTEN = 2, /* the guest started anew: it does not know any more what is held down */
};

struct device;
struct input_class {
    /* False when the device cannot take it now (its queue is full): offer it again after
     * `input_ready`. Releases are always taken. */
    bool (*key)(struct device *dev, uint8_t usage, bool down);
    /* Relative motion, right and down positive; wheel away from the user positive. */
    void (*pointer)(struct device *dev, int dx, int dy, int wheel, unsigned buttons);
    /* Where the pointer is, 0..POINTER_RANGE over the screen; as pointer() else. Optional. */
    void (*pointer_at)(struct device *dev, unsigned x, unsigned y, int wheel, unsigned buttons);
    /* Does the guest listen to this device now? The last one that says yes gets the events; NULL:
     * always. */
    bool (*active)(struct device *dev);
    /* The keyboard's lamps, of enum lamp. */
    unsigned (*lamps)(struct device *dev);
    /* Has the guest taken every key given so far, and does it want more? (Text is paced by this.)
     * NULL: nobody knows. `silent`: nobody tells either when that changes. */
    bool (*idle)(struct device *dev);
    bool silent;
    /* What has happened to keys since this was asked last, of enum key_loss. Optional. */
    unsigned (*lost)(struct device *dev);
};

/* The giving side: told when the guest takes keys or sets lamps. */
struct input_source {
    void (*changed)(struct input_source *source); /* the device's lock is held */
};
static inline void input_changed(struct input_source *source)
{
    if (source)
        source->changed(source);
}
