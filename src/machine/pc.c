/* The PC, top to bottom: a Q35-shaped machine that SeaBIOS, OVMF, Linux, BSD and Windows know.
 *
 * Wires: an ISA line ends in the pin of its number of the 8259 pair and of the I/O APIC (but IRQ 0
 * in the I/O APIC's pin 2, as every PC has it). A PIRQ ends in the LPC bridge, which routes it to
 * an ISA line, and in the I/O APIC's pins 16 to 23. */
#include "machine/pc.h"

#include "base/error.h"
#include "boot/boot.h"
#include "bus/fw-cfg.h"
#include "bus/pci.h"
#include "bus/vhost.h"
#include "machine/drives.h"
#include "machine/nic.h"
#include "machine/streams.h"
#include "net/net.h"

#include <string.h>

enum {
    NOT_PCI = -1,
    VGA = PCI_DEVFN(1, 0),
    NIC = PCI_DEVFN(2, 0),
    KEYBOARD = PCI_DEVFN(0x13, 0),
    TABLET = PCI_DEVFN(0x14, 0),
    BALLOON = PCI_DEVFN(0x15, 0),
    RNG = PCI_DEVFN(0x16, 0),
    CONSOLE = PCI_DEVFN(0x17, 0),
    VSOCK = PCI_DEVFN(0x18, 0),
    LPC = PCI_DEVFN(0x1f, 0),
    AHCI = PCI_DEVFN(0x1f, 2)
};
enum {
    IOAPIC_IRQ0 = 2,
    IOAPIC_PIRQ = 16,
    FIRST_FREE_SLOT = 3,
    LAST_FREE_SLOT = 0x12,
    LAST_BOARD_SLOT = 24,
    QUEUES_MAX = 16
};

/* One line of the parts list. `lines` names plugs and the ISA lines they go to; numbers from
 * ISA_LINES are PIRQs. */
struct part {
    const char *class, *name;
    uint64_t base;
    int devfn;
    struct {
        const char *plug;
        unsigned line;
    } lines[8];
};

static const struct part parts[] = {
    { "i8259", "pic", 0, NOT_PCI },
    { "ioapic", "ioapic", 0, NOT_PCI },
    { "q35-host", "host-bridge", 0, PCI_DEVFN(0, 0) },
    { "ich9-lpc", "lpc", 0, LPC, { { "sci", 9 } } },
    { "i8237", "dma", 0, NOT_PCI },
    { "i8254", "pit", 0, NOT_PCI, { { "irq", 0 } } },
    { "rtc", "rtc", 0, NOT_PCI, { { "irq", 8 } } },
    { "i8042", "i8042", 0, NOT_PCI, { { "kbd", 1 }, { "mouse", 12 } } },
    { "serial", "serial0", 0x3f8, NOT_PCI, { { "irq", 4 } } },
    { "serial", "serial1", 0x2f8, NOT_PCI, { { "irq", 3 } } },
    { "serial", "serial2", 0x3e8, NOT_PCI, { { "irq", 4 } } },
    { "serial", "serial3", 0x2e8, NOT_PCI, { { "irq", 3 } } },
    { "fw-cfg", "fw-cfg", 0, NOT_PCI },
    { "debug-port", "debug-port", 0, NOT_PCI },
    { "pvpanic", "pvpanic", 0, NOT_PCI },
    { "vga", "vga", 0, VGA },
    { "ahci", "ahci", 0, AHCI },
    { "virtio-keyboard", "keyboard", 0, KEYBOARD },
    { "virtio-tablet", "tablet", 0, TABLET },
    { "virtio-balloon", "balloon", 0, BALLOON },
    { "virtio-rng", "rng", 0, RNG },
    { "virtio-vsock", "vsock", 0, VSOCK },
};

