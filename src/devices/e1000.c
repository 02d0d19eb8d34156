/* Intel 82540EM gigabit Ethernet (8086:100e): PCI/PCI-X Family of Gigabit Ethernet Controllers
 * Software Developer's Manual (Intel 317453), whose sections are cited.
 *
 * This file is the class, the registers, interrupts and the link; e1000-transmit.c and
 * e1000-receive.c serve the rings on the device's loop, e1000-phy.c is what hangs on the chip. A
 * register access never touches a ring: it wakes the loop. What the guest cannot see yet is not
 * watched or timed: the cable's descriptor while there is no room, pauses between interrupts that
 * are masked. Not there: wake-up, pause frames, TBI, the packet buffer as memory. */
#include "e1000.h"

#include "base/error.h"

#include <string.h>

#define READ_ONLY 0

/* Offsets, what software may set of the stored value, and what is there after a reset (13.4 to
 * 13.6). Registers with effects have their case in write_register. */
static const struct {
    uint16_t offset;
    uint32_t mask, preset;
} registers[REGISTERS] = {
    [R_CTRL] = { 0x0000, 0x5bfc1be9, CTRL_FD | CTRL_SLU | CTRL_SPEED_1000 },
    [R_STATUS] = { 0x0008, READ_ONLY, 0 },
    [R_EECD] = { 0x0010, 0x00000077, 0 },
    [R_EERD] = { 0x0014, 0xffffff10, 0 },
    [R_CTRL_EXT] = { 0x0018, 0x0002cfff, 0 },
    [R_MDIC] = { 0x0020, 0x7fffffff, 0x10000000 },
    [R_FCAL] = { 0x0028, 0xffffffff, 0 },
    [R_FCAH] = { 0x002c, 0x0000ffff, 0 },
    [R_FCT] = { 0x0030, 0x0000ffff, 0 },
    [R_VET] = { 0x0038, 0x0000ffff, 0x8100 },
    [R_ICR] = { 0x00c0, INT_ALL, 0 },
    [R_ITR] = { 0x00c4, 0x0000ffff, 0 },
    [R_ICS] = { 0x00c8, READ_ONLY, 0 },
    [R_IMS] = { 0x00d0, INT_ALL, 0 },
    [R_IMC] = { 0x00d8, READ_ONLY, 0 },
    [R_RCTL] = { 0x0100, 0x06dfb3fe, 0 },
    [R_FCTTV] = { 0x0170, 0x0000ffff, 0 },
    [R_TXCW] = { 0x0178, 0xc000ffff, 0 },
    [R_RXCW] = { 0x0180, READ_ONLY, 0 },
    [R_TCTL] = { 0x0400, 0x037ffffa, 0 },
    [R_TIPG] = { 0x0410, 0x3fffffff, 0x00602008 },
    [R_AIT] = { 0x0458, 0x0000ffff, 0 },
    [R_LEDCTL] = { 0x0e00, 0xcfcfcfcf, 0x07068302 },
    [R_PBA] = { 0x1000, 0x0000007f, 0x30 },
    [R_FCRTL] = { 0x2160, 0x8000fff8, 0 },
    [R_FCRTH] = { 0x2168, 0x8000fff8, 0 },
    [R_RDBAL] = { 0x2800, 0xfffffff0, 0 },
    [R_RDBAH] = { 0x2804, 0xffffffff, 0 },
    [R_RDLEN] = { 0x2808, 0x000fff80, 0 },
    [R_RDH] = { 0x2810, 0x0000ffff, 0 },
    [R_RDT] = { 0x2818, 0x0000ffff, 0 },
    [R_RDTR] = { 0x2820, 0x0000ffff, 0 },
    [R_RXDCTL] = { 0x2828, 0x013f3f3f, 0x00010000 },
    [R_RADV] = { 0x282c, 0x0000ffff, 0 },
    [R_RSRPD] = { 0x2c00, 0x00000fff, 0 },
    [R_TXDMAC] = { 0x3000, 0x00000001, 0 },
    [R_TDBAL] = { 0x3800, 0xfffffff0, 0 },
    [R_TDBAH] = { 0x3804, 0xffffffff, 0 },
    [R_TDLEN] = { 0x3808, 0x000fff80, 0 },
    [R_TDH] = { 0x3810, 0x0000ffff, 0 },
    [R_TDT] = { 0x3818, 0x0000ffff, 0 },
    [R_TIDV] = { 0x3820, 0x0000ffff, 0 },
    [R_TXDCTL] = { 0x3828, 0xff3f3f3f, 0 },
    [R_TADV] = { 0x382c, 0x0000ffff, 0 },
    [R_TSPMT] = { 0x3830, 0xffffffff, 0x01000400 },
    [R_RXCSUM] = { 0x5000, 0x000003ff, 0 },
    [R_WUC] = { 0x5800, 0x0000000f, 0 },
    [R_WUFC] = { 0x5808, 0x000f80ff, 0 },
    [R_WUS] = { 0x5810, READ_ONLY, 0 },
    [R_MANC] = { 0x5820, 0xffffffff, 0 },
    [R_IPAV] = { 0x5838, 0x0001000f, 0 },
};

