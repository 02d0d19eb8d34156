/* The ICH9's LPC bridge: PCI interrupt routing, ACPI power management, reset control, port 92, APM.
 *
 * Manual: Intel ICH9 datasheet (316972), chapter 13 "LPC Interface Bridge Registers (D31:F0)";
 * 10.1 for the chipset configuration registers behind RCBA; 13.7 for ports 92h, B2h, B3h and CF9h.
 * The power management registers are in ich9-pm.c. An interrupt controller in the machine's eyes:
 * its pins are PIRQA# to PIRQH#, its outputs the ISA lines.
 *
 * It starts after q35-host, whose port 0xCF8 its reset port covers. No SMM: a write to the APM
 * ports is stored and no more. A soft reset (INIT) is a reset of the machine, as firmware does not
 * tell the two apart. GPIO has registers in configuration space, but no ports. */
#include "bus/pci.h"
#include "devices/ich9-pm.h"

enum { PORT_92 = 0x92, PORT_APM = 0xb2, PORT_RESET = 0xcf9 };
enum { PIRQS = 8, ISA_LINES = 16 };
enum { RCBA_SIZE = 0x4000 };

/* Configuration registers (section 13.1). */
enum {
    PMBASE = 0x40,
    ACPI_CNTL = 0x44,
    GPIOBASE = 0x48,
    PIRQA_ROUT = 0x60,
    SIRQ_CNTL = 0x64,
    PIRQE_ROUT = 0x68,
    GEN_PMCON_1 = 0xa0,
    GPI_ROUT = 0xb8,
    FWH_SEL1 = 0xd0,
    FWH_DEC_EN = 0xd8,
    RCBA = 0xf0,
};
enum { PMBASE_MASK = 0xff80, ACPI_EN = 0x80, SCI_SELECT = 7, PIRQ_OFF = 0x80, PIRQ_LINE = 0x0f };
enum { PIRQ_LINES = 0xdef8 }; /* 0, 1, 2, 8 and 13 are reserved (section 13.1.17) */
#define RCBA_MASK UINT32_C(0xffffc000)

enum { INIT_NOW = 1, ALT_A20 = 2 };              /* port 92h */
enum { SYS_RST = 2, RST_CPU = 4, FULL_RST = 8 }; /* port CF9h */
enum { RCBA_STORED = 14 };

/* What stands behind RCBA (section 10.1), by dword; all else reads as zero. The interrupt routes
 * DxxIR are as the board is wired: pin INTA# to PIRQA# and so on. */
static const struct {
    uint16_t offset;
    uint32_t writable, preset;
} rcba_table[RCBA_STORED] = {
    { 0x3100, 0, 0x03243200 },          /* D31IP */
    { 0x3108, 0, 0x10004321 },          /* D29IP */
    { 0x3118, 0, 0x30000321 },          /* D26IP */
    { 0x3140, 0, 0x00003210 },          /* D31IR, D30IR */
    { 0x3144, 0, 0x32103210 },          /* D29IR, D28IR */
    { 0x3148, 0, 0x00003210 },          /* D27IR */
    { 0x314c, 0, 0x00003210 },          /* D26IR */
    { 0x3150, 0, 0x00003210 },          /* D25IR */
    { 0x31fc, 0x03000000, 0 },          /* OIC in the top byte */
    { 0x3400, 0x00000004, 0 },          /* RC: the upper 128 bytes of the CMOS RAM */
    { 0x3404, 0x00000083, 0 },          /* HPTC */
    { 0x3410, 0x00000004, 0x00000c20 }, /* GCS: BIOS from LPC, NO_REBOOT */
    { 0x3414, 0x00000021, 0 },          /* BUC */
    { 0x3418, 0x03bfff9e, 0 },          /* FD: stored; nothing goes away by it */
};

struct ich9_regs {
    struct ich9_pm pm;
    uint32_t rcba[RCBA_STORED];
    uint8_t apm[2];
    uint8_t port92;
    uint8_t reset_control;
    uint8_t pad[4];
};

struct ich9 {
    struct device dev;
    struct ich9_regs regs;
    struct timer timer; /* the SCI of the PM timer's carry */
    struct irq *irq[ISA_LINES];
    struct irq *sci;
    unsigned pirqs;    /* levels of the pins: driven anew by their devices after a load */
    uint32_t pm_shown; /* PMBASE and RCBA as mapped; 0: not */
    uint32_t rcba_shown;
};