/* Only with --hpet. Its fixed lines are the timer's and the clock's, the others the PIRQs'. */
static const struct part hpet_part = {
    "hpet",
    "hpet",
    0,
    NOT_PCI,
    { { "irq0", 0 },
      { "irq8", 8 },
      { "irq20", ISA_LINES + 4 },
      { "irq21", ISA_LINES + 5 },
      { "irq22", ISA_LINES + 6 },
      { "irq23", ISA_LINES + 7 } },
};

/* Only with a floppy drive; its DMA channel is added to it. */
static const struct part fdc_part = { "fdc", "fdc", 0, NOT_PCI, { { "irq", 6 } } };
enum { FDC_CHANNEL = 2 };

/* --- memory ---------------------------------------------------------------------------------- */

/* RAM but for the legacy hole, whose upper part the host bridge manages, and the ROM below 4 GiB.
 */
bool pc_show_memory(struct guest *guest, GBytes *firmware, GError **error)
{
    enum { ROM_MIN = 64 * 1024, ROM_MAX = 16 * 1024 * 1024 };
    gsize rom_size;
    void *rom = (void *)(uintptr_t)g_bytes_get_data(firmware, &rom_size);
    if (rom_size < ROM_MIN || rom_size > ROM_MAX || rom_size % 4096)
        return hv_fail(error, HV_FAILED,
                       "the firmware has %zu bytes: a ROM image has 64 KiB to 16 MiB, in whole "
                       "4 KiB pages",
                       rom_size);
    if (!guest_show_ram(guest) ||
        !guest_slot_set(guest, guest_slot_new(guest), GPA(4 * GIB - rom_size), rom_size, rom,
                        SLOT_READONLY))
        return hv_fail(error, HV_HOST, "KVM does not take the guest's memory");
    return true;
}

/* --- wires ---------------------------------------------------------------------------------- */

static struct irq *source_on(struct pc *pc, struct irq_wire *wire)
{
    struct irq *irq = g_new0(struct irq, 1);
    irq->wire = wire;
    g_ptr_array_add(pc->irqs, irq);
    return irq;
}

static struct irq *line(struct pc *pc, unsigned number)
{
    return source_on(pc, number < ISA_LINES ? &pc->isa[number] : &pc->pirq[number - ISA_LINES]);
}

/* Where INTA..INTD of a slot lead: slots up to 24 share PIRQE-H in turns, the chipset's own slots
 * have PIRQA-D. The DSDT's _PRT and SeaBIOS say the same. */
static struct irq *intx(struct pc *pc, unsigned devfn, unsigned pin)
{
    unsigned slot = devfn >> 3;
    unsigned pirq = slot <= LAST_BOARD_SLOT ? 4 + (slot + pin - 1) % 4 : pin - 1;
    return pin ? line(pc, ISA_LINES + pirq) : NULL;
}

/* The controllers' ends of all wires; the sources come with the parts. */
static void wire_controllers(struct pc *pc)
{
    for (unsigned i = 0; i < ISA_LINES; i++) {
        irq_wire_to(&pc->isa[i], device_irq_input(pc->pic, i));
        irq_wire_to(&pc->isa[i], device_irq_input(pc->ioapic, i ? i : IOAPIC_IRQ0));
    }
    for (unsigned i = 0; i < PIRQ_LINES; i++) {
        irq_wire_to(&pc->pirq[i], device_irq_input(pc->lpc, i));
        irq_wire_to(&pc->pirq[i], device_irq_input(pc->ioapic, IOAPIC_PIRQ + i));
    }
    for (unsigned i = 0; i < ISA_LINES; i++) {
        g_autofree char *plug = g_strdup_printf("irq%u", i);
        device_plug(pc->lpc, plug, line(pc, i));
    }
}

/* --- parts ---------------------------------------------------------------------------------- */