/* Where the 82542 had them (13.2.1). */
static const struct alias {
    uint16_t from, to, size;
} aliases[] = {
    { 0x0004, 0x0000, 4 },  { 0x0040, 0x5400, 0x80 },  { 0x0108, 0x2820, 4 },
    { 0x0110, 0x2800, 12 }, { 0x0120, 0x2810, 4 },     { 0x0128, 0x2818, 4 },
    { 0x0160, 0x2168, 4 },  { 0x0168, 0x2160, 4 },     { 0x0200, 0x5200, 0x200 },
    { 0x0420, 0x3800, 12 }, { 0x0430, 0x3810, 4 },     { 0x0438, 0x3818, 4 },
    { 0x0440, 0x3820, 4 },  { 0x0600, 0x5600, 0x200 },
};

/* Tables among the registers. */
enum { STAT = 0x4000, MTA = 0x5200, RA = 0x5400, VFTA = 0x5600, TABLES_END = 0x5800 };
enum { MAC_BYTES = 6, BAR_SIZE = 0x20000, IO_SIZE = 64, IO_ADDRESS = 0, IO_DATA = 4 };
enum { CTRL_EXT_EE_RST = 0x2000, STATUS_LU = 2 };
#define ADDRESS_VALID UINT32_C(0x80000000)

static const struct field context_fields[] = {
    SAVED(struct e1000_context, ip_end),     SAVED(struct e1000_context, data_end),
    SAVED(struct e1000_context, mss),        SAVED(struct e1000_context, ip_start),
    SAVED(struct e1000_context, ip_field),   SAVED(struct e1000_context, data_start),
    SAVED(struct e1000_context, data_field), SAVED(struct e1000_context, header_length),
    SAVED(struct e1000_context, command),    SAVED_END,
};
static const struct field microwire_fields[] = {
    SAVED(struct e1000_microwire, shift),
    SAVED_MAX(struct e1000_microwire, count, 15),
    SAVED_MAX(struct e1000_microwire, address, EEPROM_WORDS - 1),
    SAVED(struct e1000_microwire, reading),
    SAVED(struct e1000_microwire, out),
    SAVED_PAD(struct e1000_microwire, pad),
    SAVED_END,
};
static const struct field e1000_fields[] = {
    SAVED(struct e1000_regs, rx_deadline),
    SAVED(struct e1000_regs, rx_limit),
    SAVED(struct e1000_regs, tx_deadline),
    SAVED(struct e1000_regs, tx_limit),
    SAVED(struct e1000_regs, quiet_until),
    SAVED_ARRAY(struct e1000_regs, r),
    SAVED_ARRAY(struct e1000_regs, statistics),
    SAVED_ARRAY(struct e1000_regs, multicast),
    SAVED_ARRAY(struct e1000_regs, vlans),
    SAVED_ARRAY(struct e1000_regs, address),
    SAVED(struct e1000_regs, io_address),
    SAVED_ARRAY(struct e1000_regs, phy),
    SAVED_STRUCTS(struct e1000_regs, context, context_fields),
    SAVED_STRUCTS(struct e1000_regs, microwire, microwire_fields),
    SAVED(struct e1000_regs, asserted),
    SAVED(struct e1000_regs, link_lost),
    SAVED_PAD(struct e1000_regs, pad),
    SAVED_END,
};

