/* Floppy disk controller: Intel 82078 (64 pin data sheet, order number 290475) as a PC/AT has it,
 * which is software compatible with the 82077AA; up to two drives. Chapter numbers here and in its
 * other files are that sheet's.
 *
 * This file is the class, the registers and the resets; fdc-command.c has the commands without
 * data, fdc-transfer.c those that move data, sector by sector. Register accesses run on vCPU
 * threads, the disk's answers on its threads, all under the device's lock. Nothing turns and no
 * head takes time: a seek ends at once, a transfer when the disk has answered. What the guest
 * indexes lies behind fixed masks: 32 bytes of command or result, 512 of data. */
#include "fdc.h"

#include <string.h>

/* Registers (2.1), from port 0x3f2. SRA and SRB (0x3f0, 0x3f1) are those of a PS/2: on an AT nobody
 * answers there. */
enum { PORT = 0x3f2, PORT_RATE = 0x3f7 };
enum { DOR, TDR, MSR_DSR, DATA, REGISTERS };
enum {
    MSR_READY = 1 << 7,
    MSR_TO_HOST = 1 << 6,
    MSR_NO_DMA = 1 << 5,
    MSR_BUSY = 1 << 4,
};
enum { DIR_CHANGED = 1 << 7 };
enum { TDR_TAPE = 3, TDR_FLOATING = 0xfc };

static const struct field drive_fields[] = {
    SAVED(struct fdc_drive_regs, track),
    SAVED(struct fdc_drive_regs, passed),
    SAVED(struct fdc_drive_regs, changed),
    SAVED_END,
};
static const struct field fdc_fields[] = {
    SAVED(struct fdc_regs, deadline),
    SAVED_MAX(struct fdc_regs, at, FLOPPY_SECTOR),
    SAVED(struct fdc_regs, left),
    SAVED_ARRAY(struct fdc_regs, sector),
    SAVED_ARRAY(struct fdc_regs, bytes),
    SAVED_MAX(struct fdc_regs, count, FDC_BYTES),
    SAVED_MAX(struct fdc_regs, next, FDC_BYTES),
    SAVED_MAX(struct fdc_regs, phase, PHASE_LAST),
    SAVED_MAX(struct fdc_regs, kind, KIND_LAST),
    SAVED_MAX(struct fdc_regs, step, STEP_LAST),
    SAVED(struct fdc_regs, dor),
    SAVED(struct fdc_regs, tdr),
    SAVED(struct fdc_regs, dsr),
    SAVED(struct fdc_regs, step_rate),
    SAVED(struct fdc_regs, head_load),
    SAVED(struct fdc_regs, config),
    SAVED(struct fdc_regs, precompensation_track),
    SAVED(struct fdc_regs, perpendicular),
    SAVED(struct fdc_regs, last_sector),
    SAVED(struct fdc_regs, power),
    SAVED(struct fdc_regs, option),
    SAVED_ARRAY(struct fdc_regs, specified),
    SAVED_ARRAY(struct fdc_regs, pcn),
    SAVED_ARRAY(struct fdc_regs, sense),
    SAVED_MAX(struct fdc_regs, sensed, 0xf),
    SAVED_MAX(struct fdc_regs, polled, 0xf),
    SAVED_MAX(struct fdc_regs, unit, FDC_DRIVES),
    SAVED_MAX(struct fdc_regs, head, 1),
    SAVED(struct fdc_regs, c),
    SAVED(struct fdc_regs, h),
    SAVED(struct fdc_regs, r),
    SAVED(struct fdc_regs, n),
    SAVED(struct fdc_regs, st0),
    SAVED(struct fdc_regs, st1),
    SAVED(struct fdc_regs, st2),
    SAVED(struct fdc_regs, header),
    SAVED(struct fdc_regs, ended),
    SAVED(struct fdc_regs, wrote),
    SAVED(struct fdc_regs, locked),
    SAVED(struct fdc_regs, interrupt),
    SAVED_STRUCTS(struct fdc_regs, drives, drive_fields),
    SAVED_PAD(struct fdc_regs, pad),
    SAVED_END,
};

/* --- what the other files use ----------------------------------------------------------------- */

unsigned fdc_selected(const struct fdc *fdc)
{
    unsigned drive = fdc->regs.dor & DOR_DRIVE;
    bool there = drive < FDC_DRIVES && fdc->types[drive] != FLOPPY_NO_DRIVE;
    return there && fdc->regs.dor & DOR_MOTOR0 << drive ? drive : FDC_DRIVES;
}

