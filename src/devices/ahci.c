/* ICH9 AHCI controller (8086:2922): AHCI 1.3.1, Serial ATA Revision 3.x, ICH9 datasheet section 15.
 *
 * Six ports, each with a hard disk, a CD drive or nothing. This file is the class and the registers
 * of the HBA and its ports; ahci-command.c carries out commands; ata.c and atapi.c are the drives.
 * Register accesses run on vCPU threads, completions on the disks' threads, all under the device's
 * lock. Nothing waits: what must wait for the disk (PxCMD.CR, GHC.HR, BSY after a reset) is seen
 * by the guest to change later. */
#include "ahci.h"

#include "atapi.h"

#include <string.h>

/* Generic registers (3.1). */
enum { HBA_CAP = 0x00, HBA_GHC = 0x04, HBA_IS = 0x08, HBA_PI = 0x0c, HBA_VS = 0x10 };
enum { GHC_RESET = 1, GHC_INTERRUPTS = 2, VERSION_1_3_1 = 0x00010301 };
#define GHC_AHCI UINT32_C(0x80000000)
/* CAP: 64-bit addresses, NCQ, CLO, 3 Gbit/s, AHCI only, PIO with many blocks, 32 slots. */
#define CAPABILITIES (UINT32_C(0xc1240000) | 1 << 15 | (AHCI_SLOTS - 1) << 8 | (AHCI_PORTS - 1))

/* Port registers (3.3). */
enum { PORT_BASE = 0x100, PORT_STRIDE = 0x80 };
enum {
    PX_CLB = 0x00,
    PX_CLBU = 0x04,
    PX_FB = 0x08,
    PX_FBU = 0x0c,
    PX_IS = 0x10,
    PX_IE = 0x14,
    PX_CMD = 0x18,
    PX_TFD = 0x20,
    PX_SIG = 0x24,
    PX_SSTS = 0x28,
    PX_SCTL = 0x2c,
    PX_SERR = 0x30,
    PX_SACT = 0x34,
    PX_CI = 0x38,
};
#define PX_IS_CLEARABLE UINT32_C(0xfd8000af)
#define PX_IE_MASK      UINT32_C(0xfdc000ff)
enum { CMD_WRITABLE = CMD_ST | CMD_FRE | CMD_ATAPI | CMD_DLAE, SCTL_MASK = 0xfff };
enum { DET_NONE = 0, DET_RESET = 1, DET_OFFLINE = 4, DET_MASK = 0xf };
enum { SSTS_UP = 0x103, SSTS_OFFLINE = 4, SPEED_SHIFT = 4, GENERATION_1 = 1, GENERATION_2 = 2 };
enum { TFD_NO_DRIVE = 0x7f };
#define SERR_PHY_READY UINT32_C(0x00010000) /* DIAG.N */
#define SERR_EXCHANGED UINT32_C(0x04000000) /* DIAG.X */
#define NO_SIGNATURE   UINT32_MAX

static const struct field port_fields[] = {
    SAVED(struct port_regs, clb),       SAVED(struct port_regs, fb),
    SAVED(struct port_regs, is),        SAVED(struct port_regs, ie),
    SAVED(struct port_regs, cmd),       SAVED(struct port_regs, tfd),
    SAVED(struct port_regs, sig),       SAVED(struct port_regs, sctl),
    SAVED(struct port_regs, serr),      SAVED(struct port_regs, sact),
    SAVED(struct port_regs, ci),        SAVED_MAX(struct port_regs, slot, AHCI_SLOTS - 1),
    SAVED(struct port_regs, running),   SAVED(struct port_regs, halted),
    SAVED(struct port_regs, signature), SAVED_END,
};
static const struct field ahci_fields[] = {
    SAVED_STRUCTS(struct ahci_regs, ports, port_fields),
    SAVED_STRUCTS(struct ahci_regs, drives, drive_fields),
    SAVED(struct ahci_regs, ghc),
    SAVED(struct ahci_regs, is),
    SAVED_END,
};

/* --- interrupts (5.6.2, 10.6.2) -------------------------------------------------------------- */

