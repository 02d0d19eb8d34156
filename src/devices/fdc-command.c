/* The floppy controller's commands that move no data, and how a command comes together from its
 * bytes (82078 data sheet, chapters 5.1 and 6).
 *
 * There are no SCAN commands, as in the 82077AA and the 82078 (whose ST2 has no bits for them). */
#include "fdc.h"

#include <string.h>

enum { VERSION_82077 = 0x90, PART_82078 = 0x01, LOCK_BIT = 0x80, LOCK_RESULT = 0x10 };
enum { ST3_PROTECTED = 1 << 6, ST3_ONES = 1 << 5 | 1 << 3, ST3_TRACK0 = 1 << 4 };
enum { SPEC_DONE = 1 << 7, SPEC_NO_RESULT = 1 << 6, SPEC_KEPT = 0x1f };
enum { RECALIBRATE_STEPS = 80, RELATIVE_IN = 1 << 6 };
enum { SAVED_BYTES = 16 };

/* --- the heads -------------------------------------------------------------------------------- */

/* How far in they go: a few tracks further than those that are used. */
static unsigned last_track(const struct fdc *fdc, unsigned drive)
{
    return fdc->types[drive] == FLOPPY_360K ? 41 : 83;
}

/* Step pulses for the selected drive; a disk in it takes DSKCHG back. */
static void step(struct fdc *fdc, int steps)
{
    unsigned drive = fdc_selected(fdc);
    if (drive == FDC_DRIVES || !steps)
        return;
    struct fdc_drive_regs *d = &fdc->regs.drives[drive];
    d->track = (uint8_t)CLAMP((int)d->track + steps, 0, (int)last_track(fdc, drive));
    if (fdc->disks[drive])
        d->changed = false;
}

static bool at_track0(const struct fdc *fdc)
{
    unsigned drive = fdc_selected(fdc);
    return drive < FDC_DRIVES && !fdc->regs.drives[drive].track;
}

void fdc_seek(struct fdc *fdc, unsigned unit, unsigned cylinder)
{
    uint8_t *pcn = &fdc->regs.pcn[unit & UNIT_MASK];
    step(fdc, (int)cylinder - *pcn);
    *pcn = (uint8_t)cylinder;
}

/* A seek ends: told by an interrupt and SENSE INTERRUPT STATUS. */
static void end_seek(struct fdc *fdc, uint8_t flags)
{
    uint8_t drive = fdc->regs.bytes[1] & (UNIT_MASK | UNIT_HEAD);
    fdc->regs.sense[drive & UNIT_MASK] = ST0_SEEK_END | flags | drive;
    fdc->regs.sensed |= (uint8_t)(1 << (drive & UNIT_MASK));
    fdc->regs.polled = 0;
    fdc_result(fdc, 0);
    fdc_interrupt(fdc, true);
}

static void recalibrate(struct fdc *fdc)
{
    step(fdc, at_track0(fdc) ? 0 : -RECALIBRATE_STEPS);
    fdc->regs.pcn[fdc->regs.bytes[1] & UNIT_MASK] = 0;
    fdc->regs.bytes[1] &= UNIT_MASK;
    end_seek(fdc, at_track0(fdc) ? 0 : ST0_ABNORMAL | ST0_EQUIPMENT);
}

static void seek(struct fdc *fdc)
{
    fdc_seek(fdc, fdc->regs.bytes[1], fdc->regs.bytes[2]);
    end_seek(fdc, 0);
}

static void relative_seek(struct fdc *fdc)
{
    const uint8_t *bytes = fdc->regs.bytes;
    uint8_t *pcn = &fdc->regs.pcn[bytes[1] & UNIT_MASK];
    int steps = bytes[0] & RELATIVE_IN ? bytes[2] : -bytes[2];
    step(fdc, steps);
    *pcn = (uint8_t)(*pcn + steps);
    end_seek(fdc, 0);
}

/* --- status ----------------------------------------------------------------------------------- */

static void invalid(struct fdc *fdc)
{
    fdc->regs.bytes[0] = ST0_INVALID;
    fdc_result(fdc, 1);
}