static struct device *add_part(struct pc *pc, const struct part *part)
{
    const struct device_class *class = device_class_find(part->class);
    struct device *dev = device_create(class, pc->board, part->name);
    dev->base = part->base;
    if (part->devfn != NOT_PCI)
        pci_place(dev, (unsigned)part->devfn,
                  intx(pc, (unsigned)part->devfn, class->pci->interrupt_pin));
    for (unsigned i = 0; i < G_N_ELEMENTS(part->lines) && part->lines[i].plug; i++)
        device_plug(dev, part->lines[i].plug, line(pc, part->lines[i].line));
    g_ptr_array_add(pc->devices, dev);
    return dev;
}

static struct device *part_named(struct pc *pc, const char *name)
{
    for (guint i = 0; i < pc->devices->len; i++) {
        struct device *dev = g_ptr_array_index(pc->devices, i);
        if (!strcmp(dev->name, name))
            return dev;
    }
    return NULL;
}

/* What the user set: OPTION=VALUE[,...] of the device's class. */
static bool set_options(struct device *dev, const char *options, GError **error)
{
    g_auto(GStrv) words = g_strsplit(options ? options : "", ",", -1);
    for (char **word = words; *word; word++) {
        char *equals = strchr(*word, '=');
        if (!equals)
            return hv_fail(error, HV_USAGE, "%s: \"%s\" is no option=value", dev->class->name,
                           *word);
        *equals = 0;
        if (!device_set(dev, *word, equals + 1, error))
            return false;
    }
    return true;
}

/* --device CLASS[,option=value]...: a class that the PC does not have by itself. */
static bool add_device(struct pc *pc, const char *text, GError **error)
{
    g_auto(GStrv) words = g_strsplit(text, ",", 2);
    const struct device_class *class = words[0] ? device_class_find(words[0]) : NULL;
    if (!class) {
        g_autoptr(GPtrArray) names = g_ptr_array_new();
        for (const struct device_class *const *c = device_classes; *c; c++)
            g_ptr_array_add(names, (void *)(uintptr_t)(*c)->name);
        g_ptr_array_add(names, NULL);
        const char *near = words[0] ? hv_nearest(words[0], (const char *const *)names->pdata) : 0;
        return hv_fail(error, HV_USAGE, "--device: there is no \"%s\"%s%s%s; hv devices lists them",
                       words[0] ? words[0] : "", near ? "; did you mean \"" : "", near ? near : "",
                       near ? "\"?" : "");
    }
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++)
        if (!strcmp(parts[i].class, class->name))
            return hv_fail(error, HV_USAGE, "--device: every machine has its %s already",
                           class->name);
    if (!strcmp(class->name, hpet_part.class))
        return hv_fail(error, HV_USAGE, "--device: the %s has interrupt lines of its own: --hpet",
                       class->name);
    if (!strcmp(class->name, fdc_part.class))
        return hv_fail(error, HV_USAGE, "--device: the %s comes with its drives: --floppy FILE",
                       class->name);
    if (class->pci && pc->slot > LAST_FREE_SLOT)
        return hv_fail(error, HV_USAGE, "--device: no PCI slot is free for %s", class->name);
    struct part part = { class->name, class->name, 0, NOT_PCI, { { NULL, 0 } } };
    if (class->pci)
        part.devfn = (int)PCI_DEVFN(pc->slot++, 0);
    return set_options(add_part(pc, &part), words[1], error);
}

/* --- backends ------------------------------------------------------------------------------- */

/* How a drive is put on each bus. CDs and the disks of the chipset's controller share that, the
 * floppy drives theirs; each other disk has a controller of its own, in a slot of its own. */
static const struct {
    const char *class, *plug, *path; /* the firmware's name of the drive (boot order) */
} buses[DRIVE_BUSES] = {
    [DRIVE_AHCI] = { "ahci", "disk%u", "/pci@i0cf8/*@1f,2/drive@%u/disk@0" },
    [DRIVE_VIRTIO] = { "virtio-blk", "disk", "/pci@i0cf8/*@%x/disk@0,0" },
    [DRIVE_NVME] = { "nvme", "disk0", "/pci@i0cf8/*@%x/namespace@1,0" },
    [DRIVE_FLOPPY] = { "fdc", "disk%u", "/pci@i0cf8/isa@1f/fdc@03f0/floppy@%u" },
};

