/* The processor's path to the planes of a VGA: Sequencer (SRxx) and Graphics Controller (GRxx) of
 * the IBM PS/2 Hardware Interface Technical Reference, Video Subsystem (1991). All four planes of
 * an address are one word of video memory. Pure functions; see vga-draw.h. */
#include "vga-draw.h"

#include <string.h>

enum {
    SR04_NO_ODD_EVEN = 0x04,
    SR04_CHAIN4 = 0x08,
    GR05_READ_COMPARE = 0x08,
    GR05_ODD_EVEN = 0x10,
    GR06_GRAPHICS = 0x01,
    GR06_CHAIN_ODD_EVEN = 0x02,
    ODD_PLANES = 0x0a,
    EVEN_PLANES = 0x05,
    FONT_PLANE = 0x04,
    BANK_SIZE = 0x10000,
};

/* Four bits, one for each plane, as bytes of a word of four planes. */
static uint32_t spread(unsigned planes)
{
    return ((planes & 1) | (planes & 2) << 7 | (planes & 4) << 14 | (planes & 8) << 21) * 0xff;
}

static uint32_t in_all_planes(uint8_t byte)
{
    return byte * 0x01010101u;
}

struct target {
    uint64_t offset; /* in video memory, of plane 0 */
    unsigned planes; /* that the address selects */
};

/* What a byte of the window is; `odd_even` says whether its lowest bit selects planes. */
static struct target target(const struct vga_regs *regs, struct vga_memory memory, uint32_t address,
                            bool odd_even)
{
    if (vga_dispi_on(regs)) {
        uint64_t at = address + (uint64_t)regs->dispi[DISPI_BANK] * BANK_SIZE;
        return (struct target){ (at & (memory.size / 4 - 1)) * 4, 0x0f };
    }
    if (regs->sr[4] & SR04_CHAIN4)
        return (struct target){ address >> 2 << 2, 1u << (address & 3) };
    struct target t = { 0, 0x0f };
    if (odd_even)
        t.planes = address & 1 ? ODD_PLANES : EVEN_PLANES;
    if (regs->gr[6] & GR06_CHAIN_ODD_EVEN)
        address = (address & ~1u) | (address >> 16 & 1);
    t.offset = (uint64_t)(address & 0xffff) * 4;
    return t;
}

uint8_t vga_plane_read(struct vga_regs *regs, struct vga_memory memory, uint32_t address)
{
    bool odd_even = regs->gr[5] & GR05_ODD_EVEN;
    struct target t = target(regs, memory, address, odd_even);
    memcpy(&regs->latch, memory.bytes + t.offset, sizeof regs->latch);
    if (regs->gr[5] & GR05_READ_COMPARE) {
        uint32_t differ = (regs->latch ^ spread(regs->gr[2])) & spread(regs->gr[7]);
        return (uint8_t) ~(differ | differ >> 8 | differ >> 16 | differ >> 24);
    }
    unsigned plane = regs->gr[4] & 3;
    if (t.planes == ODD_PLANES || t.planes == EVEN_PLANES)
        plane = (plane & 2) | (t.planes == ODD_PLANES);
    else if (t.planes != 0x0f)
        plane = address & 3;
    return (uint8_t)(regs->latch >> plane * 8);
}

static uint32_t combine(const struct vga_regs *regs, uint32_t value)
{
    switch (regs->gr[3] >> 3 & 3) {
    case 1:
        return value & regs->latch;
    case 2:
        return value | regs->latch;
    case 3:
        return value ^ regs->latch;
    default:
        return value;
    }
}

/* The four write modes (GR05 bits 0-1). */
static uint32_t written_value(const struct vga_regs *regs, uint8_t byte)
{
    unsigned turn = regs->gr[3] & 7;
    uint8_t rotated = (uint8_t)(byte >> turn | byte << (8 - turn)), bit_mask = regs->gr[8];
    uint32_t value, enabled = spread(regs->gr[1]);
    switch (regs->gr[5] & 3) {
    case 0:
        value = (in_all_planes(rotated) & ~enabled) | (spread(regs->gr[0]) & enabled);
        break;
    case 1:
        return regs->latch;
    case 2:
        value = spread(byte & 0x0f);
        break;
    default:
        value = spread(regs->gr[0]);
        bit_mask &= rotated;
        break;
    }
    uint32_t mask = in_all_planes(bit_mask);
    return (combine(regs, value) & mask) | (regs->latch & ~mask);
}

uint64_t vga_plane_write(const struct vga_regs *regs, struct vga_memory memory, uint32_t address,
                         uint8_t byte)
{
    struct target t = target(regs, memory, address, !(regs->sr[4] & SR04_NO_ODD_EVEN));
    uint32_t mask = spread(t.planes & regs->sr[2]), old;
    memcpy(&old, memory.bytes + t.offset, sizeof old);
    old = (old & ~mask) | (written_value(regs, byte) & mask);
    memcpy(memory.bytes + t.offset, &old, sizeof old);
    return t.offset;
}

bool vga_font_selected(const struct vga_regs *regs)
{
    return regs->sr[2] & FONT_PLANE && !(regs->gr[6] & GR06_GRAPHICS);
}