static void update_line(struct fdc *fdc)
{
    irq_set(fdc->irq, fdc->regs.interrupt && fdc->regs.dor & DOR_DMA_GATE);
}

void fdc_interrupt(struct fdc *fdc, bool on)
{
    fdc->regs.interrupt = on;
    update_line(fdc);
}

void fdc_result(struct fdc *fdc, unsigned count)
{
    fdc->regs.phase = count ? PHASE_RESULT : PHASE_COMMAND;
    fdc->regs.count = (uint8_t)count;
    fdc->regs.next = 0;
}

/* --- resets (2.2) ----------------------------------------------------------------------------- */

/* What all resets do. The drives, the data rate and what LOCK protects stay. */
static void stop_chip(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    fdc_cancel(fdc);
    regs->sensed = regs->polled = 0;
    memset(regs->pcn, 0, sizeof regs->pcn);
    regs->config &= regs->locked ? CONFIG_LOCKED : 0;
    if (!regs->locked) {
        regs->config = CONFIG_NO_FIFO;
        regs->precompensation_track = 0;
    }
    regs->perpendicular &= PERPENDICULAR_DRIVES;
    fdc_result(fdc, 0);
    fdc_interrupt(fdc, false);
}

/* The chip looks at its drives, and finds that all four have become ready (5.2, polling). */
static void start_chip(struct fdc *fdc)
{
    fdc->regs.polled = (1 << FDC_UNITS) - 1;
    fdc_interrupt(fdc, true);
}

/* --- ports ------------------------------------------------------------------------------------ */

static uint8_t main_status(const struct fdc *fdc)
{
    const struct fdc_regs *regs = &fdc->regs;
    if (!(regs->dor & DOR_RUN))
        return 0;
    if (regs->phase == PHASE_RESULT)
        return MSR_READY | MSR_TO_HOST | MSR_BUSY | regs->sensed;
    if (regs->phase == PHASE_COMMAND)
        return MSR_READY | (regs->next ? MSR_BUSY : 0) | regs->sensed;
    return MSR_BUSY | regs->sensed | (regs->head_load & SPECIFY_NO_DMA ? MSR_NO_DMA : 0) |
           (fdc_host_turn(fdc, true) ? MSR_READY | MSR_TO_HOST : 0) |
           (fdc_host_turn(fdc, false) ? MSR_READY : 0);
}

static uint8_t read_data(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    if (regs->phase == PHASE_EXECUTION && fdc_host_turn(fdc, true))
        return fdc_give(fdc);
    if (regs->phase != PHASE_RESULT)
        return 0;
    if (!regs->next)
        fdc_interrupt(fdc, false);
    uint8_t byte = regs->bytes[regs->next++ & (FDC_BYTES - 1)];
    if (regs->next >= regs->count)
        fdc_result(fdc, 0);
    return byte;
}

static void write_data(struct fdc *fdc, uint8_t byte)
{
    if (!(fdc->regs.dor & DOR_RUN))
        return;
    if (fdc->regs.phase == PHASE_COMMAND)
        fdc_take_command(fdc, byte);
    else if (fdc->regs.phase == PHASE_EXECUTION && fdc_host_turn(fdc, false))
        fdc_take(fdc, byte);
}

static void write_dor(struct fdc *fdc, uint8_t value)
{
    uint8_t was = fdc->regs.dor;
    fdc->regs.dor = value;
    if (was & DOR_RUN && !(value & DOR_RUN))
        stop_chip(fdc);
    else if (!(was & DOR_RUN) && value & DOR_RUN)
        start_chip(fdc);
    update_line(fdc);
    fdc_retry(fdc);
}

static void write_dsr(struct fdc *fdc, uint8_t value)
{
    fdc->regs.dsr = value & DSR_KEPT;
    if (!(value & DSR_RESET) || !(fdc->regs.dor & DOR_RUN))
        return;
    stop_chip(fdc);
    start_chip(fdc);
}

static uint64_t fdc_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct fdc *fdc = (struct fdc *)dev;
    (void)width;
    switch (offset) {
    case DOR:
        return fdc->regs.dor;
    case TDR:
        return fdc->regs.tdr | TDR_FLOATING;
    case MSR_DSR:
        return main_status(fdc);
    default:
        return read_data(fdc);
    }
}

static void fdc_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct fdc *fdc = (struct fdc *)dev;
    (void)width;
    switch (offset) {
    case DOR:
        write_dor(fdc, (uint8_t)value);
        break;
    case TDR:
        fdc->regs.tdr = value & TDR_TAPE;
        break;
    case MSR_DSR:
        write_dsr(fdc, (uint8_t)value);
        break;
    default:
        write_data(fdc, (uint8_t)value);
    }
}

