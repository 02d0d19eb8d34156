/* The VGA's register ports, a byte each; see vga-draw.h for the registers.
 *
 * IBM PS/2 Hardware Interface Technical Reference, Video Subsystem (1991), "Video Graphics Array".
 * No timers: the retrace bits are computed when read. */
#include "bus/device.h"
#include "vga-draw.h"

#include <glib.h>

enum { PORTS = 0x3c0 };
enum {
    MISC_COLOR = 0x01, /* CRTC at 0x3Dx, else at 0x3Bx */
    CR11_PROTECT = 0x80,
    CR07_LINE_COMPARE = 0x10, /* stays writable */
    STATUS0_SENSE = 0x10,     /* a monitor is there */
    STATUS1_BLANK = 0x01,
    STATUS1_RETRACE = 0x08,
};

/* The bits that exist in indexed registers. */
static const uint8_t sr_bits[VGA_SR] = { 0x03, 0x3d, 0x0f, 0x3f, 0x0e };
static const uint8_t gr_bits[VGA_GR] = { 0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff };
static const uint8_t cr_bits[VGA_CR] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
                                         0xff, 0x3f, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                         0xff, 0xff, 0x7f, 0xff, 0xff, 0xef, 0xff };
static const uint8_t ar_bits[VGA_AR] = { 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
                                         0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
                                         0x3f, 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f };

/* --- status: where the beam is -------------------------------------------------------------- */

static unsigned lines_total(const struct vga_regs *regs)
{
    return (regs->cr[6] | (regs->cr[7] & 0x01) << 8 | (regs->cr[7] & 0x20) << 4) + 2u;
}

static unsigned retrace_start(const struct vga_regs *regs)
{
    return regs->cr[0x10] | (regs->cr[7] & 0x04u) << 6 | (regs->cr[7] & 0x80u) << 2;
}

struct timing {
    uint64_t line;                  /* ns */
    unsigned lines, shown, retrace; /* a frame; its picture; where the retrace begins */
    unsigned clocks, shown_clocks;  /* character clocks of a line */
};

static struct timing timing(const struct vga_regs *regs)
{
    static const unsigned clocks_khz[] = { 25175, 28322, 25175, 25175 };
    struct timing t = {
        .lines = lines_total(regs),
        .shown = vga_lines_shown(regs),
        .retrace = retrace_start(regs),
        .clocks = regs->cr[0] + 5u,
        .shown_clocks = regs->cr[1] + 1u,
    };
    unsigned dots = (regs->sr[1] & 1 ? 8 : 9) * (regs->sr[1] & 8 ? 2 : 1);
    t.line = t.clocks * dots * UINT64_C(1000000) / clocks_khz[regs->misc >> 2 & 3];
    if (vga_dispi_on(regs)) {
        t.shown = regs->dispi[DISPI_YRES];
        t.retrace = t.shown + 3;
        t.lines = t.shown + t.shown / 20 + 8;
        t.line = NS_PER_SECOND / 60 / t.lines;
    }
    /* Whatever the registers say, each bit is sometimes 0 and sometimes 1: who polls gets on. */
    t.retrace = CLAMP(t.retrace, 1, t.lines - 1);
    t.shown = CLAMP(t.shown, 1, t.retrace);
    return t;
}

static uint8_t status1(const struct vga_regs *regs, uint64_t now)
{
    struct timing t = timing(regs);
    uint64_t line = now / t.line % t.lines, clock = now % t.line * t.clocks / t.line;
    uint8_t status = 0;
    if (line >= t.shown || clock >= t.shown_clocks)
        status |= STATUS1_BLANK;
    /* To the end of the frame, where hardware takes a few lines: accesses are slow here, and a
     * guest that waits for the retrace must not miss it for long. */
    if (line >= t.retrace)
        status |= STATUS1_RETRACE;
    return status;
}

/* --- registers ------------------------------------------------------------------------------ */

static void crtc_write(struct vga_regs *regs, uint8_t value)
{
    unsigned index = regs->cr_index;
    if (index >= VGA_CR)
        return;
    uint8_t bits = cr_bits[index], *reg = &regs->cr[index];
    if (index <= 7 && regs->cr[0x11] & CR11_PROTECT)
        bits = index == 7 ? CR07_LINE_COMPARE : 0;
    *reg = (uint8_t)((*reg & ~bits) | (value & bits));
}

static void attribute_write(struct vga_regs *regs, uint8_t value)
{
    unsigned index = regs->ar_index & 0x1f;
    if (!regs->ar_data)
        regs->ar_index = value & 0x3f;
    else if (index < VGA_AR)
        regs->ar[index] = value & ar_bits[index];
    regs->ar_data = !regs->ar_data;
}