static void sense_interrupt(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    unsigned units = regs->sensed ? regs->sensed : regs->polled;
    if (!units) {
        invalid(fdc);
        return;
    }
    unsigned unit = (unsigned)__builtin_ctz(units) & UNIT_MASK;
    regs->bytes[0] = regs->sensed ? regs->sense[unit] : (uint8_t)(ST0_POLLED | unit);
    regs->bytes[1] = regs->pcn[unit];
    *(regs->sensed ? &regs->sensed : &regs->polled) &= (uint8_t) ~(1 << unit);
    fdc_interrupt(fdc, false);
    if (regs->sensed) /* an edge for the next one */
        fdc_interrupt(fdc, true);
    fdc_result(fdc, 2);
}

/* ST3 (7.4). Without a disk the sensor is in the dark, as with a closed tab missing. */
static void sense_drive(struct fdc *fdc)
{
    unsigned drive = fdc_selected(fdc);
    bool protected = drive < FDC_DRIVES && (!fdc->disks[drive] || fdc->disks[drive]->readonly);
    fdc->regs.bytes[0] =
        (uint8_t)((fdc->regs.bytes[1] & (UNIT_MASK | UNIT_HEAD)) | ST3_ONES |
                  (protected ? ST3_PROTECTED : 0) | (at_track0(fdc) ? ST3_TRACK0 : 0));
    fdc_result(fdc, 1);
}

static void version(struct fdc *fdc)
{
    fdc->regs.bytes[0] = VERSION_82077;
    fdc_result(fdc, 1);
}

static void part_id(struct fdc *fdc)
{
    fdc->regs.bytes[0] = PART_82078;
    fdc_result(fdc, 1);
}

static uint8_t lock_and_mode(const struct fdc_regs *regs)
{
    return (regs->locked ? LOCK_BIT : 0) | regs->perpendicular;
}

static void dump_registers(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    memcpy(regs->bytes, regs->pcn, FDC_UNITS);
    regs->bytes[4] = regs->step_rate;
    regs->bytes[5] = regs->head_load;
    regs->bytes[6] = regs->last_sector;
    regs->bytes[7] = lock_and_mode(regs);
    regs->bytes[8] = regs->config;
    regs->bytes[9] = regs->precompensation_track;
    fdc_result(fdc, 10);
}

/* --- settings --------------------------------------------------------------------------------- */

static void specify(struct fdc *fdc)
{
    fdc->regs.step_rate = fdc->regs.bytes[1];
    fdc->regs.head_load = fdc->regs.bytes[2];
    fdc_result(fdc, 0);
}

static void configure(struct fdc *fdc)
{
    fdc->regs.config = fdc->regs.bytes[2] & CONFIG_KEPT;
    fdc->regs.precompensation_track = fdc->regs.bytes[3];
    if (fdc->regs.config & CONFIG_NO_POLLING)
        fdc->regs.polled = 0;
    fdc_result(fdc, 0);
}

static void set_perpendicular(struct fdc *fdc)
{
    uint8_t *mode = &fdc->regs.perpendicular, value = fdc->regs.bytes[1];
    uint8_t drives = value & PERPENDICULAR_OVERWRITE ? value : *mode;
    *mode = (uint8_t)((drives & PERPENDICULAR_DRIVES) |
                      (value & PERPENDICULAR_KEPT & ~PERPENDICULAR_DRIVES));
    fdc_result(fdc, 0);
}

static void lock(struct fdc *fdc)
{
    fdc->regs.locked = fdc->regs.bytes[0] & LOCK_BIT;
    fdc->regs.bytes[0] = fdc->regs.locked ? LOCK_RESULT : 0;
    fdc_result(fdc, 1);
}

static void power_down_mode(struct fdc *fdc)
{
    fdc->regs.power = fdc->regs.bytes[0] = fdc->regs.bytes[1];
    fdc_result(fdc, 1);
}

static void set_option(struct fdc *fdc)
{
    fdc->regs.option = fdc->regs.bytes[1] & 1;
    fdc_result(fdc, 0);
}

/* A byte for each drive, until one says that it is the last. */
static void specify_drive(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    uint8_t byte = regs->bytes[1];
    if (!(byte & SPEC_DONE)) {
        regs->specified[byte >> 5 & UNIT_MASK] = byte & SPEC_KEPT;
        regs->next = 1;
        return;
    }
    memcpy(regs->bytes, regs->specified, FDC_UNITS);
    fdc_result(fdc, byte & SPEC_NO_RESULT ? 0 : FDC_UNITS);
}