/* --- interrupts (13.4.17 to 13.4.21) --------------------------------------------------------- */

void e1000_cause(struct e1000 *e, uint32_t causes)
{
    e->regs.r[R_ICR] |= causes;
}

static void settle(struct e1000 *e, uint64_t now)
{
    struct e1000_regs *regs = &e->regs;
    if (regs->rx_deadline <= now) {
        e1000_cause(e, INT_RXT0);
        regs->rx_deadline = regs->rx_limit = TIMER_NEVER;
    }
    if (regs->tx_deadline <= now) {
        e1000_cause(e, INT_TXDW);
        regs->tx_deadline = regs->tx_limit = TIMER_NEVER;
    }
}

/* ITR keeps assertions apart, in units of 256 ns (13.4.18). */
void e1000_interrupt(struct e1000 *e)
{
    struct e1000_regs *regs = &e->regs;
    uint64_t now = device_now(&e->dev), next = TIMER_NEVER;
    settle(e, now);
    bool wanted = regs->r[R_ICR] & regs->r[R_IMS];
    if (wanted && !regs->asserted && now < regs->quiet_until) {
        next = regs->quiet_until;
        wanted = false;
    } else if (wanted && !regs->asserted) {
        regs->quiet_until = regs->r[R_ITR] ? now + regs->r[R_ITR] * UINT64_C(256) : 0;
    }
    regs->asserted = wanted;
    pci_interrupt(&e->dev, wanted);
    uint32_t unseen = regs->r[R_IMS] & ~regs->r[R_ICR];
    if (unseen & INT_RXT0)
        next = MIN(next, regs->rx_deadline);
    if (unseen & INT_TXDW)
        next = MIN(next, regs->tx_deadline);
    if (next != e->armed)
        timer_set(&e->timer, next);
    e->armed = next;
}

static void e1000_timer(void *owner)
{
    struct e1000 *e = owner;
    e->armed = TIMER_NEVER;
    e1000_interrupt(e);
}

/* --- the loop -------------------------------------------------------------------------------- */

static bool cable_in(const struct e1000 *e)
{
    return e->net && !e->unplugged && !net_gone(e->net);
}

void e1000_watch(struct e1000 *e)
{
    bool receives = e1000_can_receive(e) && e1000_phy_link(e) && !e1000_loopback(e);
    uint32_t want = (receives && !e->waiting ? EPOLLIN : 0u) | (e->tx_blocked ? EPOLLOUT : 0u);
    if (!cable_in(e)) {
        loop_remove(&e->cable);
        e->watched = 0;
    } else if (!e->cable.loop && want) {
        e->watched = loop_add(e->dev.loop, &e->cable, want) ? want : 0;
    } else if (e->cable.loop && want != e->watched) {
        loop_change(&e->cable, want);
        e->watched = want;
    }
    if (receives && (e->waiting || net_pending(e->net)))
        loop_wake(&e->work);
}

/* Something is to be done in the rings, or may be now. */
static void kick(struct e1000 *e)
{
    if (!e->work.loop && (e->regs.r[R_RCTL] & RCTL_EN || e->regs.r[R_TCTL] & TCTL_EN))
        loop_add(e->dev.loop, &e->work, 0);
    e->rx_stuck = false;
    if (!e->tx_blocked && e1000_can_transmit(e))
        loop_wake(&e->work);
    e1000_watch(e);
}

static bool work_ready(struct loop_source *source, uint32_t events)
{
    struct e1000 *e = source->opaque;
    bool more = !e->tx_blocked && e1000_transmit(e);
    (void)events;
    if (e->waiting || (e->net && net_pending(e->net)))
        more |= e1000_receive(e);
    e1000_watch(e);
    e1000_interrupt(e);
    return more;
}

