/* Where the picture goes; see geometry.h. Any thread. */
#include "ui/geometry.h"

#include <glib.h>

enum { LEAST_WIDTH = 640, LEAST_HEIGHT = 480 };

struct box geometry_shown(uint32_t width, uint32_t height)
{
    int64_t w = width, h = height;
    if (w < LEAST_WIDTH || h < LEAST_HEIGHT) {
        if (w * 3 > h * 4)
            h = w * 3 / 4;
        else
            w = h * 4 / 3;
    }
    return (struct box){ 0, 0, (int)w, (int)h };
}

/* The largest box of that shape inside width x height. */
static struct box fit(struct box shape, int width, int height)
{
    int64_t w = width, h = (int64_t)width * shape.height / MAX(shape.width, 1);
    if (h > height) {
        h = height;
        w = (int64_t)height * shape.width / MAX(shape.height, 1);
    }
    return (struct box){ 0, 0, MAX((int)w, 1), MAX((int)h, 1) };
}

static struct box centre(struct box box, struct box room)
{
    box.x = room.x + (room.width - box.width) / 2;
    box.y = room.y + (room.height - box.height) / 2;
    return box;
}

struct box geometry_place(uint32_t width, uint32_t height, enum scaling scaling, struct box room)
{
    int w = (int)MAX(width, 1), h = (int)MAX(height, 1);
    int factor = MIN(room.width / w, room.height / h);
    if (scaling == SCALING_ONE_TO_ONE)
        factor = MIN(factor, 1);
    if (scaling != SCALING_FIT && factor >= 1)
        return centre((struct box){ 0, 0, w * factor, h * factor }, room);
    return centre(fit(geometry_shown((uint32_t)w, (uint32_t)h), room.width, room.height), room);
}

struct box geometry_natural(uint32_t width, uint32_t height, enum scaling scaling, struct box most)
{
    struct box shape = { 0, 0, (int)MAX(width, 1), (int)MAX(height, 1) };
    if (scaling == SCALING_FIT)
        shape = geometry_shown((uint32_t)shape.width, (uint32_t)shape.height);
    if (scaling != SCALING_ONE_TO_ONE && shape.width < LEAST_WIDTH) {
        int factor = (LEAST_WIDTH + shape.width - 1) / shape.width;
        shape.width *= factor;
        shape.height *= factor;
    }
    if (shape.width > most.width || shape.height > most.height)
        shape = fit(shape, most.width, most.height);
    return shape;
}

uint32_t geometry_scale(int x, int from, int length, uint32_t range)
{
    int64_t last = MAX(length - 1, 1), at = CLAMP((int64_t)x - from, 0, last);
    return (uint32_t)((at * range + last / 2) / last);
}