/* An entry is written when its blue part comes. */
static void dac_write(struct vga_regs *regs, uint8_t value)
{
    if (!(regs->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC))
        value &= 0x3f;
    if (regs->dac_write_part < 2) {
        regs->dac_held[regs->dac_write_part++] = value;
        return;
    }
    uint8_t *entry = &regs->dac[regs->dac_write_index * 3];
    entry[0] = regs->dac_held[0];
    entry[1] = regs->dac_held[1];
    entry[2] = value;
    regs->dac_write_part = 0;
    regs->dac_write_index++;
}

static uint8_t dac_read(struct vga_regs *regs)
{
    uint8_t value = regs->dac[regs->dac_read_index * 3 + regs->dac_read_part];
    regs->dac_read_part = (uint8_t)((regs->dac_read_part + 1) % 3);
    regs->dac_read_index = (uint8_t)(regs->dac_read_index + !regs->dac_read_part);
    return value;
}

static void dac_address(struct vga_regs *regs, uint8_t value, bool reading)
{
    regs->dac_reading = reading;
    if (reading) {
        regs->dac_read_index = value;
        regs->dac_read_part = 0;
    } else {
        regs->dac_write_index = value;
        regs->dac_write_part = 0;
    }
}

/* The registers that move with MISC_COLOR, by their low digit. */
static uint8_t crtc_port_read(struct vga_regs *regs, unsigned digit, uint64_t now)
{
    switch (digit) {
    case 4:
        return regs->cr_index;
    case 5:
        return regs->cr_index < VGA_CR ? regs->cr[regs->cr_index] : 0;
    case 0xa:
        regs->ar_data = false;
        return status1(regs, now);
    default:
        return 0xff;
    }
}

static void crtc_port_write(struct vga_regs *regs, unsigned digit, uint8_t value)
{
    switch (digit) {
    case 4:
        regs->cr_index = value;
        break;
    case 5:
        crtc_write(regs, value);
        break;
    case 0xa:
        regs->feature = value & 3;
        break;
    default:
        break;
    }
}

uint8_t vga_port_read(struct vga_regs *regs, unsigned port, uint64_t now)
{
    if (!regs->enabled && port != 0x3c3)
        return 0xff;
    if (port < PORTS || port >= 0x3d0)
        return (port >= 0x3d0) == (regs->misc & MISC_COLOR) ? crtc_port_read(regs, port & 0x0f, now)
                                                            : 0xff;
    switch (port) {
    case 0x3c0:
        return regs->ar_index;
    case 0x3c1:
        return (regs->ar_index & 0x1f) < VGA_AR ? regs->ar[regs->ar_index & 0x1f] : 0;
    case 0x3c2:
        return STATUS0_SENSE;
    case 0x3c3:
        return regs->enabled;
    case 0x3c4:
        return regs->sr_index;
    case 0x3c5:
        return regs->sr_index < VGA_SR ? regs->sr[regs->sr_index] : 0;
    case 0x3c6:
        return regs->pel_mask;
    case 0x3c7:
        return regs->dac_reading ? 3 : 0;
    case 0x3c8:
        return regs->dac_write_index;
    case 0x3c9:
        return dac_read(regs);
    case 0x3ca:
        return regs->feature;
    case 0x3cc:
        return regs->misc;
    case 0x3ce:
        return regs->gr_index;
    case 0x3cf:
        return regs->gr_index < VGA_GR ? regs->gr[regs->gr_index] : 0;
    default:
        return 0xff;
    }
}

void vga_port_write(struct vga_regs *regs, unsigned port, uint8_t value)
{
    if (!regs->enabled && port != 0x3c3)
        return;
    if (port < PORTS || port >= 0x3d0) {
        if ((port >= 0x3d0) == (regs->misc & MISC_COLOR))
            crtc_port_write(regs, port & 0x0f, value);
        return;
    }
    switch (port) {
    case 0x3c0:
        attribute_write(regs, value);
        break;
    case 0x3c2:
        regs->misc = value & 0xef;
        break;
    case 0x3c3:
        regs->enabled = value & 1;
        break;
    case 0x3c4:
        regs->sr_index = value;
        break;
    case 0x3c5:
        if (regs->sr_index < VGA_SR)
            regs->sr[regs->sr_index] = value & sr_bits[regs->sr_index];
        break;
    case 0x3c6:
        regs->pel_mask = value;
        break;
    case 0x3c7:
    case 0x3c8:
        dac_address(regs, value, port == 0x3c7);
        break;
    case 0x3c9:
        dac_write(regs, value);
        break;
    case 0x3ce:
        regs->gr_index = value;
        break;
    case 0x3cf:
        if (regs->gr_index < VGA_GR)
            regs->gr[regs->gr_index] = value & gr_bits[regs->gr_index];
        break;
    default:
        break;
    }
}
