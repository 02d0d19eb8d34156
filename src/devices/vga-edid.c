/* What the VGA's monitor says of itself: EDID 1.4 (VESA Enhanced EDID Standard, release A2), with
 * timings by VESA CVT 1.1, reduced blanking. Pure functions; see vga-draw.h. */
#include "vga-draw.h"

#include <glib.h>
#include <string.h>

/* CVT 1.1 reduced blanking at 60 Hz: the blanking lines, and the sync width, which tells the
 * aspect. */
static unsigned blank_lines(unsigned width, unsigned height, unsigned *sync)
{
    static const struct {
        unsigned width, height, sync;
    } aspects[] = { { 4, 3, 4 }, { 16, 9, 5 }, { 16, 10, 6 }, { 5, 4, 7 }, { 15, 9, 7 } };
    *sync = 10;
    for (size_t i = 0; i < G_N_ELEMENTS(aspects); i++)
        if (width * aspects[i].height == height * aspects[i].width)
            *sync = aspects[i].sync;
    /* At least 460 us of the 16667 us of a frame. */
    unsigned lines = 460 * height / (16667 - 460) + 1;
    return MAX(lines, 3 + *sync + 6);
}

/* EDID 1.4 section 3.10.2: the detailed timing. */
static void detailed_timing(uint8_t *d, unsigned width, unsigned height)
{
    enum { FRONT = 48, SYNC = 32, BLANK = 160, FRONT_LINES = 3 };
    unsigned sync, blank = blank_lines(width, height, &sync);
    unsigned clock = (width + BLANK) * (height + blank) * 60 / 10000; /* in 10 kHz */
    unsigned wide = width * 254 / 960, high = height * 254 / 960;     /* mm at 96 dpi */
    const uint8_t bytes[18] = {
        (uint8_t)clock,
        (uint8_t)(clock >> 8),
        (uint8_t)width,
        BLANK,
        (uint8_t)(width >> 8 << 4),
        (uint8_t)height,
        (uint8_t)blank,
        (uint8_t)(height >> 8 << 4 | blank >> 8),
        FRONT,
        SYNC,
        (uint8_t)(FRONT_LINES << 4 | sync),
        0,
        (uint8_t)wide,
        (uint8_t)high,
        (uint8_t)(wide >> 8 << 4 | high >> 8),
        0,
        0,
        0x1a, /* digital, separate sync: horizontal positive, vertical negative */
    };
    memcpy(d, bytes, sizeof bytes);
}

void vga_edid(uint8_t edid[VGA_EDID_SIZE], unsigned width, unsigned height)
{
    static const uint8_t head[54] = {
        0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, /* */
        0x22, 0xcd, 0x01, 0x00, 0x01, 0x00, 0x00, 0x00, /* "HVM", product 1, serial 1 */
        0x01, 0x22,                                     /* week 1 of 2024 */
        0x01, 0x04,                                     /* EDID 1.4 */
        0xa5, 0x00, 0x00, 0x78, 0x06, /* digital, 8 bits; size below; gamma 2.2; sRGB, native */
        0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54, /* the sRGB primaries */
        0x21, 0x08, 0x00, /* 640x480, 800x600, 1024x768, each at 60 Hz */
        0xd1, 0xc0,       /* 1920x1080 */
        0xb3, 0x00,       /* 1680x1050 */
        0xa9, 0xc0,       /* 1600x900 */
        0x95, 0x00,       /* 1440x900 */
        0x81, 0x80,       /* 1280x1024 */
        0x81, 0xc0,       /* 1280x720 */
        0x81, 0x00,       /* 1280x800 */
        0x71, 0x4f,       /* 1152x864 at 75 Hz */
    };
    static const uint8_t rest[54] = {
        /* Range limits: 50-125 Hz, 30-160 kHz, up to 680 MHz; no timing formula. */
        0, 0, 0, 0xfd, 0, 50, 125, 30, 160, 68, 0x01, '\n', ' ', ' ', ' ', ' ', ' ', ' ',
        /* Its name, and nothing. */
        0, 0, 0, 0xfc, 0, 'h', 'v', ' ', 'd', 'i', 's', 'p', 'l', 'a', 'y', '\n', ' ', ' ', /* */
        0, 0, 0, 0x10, 0
    };
    uint8_t sum = 0;
    memset(edid, 0, VGA_EDID_SIZE);
    memcpy(edid, head, sizeof head);
    edid[21] = (uint8_t)(width * 254 / 9600); /* cm */
    edid[22] = (uint8_t)(height * 254 / 9600);
    detailed_timing(edid + 54, width, height);
    memcpy(edid + 72, rest, sizeof rest);
    for (unsigned i = 0; i < VGA_EDID_SIZE - 1; i++)
        sum = (uint8_t)(sum + edid[i]);
    edid[VGA_EDID_SIZE - 1] = (uint8_t)-sum;
}