static uint32_t port_status(const struct port_regs *regs)
{
    return regs->is | (regs->serr & SERR_EXCHANGED ? PORT_CONNECT : 0) |
           (regs->serr & SERR_PHY_READY ? PORT_PHY_READY : 0);
}

/* Drives the interrupt after bits of IS were cleared, or events came. With MSI, each new bit sends
 * a message, and so does clearing some bits while others stay (10.6.2.1): software that handled
 * only what it saw must be called again. */
static void update_interrupt(struct ahci *ahci, uint32_t cleared)
{
    struct device *dev = &ahci->dev;
    uint32_t was = ahci->regs.is, kept = was & ~cleared, now = kept;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (port_status(&ahci->regs.ports[i]) & ahci->regs.ports[i].ie)
            now |= UINT32_C(1) << i;
    ahci->regs.is = now;
    bool level = now && ahci->regs.ghc & GHC_INTERRUPTS;
    if (level && (now & ~kept || kept != was) && pci_msi_enabled(dev))
        pci_interrupt(dev, false);
    pci_interrupt(dev, level);
}

void port_interrupt(struct port *port, uint32_t events)
{
    port->regs->is |= events;
    update_interrupt(port->ahci, 0);
}

/* --- the link and resets --------------------------------------------------------------------- */

static unsigned detection(const struct port *port)
{
    return port->regs->sctl & DET_MASK;
}

static bool link_up(const struct port *port)
{
    return port->present && detection(port) != DET_RESET && detection(port) != DET_OFFLINE;
}

static uint32_t sata_status(const struct port *port)
{
    bool slow = (port->regs->sctl >> SPEED_SHIFT & 0xf) == GENERATION_1;
    if (detection(port) == DET_OFFLINE)
        return SSTS_OFFLINE;
    if (!link_up(port))
        return 0;
    return SSTS_UP | (uint32_t)(slow ? GENERATION_1 : GENERATION_2) << SPEED_SHIFT;
}

/* PxCMD.CR follows PxCMD.ST when the drive is ready (5.3.2.3). */
static void update_running(struct port *port)
{
    struct port_regs *regs = port->regs;
    if (!(regs->cmd & CMD_ST))
        regs->running = regs->running && port->draining;
    else if (link_up(port) && !port->draining && !(regs->tfd & (ATA_BUSY | ATA_REQUEST)))
        regs->running = true;
}

static void post_signature(struct port *port)
{
    struct taskfile t;
    if (!port->regs->signature || !(port->regs->cmd & CMD_FRE))
        return;
    port->regs->signature = false;
    ata_signature(&port->drive, &t);
    port_post_registers(port, &t, false);
}

/* The drive is ready after a reset. PxSIG and PxTFD show it at once; its FIS waits for memory. */
static void finish_reset(struct port *port)
{
    struct taskfile t;
    port->resetting = false;
    if (!link_up(port))
        return;
    ata_signature(&port->drive, &t);
    port->regs->sig = (uint32_t)t.lba << 8 | t.count;
    port->regs->tfd = (uint32_t)t.error << 8 | t.status;
    port->regs->signature = true;
    post_signature(port);
}

static void port_defaults(struct port *port)
{
    struct port_regs *regs = port->regs;
    *regs = (struct port_regs){
        .clb = regs->clb, .fb = regs->fb, .tfd = TFD_NO_DRIVE, .sig = NO_SIGNATURE
    };
    port->last = AHCI_SLOTS - 1;
}

/* The link comes up: COMINIT, and the drive's reset (10.4.2). */
static void connect_link(struct port *port)
{
    if (!port->present)
        return;
    port->regs->serr |= SERR_EXCHANGED | SERR_PHY_READY;
    port->regs->tfd = ATA_BUSY;
    ata_reset(&port->drive);
    port->resetting = true;
    port_cancel(port);
}

static void disconnect_link(struct port *port)
{
    port->regs->tfd = TFD_NO_DRIVE;
    port->regs->sig = NO_SIGNATURE;
    port->regs->signature = false;
    /* What PxCI asks for now is not for the drive as it is after its reset. */
    port->regs->halted = port->regs->cmd & CMD_ST;
    port->resetting = false;
    port_cancel(port);
}