/* DIR (2.1.8): the selected drive's DSKCHG; the other bits are the hard disk's, where there is one
 * at this port. */
static uint64_t rate_read(struct device *dev, uint64_t offset, unsigned width)
{
    const struct fdc *fdc = (struct fdc *)dev;
    unsigned drive = fdc_selected(fdc);
    (void)offset, (void)width;
    return drive < FDC_DRIVES && fdc->regs.drives[drive].changed ? DIR_CHANGED : 0;
}

/* CCR (2.1.9). */
static void rate_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct fdc *fdc = (struct fdc *)dev;
    (void)offset, (void)width;
    fdc->regs.dsr = (uint8_t)((fdc->regs.dsr & ~DSR_RATE) | (value & DSR_RATE));
}

/* --- life ------------------------------------------------------------------------------------- */

static void run_timer(void *owner)
{
    fdc_retry(owner);
}

static bool fdc_init(struct device *dev, GError **error)
{
    struct fdc *fdc = (struct fdc *)dev;
    (void)error;
    timer_init(&fdc->timer, dev->board->clock, &dev->lock, run_timer, fdc);
    return true;
}

static void fdc_reset(struct device *dev)
{
    struct fdc *fdc = (struct fdc *)dev;
    fdc_cancel(fdc);
    fdc->regs = (struct fdc_regs){ .dsr = DSR_DEFAULT, .config = CONFIG_NO_FIFO };
    for (unsigned i = 0; i < FDC_DRIVES; i++)
        fdc->regs.drives[i].changed = true;
    update_line(fdc);
}

/* What no write could have set, no saved state sets. */
static void fdc_loaded(struct device *dev)
{
    struct fdc *fdc = (struct fdc *)dev;
    struct fdc_regs *regs = &fdc->regs;
    regs->tdr &= TDR_TAPE;
    regs->dsr &= DSR_KEPT;
    regs->config &= CONFIG_KEPT;
    regs->perpendicular &= PERPENDICULAR_KEPT;
    if (regs->phase == PHASE_RESULT && regs->next >= regs->count)
        fdc_result(fdc, 0);
    update_line(fdc);
    fdc_resume(fdc);
}

static void fdc_finish(struct device *dev)
{
    timer_finish(&((struct fdc *)dev)->timer);
}

/* The machine drains and frees the old disk afterwards. */
static void fdc_change_medium(struct device *dev, unsigned index, struct disk *disk)
{
    struct fdc *fdc = (struct fdc *)dev;
    if (index >= FDC_DRIVES)
        return;
    fdc->disks[index] = disk;
    fdc->regs.drives[index].changed = true;
    fdc->regs.drives[index].passed = 0;
    if (fdc->regs.phase == PHASE_EXECUTION && fdc->regs.unit == index)
        fdc_lose_disk(fdc);
}

const struct device_class fdc_class = {
    .name = "fdc",
    .help = "floppy disk controller with two drives (Intel 82078)",
    .size = sizeof(struct fdc),
    .regions =
        (const struct region[]){
            { REGION_PORTS, PORT, REGISTERS, W8, fdc_read, fdc_write },
            { REGION_PORTS, PORT_RATE, 1, W8, rate_read, rate_write },
            { .kind = REGION_END },
        },
    .options =
        (const struct option[]){
            { "type0", "kind of the first drive, as in CMOS byte 0x10 (0: none, 4: 1.44 MB)",
              OPTION_UINT, offsetof(struct fdc, types[0]), "4", 0, FLOPPY_2880K },
            { "type1", "kind of the second drive", OPTION_UINT, offsetof(struct fdc, types[1]), "0",
              0, FLOPPY_2880K },
            { .name = NULL },
        },
    .plugs =
        (const struct plug[]){
            { "irq", PLUG_IRQ, offsetof(struct fdc, irq) },
            { "dma", PLUG_DMA, offsetof(struct fdc, dma) },
            { "disk0", PLUG_DISK, offsetof(struct fdc, disks[0]) },
            { "disk1", PLUG_DISK, offsetof(struct fdc, disks[1]) },
            { .name = NULL },
        },
    .state = STATE(struct fdc, regs, 1, fdc_fields),
    .init = fdc_init,
    .reset = fdc_reset,
    .loaded = fdc_loaded,
    .finish = fdc_finish,
    .change_medium = fdc_change_medium,
};