static bool cable_ready(struct loop_source *source, uint32_t events)
{
    struct e1000 *e = source->opaque;
    /* A hang-up is told again and again; not while it cannot be found out by receiving. */
    if (events & (EPOLLHUP | EPOLLERR) && !(e->watched & EPOLLIN)) {
        loop_remove(source);
        e->watched = 0;
    }
    bool more = e->tx_blocked && e1000_transmit(e);
    if (more)
        loop_wake(&e->work);
    more = e1000_receive(e);
    e1000_watch(e);
    e1000_interrupt(e);
    return more && source->loop;
}

/* --- link and resets ------------------------------------------------------------------------- */

static void load_address(struct e1000 *e)
{
    e->regs.address[0] = e->eeprom[0] | (uint32_t)e->eeprom[1] << 16;
    e->regs.address[1] = e->eeprom[2] | ADDRESS_VALID;
}

static void forget_packets(struct e1000 *e)
{
    e->waiting = 0;
    e->tx_blocked = false;
    e->rx_stuck = false;
    if (cable_in(e))
        net_discard(e->net);
}

/* All of the MAC but the tables that software fills (13.4.1, RST). */
static void reset_mac(struct e1000 *e)
{
    struct e1000_regs *regs = &e->regs;
    for (unsigned i = 0; i < REGISTERS; i++)
        regs->r[i] = registers[i].preset;
    memset(regs->statistics, 0, sizeof regs->statistics);
    memset(regs->address, 0, sizeof regs->address);
    memset(regs->context, 0, sizeof regs->context);
    regs->microwire[0] = (struct e1000_microwire){ .out = true };
    regs->rx_deadline = regs->rx_limit = regs->tx_deadline = regs->tx_limit = TIMER_NEVER;
    regs->quiet_until = 0;
    load_address(e);
    forget_packets(e);
    e1000_watch(e);
    e1000_interrupt(e);
}

static void write_control(struct e1000 *e, uint32_t value)
{
    uint32_t was = e->regs.r[R_CTRL];
    if (value & CTRL_RST) {
        reset_mac(e);
        return;
    }
    e->regs.r[R_CTRL] = value & registers[R_CTRL].mask;
    if (value & CTRL_PHY_RST)
        e1000_phy_reset(e);
    if (value & CTRL_PHY_RST || ((was ^ value) & CTRL_SLU && e1000_phy_link(e)))
        e1000_cause(e, INT_LSC);
    kick(e);
    e1000_interrupt(e);
}

static void e1000_set_cable(struct device *dev, bool in)
{
    struct e1000 *e = (struct e1000 *)dev;
    bool was = e1000_phy_link(e);
    e->unplugged = !in;
    forget_packets(e);
    if (was != e1000_phy_link(e)) {
        e->regs.link_lost |= was;
        e1000_cause(e, INT_LSC);
    }
    kick(e);
    e1000_interrupt(e);
}

/* --- registers ------------------------------------------------------------------------------- */