static bool hba_draining(const struct ahci *ahci)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (ahci->ports[i].pending)
            return true;
    return false;
}

/* 10.4.3: all but PxCLB and PxFB. */
static void finish_hba_reset(struct ahci *ahci)
{
    if (!(ahci->regs.ghc & GHC_RESET) || hba_draining(ahci))
        return;
    ahci->regs.ghc = 0;
    ahci->regs.is = 0;
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        port_defaults(&ahci->ports[i]);
        connect_link(&ahci->ports[i]);
    }
    update_interrupt(ahci, 0);
}

static void start_hba_reset(struct ahci *ahci)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        ahci->ports[i].resetting = false;
        port_cancel(&ahci->ports[i]);
    }
    ahci->regs.ghc = GHC_RESET;
    update_interrupt(ahci, 0);
    finish_hba_reset(ahci);
}

void port_drained(struct port *port)
{
    struct port_regs *regs = port->regs;
    if (port->resetting)
        finish_reset(port);
    else if (regs->tfd & ATA_BUSY && link_up(port) && !port->drive.regs->soft_reset)
        regs->tfd = ATA_READY; /* what was given up ends in the drive, unseen */
    update_running(port);
    finish_hba_reset(port->ahci);
}

/* --- port registers -------------------------------------------------------------------------- */

static uint32_t port_read(const struct port *port, unsigned offset)
{
    const struct port_regs *regs = port->regs;
    switch (offset) {
    case PX_CLB:
        return (uint32_t)regs->clb;
    case PX_CLBU:
        return (uint32_t)(regs->clb >> 32);
    case PX_FB:
        return (uint32_t)regs->fb;
    case PX_FBU:
        return (uint32_t)(regs->fb >> 32);
    case PX_IS:
        return port_status(regs);
    case PX_IE:
        return regs->ie;
    case PX_CMD:
        return regs->cmd | CMD_SUD | CMD_POD | (uint32_t)regs->slot << 8 |
               (regs->running ? CMD_CR : 0) | (regs->cmd & CMD_FRE || regs->running ? CMD_FR : 0);
    case PX_TFD:
        return regs->tfd;
    case PX_SIG:
        return regs->sig;
    case PX_SSTS:
        return sata_status(port);
    case PX_SCTL:
        return regs->sctl;
    case PX_SERR:
        return regs->serr;
    case PX_SACT:
        return regs->sact;
    case PX_CI:
        return regs->ci;
    }
    return 0;
}

static void write_command(struct port *port, uint32_t value)
{
    struct port_regs *regs = port->regs;
    bool stops = regs->cmd & CMD_ST && !(value & CMD_ST);
    regs->cmd = value & CMD_WRITABLE;
    if (stops) {
        regs->ci = regs->sact = 0;
        regs->slot = 0;
        port->last = AHCI_SLOTS - 1;
        regs->halted = false;
        port_cancel(port);
    }
    if (value & CMD_CLO)
        regs->tfd &= ~(uint32_t)(ATA_BUSY | ATA_REQUEST);
    post_signature(port);
    update_running(port);
    port_run(port);
}

static void write_control(struct port *port, uint32_t value)
{
    bool was_up = link_up(port);
    port->regs->sctl = value & SCTL_MASK;
    if (was_up && !link_up(port))
        disconnect_link(port);
    else if (!was_up && link_up(port))
        connect_link(port);
    update_interrupt(port->ahci, 0);
}

static void set_half(uint64_t *at, bool high, uint32_t value)
{
    *at = high ? (*at & UINT32_MAX) | (uint64_t)value << 32 : (*at & ~(uint64_t)UINT32_MAX) | value;
}