static const struct field ich9_fields[] = {
    { .name = "pm",
      .type = FIELD_STRUCT,
      .since = 1,
      .offset = offsetof(struct ich9_regs, pm),
      .width = sizeof(struct ich9_pm),
      .count = 1,
      .fields = ich9_pm_fields },
    SAVED_ARRAY(struct ich9_regs, rcba),
    SAVED_ARRAY(struct ich9_regs, apm),
    SAVED_MAX(struct ich9_regs, port92, INIT_NOW | ALT_A20),
    SAVED_MAX(struct ich9_regs, reset_control, SYS_RST | RST_CPU | FULL_RST),
    SAVED_PAD(struct ich9_regs, pad),
    SAVED_END,
};

static struct ich9 *ich9_of(struct device *dev)
{
    return (struct ich9 *)dev;
}

/* --- interrupts ----------------------------------------------------------------------------- */

/* The ISA line of a PIRQ as a bit; 0 when it is not routed to one. */
static unsigned pirq_route(const struct device *dev, unsigned pirq)
{
    unsigned reg = pirq < 4 ? PIRQA_ROUT + pirq : PIRQE_ROUT + pirq - 4;
    uint32_t route = pci_get(dev, reg, 1);
    return route & PIRQ_OFF ? 0 : 1U << (route & PIRQ_LINE) & PIRQ_LINES;
}

/* Drives all outputs. The SCI goes to IRQ9, 10 or 11 (section 13.1.6); the settings 4 to 7 are pins
 * of the I/O APIC that PIRQs have here, and lead nowhere. */
static void lines_update(struct ich9 *ich9)
{
    struct device *dev = &ich9->dev;
    bool sci = ich9_pm_sci(&ich9->regs.pm, device_now(dev));
    unsigned select = pci_get(dev, ACPI_CNTL, 1) & SCI_SELECT;
    unsigned lines = sci && (select == 1 || select == 2) ? 1U << (9 + select) : 0;
    for (unsigned i = 0; i < PIRQS; i++)
        if (ich9->pirqs & 1U << i)
            lines |= pirq_route(dev, i);
    for (unsigned i = 0; i < ISA_LINES; i++)
        irq_set(ich9->irq[i], lines & 1U << i);
    irq_set(ich9->sci, sci && select == 0);
}

static void pm_update(struct ich9 *ich9)
{
    lines_update(ich9);
    timer_set(&ich9->timer, ich9_pm_deadline(&ich9->regs.pm, device_now(&ich9->dev)));
}

static void pm_carry(void *owner)
{
    pm_update(owner);
}

static void input(struct device *dev, unsigned pin, bool level)
{
    struct ich9 *ich9 = ich9_of(dev);
    unsigned bit = 1U << pin % PIRQS;
    ich9->pirqs = level ? ich9->pirqs | bit : ich9->pirqs & ~bit;
    lines_update(ich9);
}

static void power_button(struct device *dev)
{
    ich9_pm_press_button(&ich9_of(dev)->regs.pm);
    pm_update(ich9_of(dev));
}

/* --- the power management block ------------------------------------------------------------- */

static uint64_t pm_read(struct device *dev, uint64_t offset, unsigned width)
{
    return ich9_pm_read(&ich9_of(dev)->regs.pm, device_now(dev), (unsigned)offset, width);
}

static void pm_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct ich9 *ich9 = ich9_of(dev);
    enum ich9_sleep sleep =
        ich9_pm_write(&ich9->regs.pm, device_now(dev), (unsigned)offset, width, (uint32_t)value);
    pm_update(ich9);
    if (sleep != ICH9_AWAKE)
        device_request(dev, sleep == ICH9_OFF ? BOARD_POWER_OFF : BOARD_SUSPEND, 0);
}

/* --- the chipset configuration registers ---------------------------------------------------- */

static uint64_t rcba_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)width; /* the bus takes as many bytes as were asked for */
    for (unsigned i = 0; i < RCBA_STORED; i++)
        if (rcba_table[i].offset == (offset & ~UINT64_C(3)))
            return ich9_of(dev)->regs.rcba[i] >> (offset & 3) * 8;
    return 0;
}

static void rcba_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    unsigned shift = (offset & 3) * 8;
    uint32_t lanes = (width == 4 ? UINT32_MAX : (1U << width * 8) - 1) << shift;
    for (unsigned i = 0; i < RCBA_STORED; i++)
        if (rcba_table[i].offset == (offset & ~UINT64_C(3))) {
            uint32_t *reg = &ich9_of(dev)->regs.rcba[i], mask = lanes & rcba_table[i].writable;
            *reg = (*reg & ~mask) | ((uint32_t)value << shift & mask);
        }
}

/* --- fixed ports (section 13.7) ------------------------------------------------------------- */

