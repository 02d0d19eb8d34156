/* The 82540EM's PHY, a Marvell 88E1011 (chapter 11 of the manual, IEEE 802.3 clause 22), and its
 * EEPROM, a 93C46 of 64 words (sections 5.6, 13.4.3, 13.4.4).
 *
 * Autonegotiation takes no time: the far end can everything, and the link is up when the cable is
 * in. The EEPROM cannot be written: it is made from the option `mac`. */
#include "e1000.h"

/* MII registers. */
enum {
    PHY_CONTROL,
    PHY_STATUS,
    PHY_ID1,
    PHY_ID2,
    PHY_ADVERTISE,
    PHY_PARTNER,
    PHY_EXPANSION,
    PHY_NEXT_PAGE,
    PHY_PARTNER_PAGE,
    PHY_GIGABIT_CONTROL,
    PHY_GIGABIT_STATUS,
    PHY_EXTENDED_STATUS = 15,
    PHY_SPECIFIC_CONTROL, /* of the 88E1011, from here on */
    PHY_SPECIFIC_STATUS,
    PHY_INTERRUPT_ENABLE,
    PHY_INTERRUPT_STATUS,
    PHY_EXTENDED_CONTROL,
    PHY_RX_ERRORS,
};
enum {
    CONTROL_RESET = 0x8000,
    CONTROL_LOOPBACK = 0x4000,
    CONTROL_SPEED_100 = 0x2000,
    CONTROL_NEGOTIATE = 0x1000,
    CONTROL_POWER_DOWN = 0x0800,
    CONTROL_ISOLATE = 0x0400,
    CONTROL_RESTART = 0x0200,
    CONTROL_DUPLEX = 0x0100,
    CONTROL_SPEED_1000 = 0x0040,
    CONTROL_MASK = 0x7dc0,
};
enum { STATUS_BASE = 0x7949, STATUS_NEGOTIATED = 0x20, STATUS_LINK = 4 };
enum { ADVERTISE_100 = 0x0380, ADVERTISE_1000 = 0x0300, ADVERTISE_FULL = 0x0140 };
enum { ID1 = 0x0141, ID2 = 0x0c20 };

/* What may be written, and what is there after a reset. */
static const struct {
    uint16_t mask, preset;
} phy_registers[PHY_REGISTERS] = {
    [PHY_CONTROL] = { CONTROL_MASK, CONTROL_NEGOTIATE | CONTROL_DUPLEX | CONTROL_SPEED_1000 },
    [PHY_ID1] = { 0, ID1 },
    [PHY_ID2] = { 0, ID2 },
    [PHY_ADVERTISE] = { 0xafe0, 0x0de1 },
    [PHY_NEXT_PAGE] = { 0xb7ff, 0x2001 },
    [PHY_GIGABIT_CONTROL] = { 0xff00, 0x0e00 },
    [PHY_EXTENDED_STATUS] = { 0, 0x3000 },
    [PHY_SPECIFIC_CONTROL] = { 0xffff, 0x0068 },
    [PHY_INTERRUPT_ENABLE] = { 0xffff, 0 },
    [PHY_EXTENDED_CONTROL] = { 0xffff, 0x0d60 },
    [22] = { 0xffff, 0 },
    [24] = { 0xffff, 0x4100 }, /* LEDs */
    [25] = { 0xffff, 0 },
    [29] = { 0xffff, 0 }, /* a page, and what it shows */
    [30] = { 0xffff, 0 },
};

bool e1000_phy_link(const struct e1000 *e)
{
    return e->net && !e->unplugged &&
           !(e->regs.phy[PHY_CONTROL] & (CONTROL_POWER_DOWN | CONTROL_ISOLATE));
}

/* 0, 1, 2 for 10, 100, 1000 Mbit/s, as in STATUS.SPEED. */
static unsigned phy_speed(const struct e1000 *e)
{
    const uint16_t *phy = e->regs.phy;
    if (!(phy[PHY_CONTROL] & CONTROL_NEGOTIATE))
        return phy[PHY_CONTROL] & CONTROL_SPEED_1000  ? 2
               : phy[PHY_CONTROL] & CONTROL_SPEED_100 ? 1
                                                      : 0;
    return phy[PHY_GIGABIT_CONTROL] & ADVERTISE_1000 ? 2
           : phy[PHY_ADVERTISE] & ADVERTISE_100      ? 1
                                                     : 0;
}