static unsigned find_register(uint32_t offset)
{
    unsigned low = 0, high = REGISTERS;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (registers[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < REGISTERS && registers[low].offset == offset ? low : REGISTERS;
}

static uint32_t resolve(uint32_t offset)
{
    for (const struct alias *a = aliases; a < aliases + G_N_ELEMENTS(aliases); a++)
        if (offset - a->from < a->size)
            return a->to + (offset - a->from);
    return offset;
}

/* The word of a table; NULL: no table is there. */
static uint32_t *table(struct e1000 *e, uint32_t offset)
{
    if (offset >= VFTA && offset < VFTA + 4 * MTA_WORDS)
        return &e->regs.vlans[(offset - VFTA) / 4];
    if (offset >= RA && offset < RA + 8 * ADDRESSES)
        return &e->regs.address[(offset - RA) / 4];
    if (offset >= MTA && offset < MTA + 4 * MTA_WORDS)
        return &e->regs.multicast[(offset - MTA) / 4];
    return NULL;
}

static uint32_t read_register(struct e1000 *e, uint32_t offset)
{
    enum { BUFFER_KIB = 64 };
    offset = resolve(offset);
    unsigned i = find_register(offset);
    uint32_t value = i < REGISTERS ? e->regs.r[i] : 0;
    const uint32_t *word = table(e, offset);
    if (word)
        return *word;
    if (offset >= STAT && offset < STAT + 4 * STATISTICS)
        return e1000_read_statistic(e, (offset - STAT) / 4);
    switch (i) {
    case R_STATUS:
        return e1000_phy_status(e) |
               (e1000_phy_link(e) && e->regs.r[R_CTRL] & CTRL_SLU ? STATUS_LU : 0u);
    case R_EECD:
        return e1000_eecd_read(e);
    case R_PBA: /* what receiving leaves is for transmission */
        return value | (value < BUFFER_KIB ? BUFFER_KIB - value : 0) << 16;
    case R_ICR:
        settle(e, device_now(&e->dev));
        value = e->regs.r[R_ICR];
        e->regs.r[R_ICR] = 0;
        e1000_interrupt(e);
        return value;
    }
    return value;
}

/* Those that do something at once. */
static void write_register(struct e1000 *e, unsigned i, uint32_t value)
{
    enum { FLUSH = 31 };
    uint32_t *r = e->regs.r, was = r[i];
    switch (i) {
    case R_CTRL:
        write_control(e, value);
        return;
    case R_EECD:
        e1000_eecd_write(e, value);
        return;
    case R_EERD:
        e1000_eerd_write(e, value);
        return;
    case R_MDIC:
        e1000_mdic_write(e, value);
        break;
    case R_CTRL_EXT:
        if (value & CTRL_EXT_EE_RST)
            load_address(e);
        break;
    case R_ICR:
        r[R_ICR] &= ~value;
        break;
    case R_ICS:
        e1000_cause(e, value & INT_ALL);
        break;
    case R_IMS:
        r[R_IMS] |= value & INT_ALL;
        break;
    case R_IMC:
        r[R_IMS] &= ~value;
        break;
    case R_RDTR:
    case R_TIDV: /* FPD: what is delayed comes now */
        if (value >> FLUSH && i == R_RDTR && e->regs.rx_deadline != TIMER_NEVER)
            e->regs.rx_deadline = 0;
        if (value >> FLUSH && i == R_TIDV && e->regs.tx_deadline != TIMER_NEVER)
            e->regs.tx_deadline = 0;
        break;
    case R_RCTL:
        if (value & RCTL_EN && !(was & RCTL_EN))
            forget_packets(e);
        break;
    }
    if (i != R_MDIC && i != R_ICR && i != R_IMS)
        r[i] = value & registers[i].mask;
}

static void e1000_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct e1000 *e = (struct e1000 *)dev;
    uint32_t at = resolve((uint32_t)offset), *word = table(e, at);
    unsigned i = find_register(at);
    (void)width;
    if (word) {
        *word = (uint32_t)value & (at >= RA && at < VFTA && at & 4 ? 0x8003ffff : UINT32_MAX);
    } else if (i < REGISTERS) {
        write_register(e, i, (uint32_t)value);
        if (i == R_RCTL || i == R_TCTL || (i >= R_RDBAL && i <= R_RDT) ||
            (i >= R_TDBAL && i <= R_TDT) || i == R_MDIC)
            kick(e);
        if (i == R_MDIC || (i >= R_ICR && i <= R_IMC) || i == R_RDTR || i == R_TIDV)
            e1000_interrupt(e);
    }
}

static uint64_t e1000_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)width;
    return read_register((struct e1000 *)dev, (uint32_t)offset);
}

/* 13.2.2: all registers through two ports. */
static uint64_t io_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct e1000 *e = (struct e1000 *)dev;
    if (offset == IO_ADDRESS)
        return e->regs.io_address;
    return offset == IO_DATA && e->regs.io_address < BAR_SIZE
               ? e1000_read(dev, e->regs.io_address & ~UINT32_C(3), width)
               : 0;
}

static void io_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct e1000 *e = (struct e1000 *)dev;
    if (offset == IO_ADDRESS)
        e->regs.io_address = (uint32_t)value;
    else if (offset == IO_DATA && e->regs.io_address < BAR_SIZE)
        e1000_write(dev, e->regs.io_address & ~UINT32_C(3), width, value);
}