static uint64_t port92_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)offset, (void)width;
    return ich9_of(dev)->regs.port92;
}

static void port92_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct ich9 *ich9 = ich9_of(dev);
    (void)offset, (void)width;
    bool rises = value & INIT_NOW && !(ich9->regs.port92 & INIT_NOW);
    ich9->regs.port92 = value & (INIT_NOW | ALT_A20);
    if (rises)
        device_request(dev, BOARD_RESET, 0);
}

static uint64_t apm_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)width;
    return ich9_of(dev)->regs.apm[offset & 1];
}

static void apm_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)width;
    ich9_of(dev)->regs.apm[offset & 1] = (uint8_t)value;
}

static uint64_t reset_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)offset, (void)width;
    return ich9_of(dev)->regs.reset_control;
}

static void reset_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct ich9 *ich9 = ich9_of(dev);
    (void)offset, (void)width;
    bool rises = value & RST_CPU && !(ich9->regs.reset_control & RST_CPU);
    ich9->regs.reset_control = value & (SYS_RST | RST_CPU | FULL_RST);
    if (rises)
        device_request(dev, BOARD_RESET, 0);
}

/* --- configuration registers ---------------------------------------------------------------- */

static const struct region pm_region = { REGION_PORTS,   0,       ICH9_PM_SIZE,
                                         W8 | W16 | W32, pm_read, pm_write };
static const struct region rcba_region = { REGION_MMIO,    0,         RCBA_SIZE,
                                           W8 | W16 | W32, rcba_read, rcba_write };

/* Shows a region at `base`, which is 0 for nowhere. */
static void show(struct device *dev, const struct region *region, enum space space, uint32_t base,
                 uint32_t *shown)
{
    if (base == *shown)
        return;
    if (*shown)
        bus_unmap(dev->board->bus, dev, region);
    *shown = base && bus_map(dev->board->bus, dev, &dev->lock, region, space, base) ? base : 0;
}

static void update(struct ich9 *ich9)
{
    struct device *dev = &ich9->dev;
    bool acpi = pci_get(dev, ACPI_CNTL, 1) & ACPI_EN;
    uint32_t rcba = pci_get(dev, RCBA, 4);
    show(dev, &pm_region, SPACE_PORTS, acpi ? pci_get(dev, PMBASE, 4) & PMBASE_MASK : 0,
         &ich9->pm_shown);
    show(dev, &rcba_region, SPACE_MMIO, rcba & 1 ? rcba & RCBA_MASK : 0, &ich9->rcba_shown);
    pm_update(ich9);
}

static void config_written(struct device *dev, unsigned offset, unsigned length)
{
    (void)offset, (void)length;
    update(ich9_of(dev));
}

/* Reset values; after a load only of the bits that software cannot change. */
static void put_defaults(struct device *dev, bool after_load)
{
    static const struct {
        uint8_t offset;
        uint32_t value;
    } defaults[] = {
        { PCI_COMMAND, 0x02000007 }, /* always decodes; medium DEVSEL timing */
        { PMBASE, 0x00000001 },       { GPIOBASE, 0x00000001 },   { PIRQA_ROUT, 0x80808080 },
        { SIRQ_CNTL, 0x00000010 },    { PIRQE_ROUT, 0x80808080 }, { FWH_SEL1, 0x00112233 },
        { FWH_SEL1 + 4, 0x00004567 }, { FWH_DEC_EN, 0x0000ffcf },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(defaults); i++)
        for (unsigned b = 0; b < 4; b++) {
            unsigned at = defaults[i].offset + b;
            uint32_t software = dev->pci->mask[at] | dev->pci->clear[at];
            uint32_t value = defaults[i].value >> b * 8 & (after_load ? ~software : UINT32_MAX);
            pci_put(dev, at, 1, pci_get(dev, at, 1) | value);
        }
}

/* --- life ----------------------------------------------------------------------------------- */

static bool init(struct device *dev, GError **error)
{
    struct ich9 *ich9 = ich9_of(dev);
    (void)error;
    timer_init(&ich9->timer, dev->board->clock, &dev->lock, pm_carry, ich9);
    dev->pci->mask[PCI_COMMAND] &= 0x40; /* the rest is hard-wired (section 13.1.3) */
    dev->pci->mask[PCI_COMMAND + 1] &= 0x01;
    return true;
}

static void reset(struct device *dev)
{
    struct ich9 *ich9 = ich9_of(dev);
    ich9->regs = (struct ich9_regs){ .port92 = 0 };
    ich9_pm_reset(&ich9->regs.pm, device_now(dev));
    for (unsigned i = 0; i < RCBA_STORED; i++)
        ich9->regs.rcba[i] = rcba_table[i].preset;
    put_defaults(dev, false);
    update(ich9);
}