/* SAVE and RESTORE (6.2), by which a BIOS turns the chip's power off and on. */
static void save(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    memset(regs->bytes, 0, SAVED_BYTES);
    regs->bytes[0] = regs->dsr;
    regs->bytes[1] = regs->option;
    memcpy(regs->bytes + 2, regs->pcn, FDC_UNITS);
    regs->bytes[6] = regs->step_rate;
    regs->bytes[7] = regs->head_load;
    regs->bytes[8] = regs->last_sector;
    regs->bytes[9] = lock_and_mode(regs);
    regs->bytes[10] = regs->config;
    regs->bytes[11] = regs->precompensation_track;
    regs->bytes[12] = regs->power;
    fdc_result(fdc, SAVED_BYTES);
}

static void restore(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    const uint8_t *from = regs->bytes + 1;
    regs->dsr = from[0] & DSR_KEPT;
    regs->option = from[1] & 1;
    memcpy(regs->pcn, from + 2, FDC_UNITS);
    regs->step_rate = from[6];
    regs->head_load = from[7];
    regs->last_sector = from[8];
    regs->locked = from[9] & LOCK_BIT;
    regs->perpendicular = from[9] & PERPENDICULAR_KEPT;
    regs->config = from[10] & CONFIG_KEPT;
    regs->precompensation_track = from[11];
    regs->power = from[12];
    fdc_result(fdc, 0);
}

/* --- the table (6, table 6-1) ----------------------------------------------------------------- */

static const struct command {
    uint8_t mask, value; /* of the first byte */
    uint8_t length;
    enum fdc_kind kind; /* KIND_NONE: `run` does it all */
    void (*run)(struct fdc *fdc);
} commands[] = {
    { 0x1f, 0x06, 9, KIND_READ, NULL },
    { 0x1f, 0x0c, 9, KIND_READ_DELETED, NULL },
    { 0x3f, 0x05, 9, KIND_WRITE, NULL },
    { 0x3f, 0x09, 9, KIND_WRITE, NULL }, /* an image has no deleted data marks */
    { 0xbf, 0x02, 9, KIND_READ_TRACK, NULL },
    { 0x1f, 0x16, 9, KIND_VERIFY, NULL },
    { 0xbf, 0x0d, 6, KIND_FORMAT, NULL },
    { 0xbf, 0xad, 6, KIND_FORMAT_WRITE, NULL },
    { 0xbf, 0x0a, 2, KIND_NONE, fdc_read_id },
    { 0xff, 0x10, 1, KIND_NONE, version },
    { 0xff, 0x07, 2, KIND_NONE, recalibrate },
    { 0xff, 0x08, 1, KIND_NONE, sense_interrupt },
    { 0xff, 0x03, 3, KIND_NONE, specify },
    { 0xff, 0x04, 2, KIND_NONE, sense_drive },
    { 0xff, 0x8e, 2, KIND_NONE, specify_drive },
    { 0xff, 0x0f, 3, KIND_NONE, seek },
    { 0xbf, 0x8f, 3, KIND_NONE, relative_seek },
    { 0xff, 0x13, 4, KIND_NONE, configure },
    { 0xff, 0x0e, 1, KIND_NONE, dump_registers },
    { 0xff, 0x12, 2, KIND_NONE, set_perpendicular },
    { 0x7f, 0x14, 1, KIND_NONE, lock },
    { 0xff, 0x18, 1, KIND_NONE, part_id },
    { 0xff, 0x17, 2, KIND_NONE, power_down_mode },
    { 0xff, 0x33, 2, KIND_NONE, set_option },
    { 0xff, 0x2e, 1, KIND_NONE, save },
    { 0xff, 0x4e, 1 + SAVED_BYTES, KIND_NONE, restore },
    { 0x00, 0x00, 1, KIND_NONE, invalid },
};

void fdc_take_command(struct fdc *fdc, uint8_t byte)
{
    struct fdc_regs *regs = &fdc->regs;
    const struct command *command = commands;
    regs->bytes[regs->next++ & (FDC_BYTES - 1)] = byte;
    while ((regs->bytes[0] & command->mask) != command->value)
        command++; /* the last fits all */
    if (regs->next < command->length)
        return;
    if (command->kind != KIND_NONE)
        fdc_transfer(fdc, command->kind);
    else
        command->run(fdc);
}
