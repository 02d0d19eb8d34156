/* ISA DMA: a device's DREQ line, and the channel of the DMA controller at its end.
 *
 * As with an interrupt line, the device holds its end (`struct dma`, a plug) and no number. It
 * moves data with its own lock held; the controller's lock follows, a leaf: the controller touches
 * guest memory and pokes the sleeper, a timer of the device, nothing else. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct device;
struct timer;

enum dma_direction { DMA_TO_MEMORY, DMA_TO_DEVICE };

/* What the machine asks of a DMA controller (device_class.dma). With the controller's lock held. */
struct dma_controller {
    size_t (*move)(struct device *dev, unsigned channel, enum dma_direction direction,
                   uint8_t *data, size_t length, bool *end, struct timer *sleeper);
};

/* A device's end of a channel. */
struct dma {
    size_t (*move)(void *opaque, unsigned channel, enum dma_direction direction, uint8_t *data,
                   size_t length, bool *end, struct timer *sleeper);
    void *opaque;
    unsigned channel;
};

/* DREQ is high: moves up to `length` bytes between the device and memory, wherever the guest has
 * programmed the channel to, and says how many. `*end`: the terminal count came with the last of
 * them (never with none). None: the channel is masked, and DREQ stays high; `sleeper`, one for each
 * channel, is poked as soon as that may have changed. With a length of 0, DREQ falls. NULL is a
 * line that leads nowhere. */
static inline size_t dma_move(struct dma *dma, enum dma_direction direction, uint8_t *data,
                              size_t length, bool *end, struct timer *sleeper)
{
    *end = false;
    return dma ? dma->move(dma->opaque, dma->channel, direction, data, length, end, sleeper) : 0;
}