static void port_write(struct port *port, unsigned offset, uint32_t value)
{
    enum { LIST_ALIGN = 1024, FIS_ALIGN = 256 };
    struct port_regs *regs = port->regs;
    switch (offset) {
    case PX_CLB:
    case PX_CLBU:
        set_half(&regs->clb, offset == PX_CLBU, value);
        regs->clb &= ~(uint64_t)(LIST_ALIGN - 1);
        break;
    case PX_FB:
    case PX_FBU:
        set_half(&regs->fb, offset == PX_FBU, value);
        regs->fb &= ~(uint64_t)(FIS_ALIGN - 1);
        break;
    case PX_IS:
        regs->is &= ~(value & PX_IS_CLEARABLE);
        break;
    case PX_IE:
        regs->ie = value & PX_IE_MASK;
        update_interrupt(port->ahci, 0);
        break;
    case PX_CMD:
        write_command(port, value);
        break;
    case PX_SCTL:
        write_control(port, value);
        break;
    case PX_SERR:
        regs->serr &= ~value;
        break;
    case PX_SACT:
        if (regs->cmd & CMD_ST)
            regs->sact |= value;
        break;
    case PX_CI:
        if (regs->cmd & CMD_ST)
            regs->ci |= value;
        port_run(port);
        break;
    }
}

/* --- generic registers ----------------------------------------------------------------------- */

static uint64_t ahci_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct ahci *ahci = (struct ahci *)dev;
    (void)width;
    if (offset >= PORT_BASE && offset < PORT_BASE + AHCI_PORTS * PORT_STRIDE)
        return port_read(&ahci->ports[(offset - PORT_BASE) / PORT_STRIDE], offset % PORT_STRIDE);
    switch (offset) {
    case HBA_CAP:
        return CAPABILITIES;
    case HBA_GHC:
        return ahci->regs.ghc | GHC_AHCI;
    case HBA_IS:
        return ahci->regs.is;
    case HBA_PI:
        return (1 << AHCI_PORTS) - 1;
    case HBA_VS:
        return VERSION_1_3_1;
    }
    return 0;
}

static void ahci_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct ahci *ahci = (struct ahci *)dev;
    uint32_t bits = (uint32_t)value;
    (void)width;
    if (ahci->regs.ghc & GHC_RESET)
        return; /* busy with the reset */
    if (offset >= PORT_BASE && offset < PORT_BASE + AHCI_PORTS * PORT_STRIDE) {
        port_write(&ahci->ports[(offset - PORT_BASE) / PORT_STRIDE], offset % PORT_STRIDE, bits);
    } else if (offset == HBA_IS) {
        update_interrupt(ahci, bits);
    } else if (offset == HBA_GHC && bits & GHC_RESET) {
        start_hba_reset(ahci);
    } else if (offset == HBA_GHC) {
        ahci->regs.ghc = bits & GHC_INTERRUPTS;
        update_interrupt(ahci, 0);
    }
}

/* Commands wait while the function may not reach memory. */
static void ahci_config_written(struct device *dev, unsigned offset, unsigned length)
{
    struct ahci *ahci = (struct ahci *)dev;
    (void)length;
    for (unsigned i = 0; offset <= PCI_COMMAND && i < AHCI_PORTS; i++)
        port_run(&ahci->ports[i]);
}

/* --- life ------------------------------------------------------------------------------------ */

/* ICH9 15.1.29: MAP tells the mode. */
static void put_mode(struct device *dev)
{
    enum { MAP = 0x90, MODE_AHCI = 0x40 };
    pci_put(dev, MAP, 1, MODE_AHCI);
}

static bool ahci_init(struct device *dev, GError **error)
{
    struct ahci *ahci = (struct ahci *)dev;
    (void)error;
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct port *port = &ahci->ports[i];
        port->ahci = ahci;
        port->number = i;
        port->regs = &ahci->regs.ports[i];
        port->drive.regs = &ahci->regs.drives[i];
        port->drive.disk = ahci->disks[i];
        port->drive.packet = ahci->cd >> i & 1;
        port->present = port->drive.packet || port->drive.disk;
        g_snprintf(port->drive.serial, sizeof port->drive.serial, "%.18s%u",
                   ahci->serial ? ahci->serial : "", i);
        if (!port->present)
            continue;
        /* Touched as they are used: an idle port has no pages of them. */
        port->commands = g_new0(struct command, AHCI_SLOTS);
    }
    return true;
}