static bool phy_duplex(const struct e1000 *e)
{
    const uint16_t *phy = e->regs.phy;
    if (!(phy[PHY_CONTROL] & CONTROL_NEGOTIATE))
        return phy[PHY_CONTROL] & CONTROL_DUPLEX;
    return phy_speed(e) == 2 ? phy[PHY_GIGABIT_CONTROL] & 0x0200
                             : phy[PHY_ADVERTISE] & ADVERTISE_FULL;
}

uint32_t e1000_phy_status(const struct e1000 *e)
{
    return (phy_duplex(e) ? 1u : 0) | phy_speed(e) << 6 | phy_speed(e) << 8;
}

bool e1000_loopback(const struct e1000 *e)
{
    return e->regs.r[R_RCTL] & RCTL_LBM || e->regs.phy[PHY_CONTROL] & CONTROL_LOOPBACK;
}

void e1000_phy_reset(struct e1000 *e)
{
    for (unsigned i = 0; i < PHY_REGISTERS; i++)
        e->regs.phy[i] = phy_registers[i].preset;
    e->regs.link_lost = false;
}

static uint16_t phy_read(struct e1000 *e, unsigned number)
{
    bool up = e1000_phy_link(e), negotiated = up && e->regs.phy[PHY_CONTROL] & CONTROL_NEGOTIATE;
    unsigned value = 0;
    switch (number) {
    case PHY_STATUS: /* the link bit stays 0 until it is read, once it was 0 */
        value = STATUS_BASE | (negotiated ? STATUS_NEGOTIATED : 0u) |
                (up && !e->regs.link_lost ? STATUS_LINK : 0u);
        e->regs.link_lost = !up;
        return (uint16_t)value;
    case PHY_PARTNER:
        return negotiated ? 0x4de1 : 0;
    case PHY_EXPANSION:
        return negotiated ? 0x0d : 0x0c;
    case PHY_GIGABIT_STATUS:
        return negotiated ? 0x3c00 : 0;
    case PHY_SPECIFIC_STATUS: /* speed, duplex, resolved, link */
        value = phy_speed(e) << 14 | (phy_duplex(e) ? 0x2000u : 0) | 0x0040;
        return (uint16_t)(up ? value | 0x0c00 : value);
    }
    return e->regs.phy[number];
}

static void phy_write(struct e1000 *e, unsigned number, uint16_t value)
{
    uint16_t mask = phy_registers[number].mask, was = e->regs.phy[number];
    bool up = e1000_phy_link(e);
    e->regs.phy[number] = (uint16_t)((was & ~mask) | (value & mask));
    if (number != PHY_CONTROL)
        return;
    /* The link goes down and comes up again, so fast that only the cause tells. */
    if (value & (CONTROL_RESET | CONTROL_RESTART) || up != e1000_phy_link(e)) {
        e->regs.link_lost |= !e1000_phy_link(e);
        e1000_cause(e, INT_LSC);
    }
}

/* 13.4.7 */
void e1000_mdic_write(struct e1000 *e, uint32_t value)
{
    enum { WRITE = 1, READ = 2, PHY_ADDRESS = 1 };
    const uint32_t ready = 0x10000000, interrupt = 0x20000000, error = 0x40000000;
    unsigned number = value >> 16 & 31, operation = value >> 26 & 3;
    uint32_t result = (value & 0x2fffffff) | ready;
    if ((value >> 21 & 31) != PHY_ADDRESS || (operation != WRITE && operation != READ))
        result |= error;
    else if (operation == WRITE)
        phy_write(e, number, (uint16_t)value);
    else
        result = (result & 0xffff0000) | phy_read(e, number);
    e->regs.r[R_MDIC] = result;
    if (value & interrupt)
        e1000_cause(e, INT_MDAC);
}