/* A controller for one disk, with a queue for each vCPU. */
static bool add_controller(struct pc *pc, struct machine_drive *drive, unsigned number,
                           const struct config *config, GError **error)
{
    const char *class = buses[drive->bus].class;
    if (pc->slot > LAST_FREE_SLOT)
        return hv_fail(error, HV_USAGE, "--disk: no PCI slot is free for another disk");
    g_autofree char *name = g_strdup_printf("%s%u", class, number);
    g_autofree char *queues = g_strdup_printf("%u", (unsigned)MIN(config->cpus, QUEUES_MAX));
    struct part part = { class, name, 0, (int)PCI_DEVFN(pc->slot++, 0), { { NULL, 0 } } };
    drive->device = add_part(pc, &part);
    return device_set(drive->device, "queues", queues, error) &&
           set_options(drive->device, drive->options, error);
}

/* A floppy drive of the kind that the floppy wants, which stays when the floppy is changed. The
 * CMOS RAM tells firmware of it. */
static bool add_floppy(struct pc *pc, struct machine_drive *drive, GError **error)
{
    if (drive->index >= FLOPPY_DRIVES)
        return hv_fail(error, HV_USAGE, "--floppy: at most %d are possible", FLOPPY_DRIVES);
    const struct floppy_format *format = drive->disk ? floppy_format(drive->disk->size) : NULL;
    if (drive->disk && !format)
        return hv_fail(error, HV_USAGE, "--floppy %s: no floppy has this size", drive->disk->name);
    if (!pc->fdc) {
        pc->fdc = add_part(pc, &fdc_part);
        pc->fdc_dma = device_dma(part_named(pc, "dma"), FDC_CHANNEL);
        device_plug(pc->fdc, "dma", &pc->fdc_dma);
    }
    drive->device = pc->fdc;
    drive->floppy = format ? format->drive : FLOPPY_1440K;
    pc->floppies |= (unsigned)drive->floppy << (drive->index ? 0 : 4);
    g_autofree char *option = g_strdup_printf("type%u", drive->index);
    g_autofree char *type = g_strdup_printf("%d", drive->floppy);
    g_autofree char *both = g_strdup_printf("%u", pc->floppies);
    return device_set(pc->fdc, option, type, error) &&
           device_set(part_named(pc, "rtc"), "floppies", both, error);
}

static bool add_drives(struct pc *pc, struct drives *drives, const struct config *config,
                       GError **error)
{
    unsigned cds = 0, number[DRIVE_BUSES] = { 0 };
    for (unsigned i = 0; i < drives->count; i++) {
        struct machine_drive *drive = &drives->drive[i];
        unsigned nth = number[drive->bus]++;
        drive->device = pc->ahci;
        drive->index = nth;
        if (drive->bus == DRIVE_FLOPPY) {
            if (!add_floppy(pc, drive, error))
                return false;
        } else if (drive->bus != DRIVE_AHCI) {
            drive->index = 0;
            if (!add_controller(pc, drive, nth, config, error))
                return false;
        } else if (nth >= AHCI_PORTS) {
            return hv_fail(error, HV_USAGE, "at most %d disks and CDs are possible on AHCI",
                           AHCI_PORTS);
        } else if (drive->is_cd) {
            cds |= 1u << nth;
        }
        if (!drive->disk)
            continue;
        g_autofree char *plug = g_strdup_printf(buses[drive->bus].plug, drive->index);
        disk_attach(drive->disk, &drive->device->lock, drive->device->loop);
        device_plug(drive->device, plug, drive->disk);
    }
    g_autofree char *mask = g_strdup_printf("%u", cds);
    return device_set(pc->ahci, "cd", mask, error);
}