/* The rings wait while the function may not reach memory. */
static void e1000_config_written(struct device *dev, unsigned offset, unsigned length)
{
    (void)length;
    if (offset <= PCI_COMMAND)
        kick((struct e1000 *)dev);
}

/* --- life ------------------------------------------------------------------------------------ */

static bool e1000_init(struct device *dev, GError **error)
{
    struct e1000 *e = (struct e1000 *)dev;
    uint8_t mac[MAC_BYTES];
    timer_init(&e->timer, dev->board->clock, &dev->lock, e1000_timer, e);
    e->armed = TIMER_NEVER;
    e->packet = g_try_malloc(FRAME_MAX);
    if (!e->packet)
        return hv_fail(error, HV_HOST, "%s: no memory for a packet", dev->name);
    if (!net_parse_mac(e->mac_option, mac) || mac[0] & 1)
        return hv_fail(error, HV_USAGE,
                       "%s: mac=%s: an address of one card is wanted, as 52:54:00:12:34:56",
                       dev->name, e->mac_option);
    e1000_eeprom_fill(e, mac);
    e->work =
        (struct loop_source){ .fd = -1, .lock = &dev->lock, .opaque = e, .ready = work_ready };
    e->cable = e->work;
    e->cable.ready = cable_ready;
    if (e->net) {
        e->cable.fd = net_fd(e->net);
        net_set_offloads(e->net, NET_CAN_VALID);
    }
    return pci_option_rom(dev, e->rom, error);
}

static void e1000_reset(struct device *dev)
{
    struct e1000 *e = (struct e1000 *)dev;
    memset(e->regs.multicast, 0, sizeof e->regs.multicast);
    memset(e->regs.vlans, 0, sizeof e->regs.vlans);
    e->regs.io_address = 0;
    e1000_phy_reset(e);
    reset_mac(e);
}

/* What no write could have set, no saved state sets. */
static void e1000_loaded(struct device *dev)
{
    struct e1000 *e = (struct e1000 *)dev;
    for (unsigned i = 0; i < REGISTERS; i++)
        e->regs.r[i] &= registers[i].mask;
    forget_packets(e);
    kick(e);
    e1000_interrupt(e);
}

static void e1000_finish(struct device *dev)
{
    struct e1000 *e = (struct e1000 *)dev;
    if (e->timer.clock)
        timer_finish(&e->timer);
    g_free(e->packet);
}

const struct device_class e1000_class = {
    .name = "e1000",
    .help = "gigabit Ethernet card (Intel 82540EM)",
    .size = sizeof(struct e1000),
    .regions =
        (const struct region[]){
            { REGION_BAR, 0, BAR_SIZE, W32, e1000_read, e1000_write },
            { REGION_BAR, 2, IO_SIZE, W32, io_read, io_write },
            { .kind = REGION_END },
        },
    .options =
        (const struct option[]){
            { "mac", "its Ethernet address", OPTION_STRING, offsetof(struct e1000, mac_option),
              "52:54:00:12:34:56" },
            { .name = NULL },
        },
    .plugs =
        (const struct plug[]){
            { "net", PLUG_NET, offsetof(struct e1000, net) },
            { "rom", PLUG_BLOB, offsetof(struct e1000, rom) },
            { .name = NULL },
        },
    .state = STATE(struct e1000, regs, 1, e1000_fields),
    .flags = CLASS_LOOP,
    .pci =
        &(const struct pci_class){
            .vendor = 0x8086,
            .device = 0x100e,
            .class_code = 0x020000,
            .revision = 0x02,
            .subsystem_vendor = 0x8086,
            .subsystem = 0x001e,
            .interrupt_pin = 1,
            .bars = { [0] = BAR_MEMORY32, [2] = BAR_PORTS },
            .msi_offset = 0xf0,
            .config_written = e1000_config_written,
        },
    .init = e1000_init,
    .reset = e1000_reset,
    .loaded = e1000_loaded,
    .finish = e1000_finish,
    .set_cable = e1000_set_cable,
};