/* --- EEPROM --------------------------------------------------------------------------------- */

enum {
    EECD_SK = 0x01,
    EECD_CS = 0x02,
    EECD_DI = 0x04,
    EECD_DO = 0x08,
    EECD_REQ = 0x40,
    EECD_GNT = 0x80,
    EECD_PRES = 0x100,
    EECD_MASK = 0x77,
};

/* Table 5-2. */
void e1000_eeprom_fill(struct e1000 *e, const uint8_t mac[6])
{
    enum { CHECKSUM = 0xbaba };
    static const struct {
        uint8_t at;
        uint16_t word;
    } words[] = {
        { 0x05, 0x0200 },                   /* image version */
        { 0x08, 0xffff }, { 0x09, 0xffff }, /* board number: none */
        { 0x0a, 0x4408 },                   /* initialization control 1: IDs from here */
        { 0x0b, 0x001e }, { 0x0c, 0x8086 }, /* subsystem */
        { 0x0d, 0x100e }, { 0x0e, 0x8086 }, /* device, vendor */
        { 0x0f, 0xb040 },                   /* initialization control 2 */
        { 0x21, 0x7061 }, { 0x23, 0x0000 }, { 0x24, 0x0000 }, { 0x2f, 0x0602 }, /* LEDs */
    };
    uint16_t sum = 0;
    for (unsigned i = 0; i < 3; i++)
        e->eeprom[i] = (uint16_t)(mac[2 * i] | mac[2 * i + 1] << 8);
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        e->eeprom[words[i].at] = words[i].word;
    for (unsigned i = 0; i < EEPROM_WORDS - 1; i++)
        sum = (uint16_t)(sum + e->eeprom[i]);
    e->eeprom[EEPROM_WORDS - 1] = (uint16_t)(CHECKSUM - sum);
}

/* A clock tick with the chip selected: a start bit, two bits of the operation and six of the
 * address; then for READ the words from there on, bit 15 first. Other operations do nothing. */
static void microwire_tick(struct e1000 *e, bool in)
{
    enum { COMMAND_BITS = 9, OPERATION_READ = 2 };
    struct e1000_microwire *m = e->regs.microwire;
    if (m->reading) {
        m->out = e->eeprom[m->address % EEPROM_WORDS] >> (15 - (m->count & 15)) & 1;
        m->count = (m->count + 1) & 15;
        if (!m->count)
            m->address = (uint8_t)((m->address + 1) % EEPROM_WORDS);
        return;
    }
    if (m->count >= COMMAND_BITS || (!m->count && !in))
        return;
    m->shift = (uint16_t)(m->shift << 1 | (in ? 1 : 0));
    if (++m->count < COMMAND_BITS || (m->shift >> 6 & 3) != OPERATION_READ)
        return;
    *m = (struct e1000_microwire){ .address = (uint8_t)(m->shift % EEPROM_WORDS), .reading = true };
}

void e1000_eecd_write(struct e1000 *e, uint32_t value)
{
    uint32_t was = e->regs.r[R_EECD];
    e->regs.r[R_EECD] = value & EECD_MASK;
    if (!(value & EECD_CS))
        e->regs.microwire[0] = (struct e1000_microwire){ .out = true }; /* ready */
    else if (value & EECD_SK && !(was & EECD_SK))
        microwire_tick(e, value & EECD_DI);
}

uint32_t e1000_eecd_read(const struct e1000 *e)
{
    uint32_t value = e->regs.r[R_EECD] | EECD_PRES;
    return value | (value & EECD_REQ ? EECD_GNT : 0) | (e->regs.microwire[0].out ? EECD_DO : 0);
}

void e1000_eerd_write(struct e1000 *e, uint32_t value)
{
    enum { START = 0x01, DONE = 0x10, ADDRESS = 0xff00 };
    unsigned at = value >> 8 & 0xff;
    e->regs.r[R_EERD] = value & ADDRESS;
    if (value & START)
        e->regs.r[R_EERD] |= (uint32_t)(at < EEPROM_WORDS ? e->eeprom[at] : 0xffff) << 16 | DONE;
}