/* The firmware's names of the drives, in the order in which it is to try them: those of the kinds
 * that `order` (disk,cd,floppy,net) names, one after the other. */
static GPtrArray *boot_order(const char *order, const struct drives *drives)
{
    GPtrArray *paths = g_ptr_array_new_with_free_func(g_free);
    g_auto(GStrv) kinds = g_strsplit(order, ",", -1);
    for (char **kind = kinds; *kind; kind++) {
        if (!strcmp(*kind, "net"))
            g_ptr_array_add(paths, g_strdup_printf("/pci@i0cf8/*@%x", NIC >> 3));
        for (unsigned i = 0; i < drives->count; i++) {
            const struct machine_drive *drive = &drives->drive[i];
            const struct pci_function *pci = drive->device->pci;
            bool shared = drive->bus == DRIVE_AHCI || drive->bus == DRIVE_FLOPPY;
            unsigned at = shared ? drive->index : pci->devfn >> 3;
            const char *is = drive->bus == DRIVE_FLOPPY ? "floppy" : drive->is_cd ? "cd" : "disk";
            if (!strcmp(*kind, is))
                g_ptr_array_add(paths, g_strdup_printf(buses[drive->bus].path, at));
        }
    }
    g_ptr_array_add(paths, NULL);
    return paths;
}

/* A machine keeps its UUID as long as it keeps its name. */
static void name_uuid(const char *name, uint8_t uuid[16])
{
    gsize length = 32;
    uint8_t digest[32];
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    g_checksum_update(sum, (const guchar *)name, -1);
    g_checksum_get_digest(sum, digest, &length);
    memcpy(uuid, digest, 16);
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80); /* RFC 9562: version 8, our own */
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

/* The network card, and its cable. Its option ROM is there when the machine may boot from it. */
static bool add_nic(struct pc *pc, const struct config *config, const struct machine_files *files,
                    GError **error)
{
    g_auto(nic_settings) nic = { .kind = NIC_NONE };
    if (files->net < 0 || !config->net)
        return true;
    if (!nic_parse(config->net, &nic, error))
        return false;
    bool virtio = !nic.model || !strcmp(nic.model, "virtio");
    struct part part = { virtio ? "virtio-net" : "e1000", "nic", 0, NIC, { { NULL, 0 } } };
    struct device *dev = add_part(pc, &part);
    struct net *net = pc->net = net_new(files->net, files->net_tap, "nic");
    const uint8_t *m = nic.mac;
    g_autofree char *mac =
        g_strdup_printf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
    if (files->capture >= 0)
        net_capture(net, files->capture);
    for (unsigned i = 0; virtio && i < files->vhosts; i++)
        net_add_vhost(net, files->net_queue[i], files->vhost[i], &vhost_system_io);
    if (virtio && files->vhosts > 1) {
        g_autofree char *pairs = g_strdup_printf("%u", files->vhosts);
        device_set(dev, "queues", pairs, NULL);
    }
    device_plug(dev, "net", net);
    device_plug(dev, "rom", files->nic_rom);
    return device_set(dev, "mac", mac, error) && set_options(dev, nic.options, error);
}

static bool add_vsock(struct pc *pc, const struct config *config, const struct machine_files *files,
                      GError **error)
{
    struct device *vsock = part_named(pc, "vsock");
    g_autofree char *cid = g_strdup_printf("%" G_GUINT64_FORMAT, config->cid);
    device_plug(vsock, "socket", files->vsock);
    return !config->cid || device_set(vsock, "cid", cid, error);
}

/* What the user's terminal is to the guest: COM1, or a virtio console in its place. */
static struct device *add_console(struct pc *pc, const struct config *config)
{
    static const struct part console = { "virtio-console", "console", 0, CONSOLE };
    bool virtio = !g_strcmp0(config->console, "virtio");
    return virtio ? add_part(pc, &console) : part_named(pc, "serial0");
}