static void loaded(struct device *dev)
{
    put_defaults(dev, true);
    update(ich9_of(dev));
}

static void finish(struct device *dev)
{
    struct ich9 *ich9 = ich9_of(dev);
    bus_unmap(dev->board->bus, dev, &pm_region);
    bus_unmap(dev->board->bus, dev, &rcba_region);
    timer_finish(&ich9->timer);
}

static const struct pci_mask ich9_writable[] = {
    { PMBASE, 0x80 },
    { PMBASE + 1, 0xff },
    { ACPI_CNTL, ACPI_EN | SCI_SELECT },
    { GPIOBASE, 0xc0 },
    { GPIOBASE + 1, 0xff },
    { 0x4c, 0x11 }, /* GC */
    { PIRQA_ROUT, 0x8f },
    { PIRQA_ROUT + 1, 0x8f },
    { PIRQA_ROUT + 2, 0x8f },
    { PIRQA_ROUT + 3, 0x8f },
    { SIRQ_CNTL, 0xc3 },
    { PIRQE_ROUT, 0x8f },
    { PIRQE_ROUT + 1, 0x8f },
    { PIRQE_ROUT + 2, 0x8f },
    { PIRQE_ROUT + 3, 0x8f },
    { 0x80, 0x77 },
    { 0x81, 0x13 }, /* LPC_I/O_DEC */
    { 0x82, 0x0f },
    { 0x83, 0x3f }, /* LPC_EN */
    { 0x84, 0xfd },
    { 0x85, 0xff },
    { 0x86, 0xfc }, /* GEN1_DEC */
    { 0x88, 0xfd },
    { 0x89, 0xff },
    { 0x8a, 0xfc }, /* GEN2_DEC */
    { 0x8c, 0xfd },
    { 0x8d, 0xff },
    { 0x8e, 0xfc }, /* GEN3_DEC */
    { 0x90, 0xfd },
    { 0x91, 0xff },
    { 0x92, 0xfc }, /* GEN4_DEC */
    { GEN_PMCON_1, 0x2f },
    { GEN_PMCON_1 + 1, 0x04 },
    { GEN_PMCON_1 + 4, 0xf9 }, /* GEN_PMCON_3 */
    { GPI_ROUT, 0xff },
    { GPI_ROUT + 1, 0xff },
    { GPI_ROUT + 2, 0xff },
    { GPI_ROUT + 3, 0xff },
    { RCBA, 0x01 },
    { RCBA + 1, 0xc0 },
    { RCBA + 2, 0xff },
    { RCBA + 3, 0xff },
    { .mask = 0 },
};

#define ISA_PLUG(n)                                                                                \
    {                                                                                              \
        "irq" #n, PLUG_IRQ, offsetof(struct ich9, irq[n])                                          \
    }

const struct device_class ich9_lpc_class = {
    .name = "ich9-lpc",
    .help = "ICH9 LPC bridge: interrupt routing, ACPI power management, reset",
    .size = sizeof(struct ich9),
    .regions =
        (const struct region[]){
            { REGION_PORTS, PORT_92, 1, W8, port92_read, port92_write },
            { REGION_PORTS, PORT_APM, 2, W8, apm_read, apm_write },
            { REGION_PORTS, PORT_RESET, 1, W8, reset_read, reset_write },
            { .kind = REGION_END },
        },
    .plugs =
        (const struct plug[]){
            ISA_PLUG(0),
            ISA_PLUG(1),
            ISA_PLUG(2),
            ISA_PLUG(3),
            ISA_PLUG(4),
            ISA_PLUG(5),
            ISA_PLUG(6),
            ISA_PLUG(7),
            ISA_PLUG(8),
            ISA_PLUG(9),
            ISA_PLUG(10),
            ISA_PLUG(11),
            ISA_PLUG(12),
            ISA_PLUG(13),
            ISA_PLUG(14),
            ISA_PLUG(15),
            { "sci", PLUG_IRQ, offsetof(struct ich9, sci) },
            { .name = NULL },
        },
    .state = STATE(struct ich9, regs, 1, ich9_fields),
    .pci =
        &(const struct pci_class){
            .vendor = 0x8086,
            .device = 0x2918,
            .class_code = 0x060100,
            .revision = 2,
            .multifunction = true,
            .writable = ich9_writable,
            .config_written = config_written,
        },
    .init = init,
    .reset = reset,
    .loaded = loaded,
    .finish = finish,
    .controller = &(const struct irq_controller){ .input = input },
    .power_button = power_button,
};