static void ahci_reset(struct device *dev)
{
    struct ahci *ahci = (struct ahci *)dev;
    ahci->regs.ghc = ahci->regs.is = 0;
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct port *port = &ahci->ports[i];
        port->regs->clb = port->regs->fb = 0;
        port_defaults(port);
        memset(port->drive.regs, 0, sizeof *port->drive.regs);
        if (port->present)
            ata_power_on(&port->drive);
        connect_link(port);
    }
    put_mode(dev);
}

/* What no write could have set, no saved state sets. */
static void ahci_loaded(struct device *dev)
{
    struct ahci *ahci = (struct ahci *)dev;
    ahci->regs.ghc &= GHC_INTERRUPTS;
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct port_regs *regs = &ahci->regs.ports[i];
        regs->clb &= ~UINT64_C(1023);
        regs->fb &= ~UINT64_C(255);
        regs->is &= PX_IS_CLEARABLE;
        regs->ie &= PX_IE_MASK;
        regs->cmd &= CMD_WRITABLE;
        regs->sctl &= SCTL_MASK;
        regs->running = regs->running && regs->cmd & CMD_ST;
        regs->signature = regs->signature && ahci->ports[i].present;
    }
    put_mode(dev);
    update_interrupt(ahci, 0);
}

static void ahci_finish(struct device *dev)
{
    struct ahci *ahci = (struct ahci *)dev;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        g_free(ahci->ports[i].commands);
}

/* The machine drains and frees the old medium afterwards. */
static void ahci_change_medium(struct device *dev, unsigned index, struct disk *disk)
{
    struct ahci *ahci = (struct ahci *)dev;
    if (index < AHCI_PORTS && ahci->ports[index].drive.packet)
        atapi_change_medium(&ahci->ports[index].drive, disk);
}

const struct device_class ahci_class = {
    .name = "ahci",
    .help = "SATA controller with six ports for disks and CD drives (Intel ICH9 AHCI)",
    .size = sizeof(struct ahci),
    .regions =
        (const struct region[]){
            { REGION_BAR, 5, 4096, W32, ahci_read, ahci_write },
            { .kind = REGION_END },
        },
    .options =
        (const struct option[]){
            { "cd", "ports with a CD drive, as a bit mask", OPTION_UINT, offsetof(struct ahci, cd),
              "2", 0, (1 << AHCI_PORTS) - 1 },
            { "serial", "serial number of the drives, before the number of the port", OPTION_STRING,
              offsetof(struct ahci, serial), "HV-" },
            { .name = NULL },
        },
    .plugs =
        (const struct plug[]){
            { "disk0", PLUG_DISK, offsetof(struct ahci, disks[0]) },
            { "disk1", PLUG_DISK, offsetof(struct ahci, disks[1]) },
            { "disk2", PLUG_DISK, offsetof(struct ahci, disks[2]) },
            { "disk3", PLUG_DISK, offsetof(struct ahci, disks[3]) },
            { "disk4", PLUG_DISK, offsetof(struct ahci, disks[4]) },
            { "disk5", PLUG_DISK, offsetof(struct ahci, disks[5]) },
            { .name = NULL },
        },
    .state = STATE(struct ahci, regs, 1, ahci_fields),
    .pci =
        &(const struct pci_class){
            .vendor = 0x8086,
            .device = 0x2922,
            .class_code = 0x010601,
            .revision = 0x02,
            .subsystem_vendor = 0x8086,
            .subsystem = 0x2922,
            .interrupt_pin = 1,
            .bars = { [5] = BAR_MEMORY32 },
            .msi_offset = 0x80,
            .multifunction = true,
            .writable = (const struct pci_mask[]){ { 0x92, 0x3f }, { 0, 0 } }, /* PCS */
            .config_written = ahci_config_written,
        },
    .init = ahci_init,
    .reset = ahci_reset,
    .loaded = ahci_loaded,
    .finish = ahci_finish,
    .change_medium = ahci_change_medium,
};