static bool describe(struct pc *pc, const struct config *config, const struct machine_files *files,
                     GError **error)
{
    uint64_t top = HIGH_RAM_BASE + guest_high_ram(pc->board->guest);
    pc->pci64_base = (top + GIB - 1) / GIB * GIB;
    g_autoptr(GPtrArray) order = boot_order(config->boot, files->drives);
    struct boot_config boot = {
        .guest = pc->board->guest,
        .cpus = (unsigned)config->cpus,
        .serials = SERIAL_PORTS,
        .hpet = config->hpet,
        .pvpanic = true,
        .floppy = pc->fdc,
        .ecam = BOOT_ECAM_SEABIOS,
        .pci64_base = pc->pci64_base,
        .pci64_size = PCI64_WINDOW,
        .boot_order = (const char *const *)order->pdata,
        .name = config->name,
        .version = HV_VERSION,
    };
    name_uuid(config->name, boot.uuid);
    pc->fw_cfg = fw_cfg_new();
    return boot_tables(pc->fw_cfg, &boot, error);
}

bool pc_build(struct pc *pc, struct board *board, const struct config *config,
              const struct machine_files *files, GError **error)
{
    pc->board = board;
    pc->slot = FIRST_FREE_SLOT;
    pc->devices = g_ptr_array_new();
    pc->irqs = g_ptr_array_new_with_free_func(g_free);
    bus_add_reader(board->bus, &pc->reader);
    for (unsigned i = 0; i < ISA_LINES; i++)
        irq_wire_init(&pc->isa[i]);
    for (unsigned i = 0; i < PIRQ_LINES; i++)
        irq_wire_init(&pc->pirq[i]);

    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++)
        add_part(pc, &parts[i]);
    if (config->hpet)
        add_part(pc, &hpet_part);
    pc->pic = part_named(pc, "pic");
    pc->ioapic = part_named(pc, "ioapic");
    pc->lpc = part_named(pc, "lpc");
    pc->vga = part_named(pc, "vga");
    pc->ahci = part_named(pc, "ahci");
    wire_controllers(pc);

    for (guint i = 0; i < config->devices->len; i++)
        if (!add_device(pc, g_ptr_array_index(config->devices, i), error))
            return false;

    if (!add_nic(pc, config, files, error) || !add_vsock(pc, config, files, error) ||
        !add_drives(pc, files->drives, config, error) || !describe(pc, config, files, error))
        return false;
    device_plug(part_named(pc, "fw-cfg"), "items", pc->fw_cfg);
    if (!files->kernel) /* else the BIOS area is RAM, and written before the start */
        device_plug(part_named(pc, "host-bridge"), "rom", files->firmware);
    device_plug(pc->vga, "rom", files->vga_rom);
    struct device *console = add_console(pc, config);
    if (files->serial)
        device_plug(console, "line", host_stream_plug(files->serial));
    if (files->serial2)
        device_plug(part_named(pc, "serial1"), "line", host_stream_plug(files->serial2));
    if (files->firmware_log)
        device_plug(part_named(pc, "debug-port"), "log", host_stream_plug(files->firmware_log));

    bool ok = true;
    bus_hold(board->bus);
    for (guint i = 0; ok && i < pc->devices->len; i++)
        ok = device_start(g_ptr_array_index(pc->devices, i), error);
    bus_release(board->bus);
    if (!ok)
        return false;
    return !files->serial || host_stream_attach(files->serial, console, error);
}

void pc_finish(struct pc *pc)
{
    for (guint i = pc->devices ? pc->devices->len : 0; i-- > 0;)
        device_destroy(g_ptr_array_index(pc->devices, i));
    net_free(pc->net);
    if (pc->devices)
        g_ptr_array_unref(pc->devices);
    if (pc->irqs)
        g_ptr_array_unref(pc->irqs);
    fw_cfg_free(pc->fw_cfg);
}
