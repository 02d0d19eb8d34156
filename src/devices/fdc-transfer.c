/* The floppy controller's commands that move data (82078 data sheet, chapters 5.2, 6.1 and 7).
 *
 * One sector after the other: found by its ID, moved between the disk and regs.sector, and between
 * that and the host, by DMA or through the data register. Only the disk and the host take time:
 * each step ends by asking one of them, and goes on when it has answered. What was asked of the
 * disk before a reset is left to end by itself (`generation`); its buffer is no part of the state.
 *
 * The tracks of an image are as its size says (block/floppy.h): sectors 1 to n of 512 bytes, IDs
 * with the true cylinder and head, MFM, no deleted data, no bad spots. */
#include "fdc.h"

#include <string.h>

enum { SIZE_512 = 2, ID_BYTES = 4, RESULT_BYTES = 7, BAD_CYLINDER = 0xff };
/* How long a host may take before it has overrun the chip. The chip itself waits for no more than
 * 16 bytes; but then its guest's processor may not be running. */
#define PATIENCE (NS_PER_SECOND / 2)

static void start_sector(struct fdc *fdc);
static void ask_disk(struct fdc *fdc);

static bool to_disk(const struct fdc *fdc)
{
    return fdc->regs.kind >= KIND_WRITE;
}

static bool by_dma(const struct fdc *fdc)
{
    return !(fdc->regs.head_load & SPECIFY_NO_DMA);
}

/* --- the end (5.3, 7) ------------------------------------------------------------------------- */

static void drop_request(struct fdc *fdc)
{
    bool end;
    dma_move(fdc->dma, DMA_TO_MEMORY, NULL, 0, &end, NULL);
    timer_cancel(&fdc->timer);
}

static void conclude(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    const uint8_t result[RESULT_BYTES] = { regs->st0, regs->st1, regs->st2, regs->c,
                                           regs->h,   regs->r,   regs->n };
    memcpy(regs->bytes, result, sizeof result);
    regs->kind = KIND_NONE;
    fdc->generation++;
    fdc->waiting = false;
    drop_request(fdc);
    fdc_result(fdc, RESULT_BYTES);
    fdc_interrupt(fdc, true);
}

/* What was written is on the disk when the guest is told so. */
static void finish(struct fdc *fdc, uint8_t code, uint8_t st1, uint8_t st2)
{
    struct fdc_regs *regs = &fdc->regs;
    regs->st0 |= code | (regs->head ? ST0_HEAD : 0);
    regs->st1 |= st1;
    regs->st2 |= st2;
    if (!regs->wrote) {
        conclude(fdc);
        return;
    }
    drop_request(fdc);
    fdc_interrupt(fdc, false);
    regs->step = STEP_FLUSH;
    ask_disk(fdc);
}

static void fail(struct fdc *fdc, uint8_t st1, uint8_t st2)
{
    finish(fdc, ST0_ABNORMAL, st1, st2);
}

/* --- finding a sector (6.1.1) ----------------------------------------------------------------- */

/* The chip's rates for the two bits of DSR or CCR, as DRIVE SPECIFICATION says (table 2-10): the
 * second is another one in its other tables, which no floppy has. */
static unsigned rate(const struct fdc *fdc, unsigned drive)
{
    enum { TABLE = 3 << 2, TABLE_500 = 1 << 2 };
    unsigned bits = fdc->regs.dsr & DSR_RATE, table = fdc->regs.specified[drive] & TABLE;
    if (bits == 1 && table)
        return table == TABLE_500 ? FLOPPY_500 : 0;
    return 1u << bits;
}

/* The format of the track under the head, and the cylinder that it is; NULL when there is nothing
 * that the chip can read. A 1.2 MB drive makes two steps for each cylinder of a 360 KB disk. */
static const struct floppy_format *track(const struct fdc *fdc, unsigned drive, unsigned *cylinder)
{
    const struct disk *disk = drive < FDC_DRIVES ? fdc->disks[drive] : NULL;
    const struct floppy_format *format = disk ? floppy_format(disk->size) : NULL;
    if (!format || !(fdc->regs.bytes[0] & COMMAND_MFM) || !(rate(fdc, drive) & format->rates))
        return NULL;
    bool twice = format->drive == FLOPPY_360K && fdc->types[drive] != FLOPPY_360K;
    unsigned at = fdc->regs.drives[drive].track;
    *cylinder = at >> twice;
    if ((twice && at & 1) || *cylinder >= format->cylinders || fdc->regs.head >= format->heads)
        return NULL;
    return format;
}

static uint64_t place(const struct fdc *fdc, const struct floppy_format *format, unsigned cylinder,
                      unsigned sector)
{
    uint64_t tracks = (uint64_t)cylinder * format->heads + fdc->regs.head;
    return (tracks * format->sectors + sector - 1) * FLOPPY_SECTOR;
}

/* READ TRACK takes the sectors as they come from the index hole on, whatever their IDs. */
static unsigned on_track(const struct fdc *fdc, const struct floppy_format *format)
{
    return fdc->regs.drives[fdc->regs.unit % FDC_DRIVES].passed % format->sectors + 1u;
}

/* Where the sector is that is sought. False when it is not found, with the reason in st1 and st2.
 */
static bool locate(struct fdc *fdc, uint64_t *offset)
{
    struct fdc_regs *regs = &fdc->regs;
    unsigned cylinder, sector = regs->r;
    const struct floppy_format *format = track(fdc, regs->unit, &cylinder);
    if (!format) {
        regs->st1 |= ST1_NO_MARK;
        return false;
    }
    bool same = regs->c == cylinder && regs->h == regs->head && regs->n == SIZE_512;
    if (regs->kind == KIND_READ_TRACK) {
        sector = on_track(fdc, format);
        if (!same || regs->r != sector)
            regs->st1 |= ST1_NO_DATA;
    } else if (!same || !sector || sector > format->sectors) {
        regs->st1 |= ST1_NO_DATA;
        if (regs->c != cylinder)
            regs->st2 |= ST2_CYLINDER;
        return false;
    }
    *offset = place(fdc, format, cylinder, sector);
    return true;
}

void fdc_read_id(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    unsigned cylinder;
    regs->polled = 0;
    regs->unit = (uint8_t)fdc_selected(fdc);
    regs->head = regs->bytes[1] & UNIT_HEAD ? 1 : 0;
    regs->st0 = regs->bytes[1] & UNIT_MASK;
    regs->st1 = regs->st2 = 0;
    regs->wrote = false;
    regs->c = regs->h = regs->r = regs->n = 0;
    const struct floppy_format *format = track(fdc, regs->unit, &cylinder);
    if (!format) {
        fail(fdc, ST1_NO_MARK, 0);
        return;
    }
    regs->c = (uint8_t)cylinder;
    regs->h = regs->head;
    regs->r = regs->drives[regs->unit].passed = (uint8_t)on_track(fdc, format);
    regs->n = SIZE_512;
    finish(fdc, 0, 0, 0);
}

/* --- from sector to sector -------------------------------------------------------------------- */

/* To the next ID (6.1.1, the table of results); false at the end of the cylinder. */
static bool advance(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    if (regs->r != regs->last_sector) {
        regs->r++;
        return true;
    }
    regs->r = 1;
    bool tracks = regs->bytes[0] & COMMAND_TRACKS, other = tracks && !regs->head;
    if (tracks) {
        regs->h ^= 1;
        regs->head = other;
    }
    if (!other)
        regs->c++;
    return other;
}

/* How the sector's data goes on: VERIFY and READ TRACK count, the others end at the last sector or
 * when the host says so. */
static void after_sector(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    regs->drives[regs->unit % FDC_DRIVES].passed = regs->r;
    bool marked = regs->st2 & ST2_CONTROL_MARK;
    if (regs->kind == KIND_READ_TRACK) {
        regs->r++;
        if (regs->ended || !--regs->left)
            finish(fdc, 0, 0, 0);
        else
            start_sector(fdc);
        return;
    }
    if (marked) { /* 6.1.2: the next sector is not sought */
        finish(fdc, 0, 0, 0);
        return;
    }
    bool more = advance(fdc), verify = regs->kind == KIND_VERIFY;
    bool counted = verify && regs->bytes[1] & UNIT_COUNT;
    bool done = regs->ended || (counted && !--regs->left) || (verify && !counted && !more);
    if (done)
        finish(fdc, 0, 0, 0);
    else if (!more)
        fail(fdc, ST1_END, 0);
    else
        start_sector(fdc);
}

static void after_format(struct fdc *fdc)
{
    fdc->regs.header = true;
    if (!--fdc->regs.left)
        finish(fdc, 0, 0, 0);
    else
        start_sector(fdc);
}

/* --- the host --------------------------------------------------------------------------------- */

static unsigned host_bytes(const struct fdc *fdc)
{
    return fdc->regs.header ? ID_BYTES : FLOPPY_SECTOR;
}

/* FORMAT TRACK: an ID came. An image has the sectors that it has: only those can be written. */
static void take_id(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    uint64_t offset;
    regs->c = regs->sector[0];
    regs->h = regs->sector[1];
    regs->r = regs->sector[2];
    regs->n = regs->sector[3];
    regs->header = false;
    regs->at = 0;
    if (!locate(fdc, &offset)) {
        regs->st1 = regs->st2 = 0;
        finish(fdc, ST0_ABNORMAL | ST0_EQUIPMENT, 0, 0);
    } else if (regs->kind == KIND_FORMAT_WRITE) {
        start_sector(fdc);
    } else {
        memset(regs->sector, regs->bytes[5], FLOPPY_SECTOR);
        regs->step = STEP_WRITE;
        ask_disk(fdc);
    }
}

/* The host has given or taken what it had to, or has said that it ends here. */
static void host_done(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    timer_cancel(&fdc->timer);
    fdc_interrupt(fdc, false);
    if (!to_disk(fdc)) {
        after_sector(fdc);
    } else if (regs->header && regs->at < ID_BYTES) {
        finish(fdc, 0, 0, 0);
    } else if (regs->header) {
        take_id(fdc);
    } else {
        memset(regs->sector + MIN(regs->at, FLOPPY_SECTOR), 0,
               FLOPPY_SECTOR - MIN(regs->at, FLOPPY_SECTOR)); /* 5.2.5 */
        regs->step = STEP_WRITE;
        ask_disk(fdc);
    }
}

/* As much as the channel takes; it is asked again when it is open. */
static void serve_dma(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    unsigned bytes = host_bytes(fdc);
    bool gate = regs->dor & DOR_DMA_GATE;
    while (gate && regs->at < bytes && !regs->ended) {
        size_t moved =
            dma_move(fdc->dma, to_disk(fdc) ? DMA_TO_DEVICE : DMA_TO_MEMORY,
                     regs->sector + regs->at, bytes - regs->at, &regs->ended, &fdc->timer);
        if (!moved)
            break;
        regs->at = (uint16_t)(regs->at + moved);
    }
    if (regs->ended || regs->at >= bytes)
        host_done(fdc);
    else
        timer_set(&fdc->timer, regs->deadline);
}

static void ask_host(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    regs->step = STEP_HOST;
    regs->at = 0;
    regs->deadline = device_now(&fdc->dev) + PATIENCE;
    if (by_dma(fdc)) {
        serve_dma(fdc);
        return;
    }
    timer_set(&fdc->timer, regs->deadline);
    fdc_interrupt(fdc, true);
}

bool fdc_host_turn(const struct fdc *fdc, bool to_host)
{
    return fdc->regs.phase == PHASE_EXECUTION && fdc->regs.step == STEP_HOST && !by_dma(fdc) &&
           to_disk(fdc) != to_host;
}

uint8_t fdc_give(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    uint8_t byte = regs->sector[regs->at++ & (FLOPPY_SECTOR - 1)];
    if (regs->at >= host_bytes(fdc))
        host_done(fdc);
    return byte;
}

void fdc_take(struct fdc *fdc, uint8_t byte)
{
    struct fdc_regs *regs = &fdc->regs;
    regs->sector[regs->at++ & (FLOPPY_SECTOR - 1)] = byte;
    if (regs->at >= host_bytes(fdc))
        host_done(fdc);
}

void fdc_retry(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    if (regs->phase != PHASE_EXECUTION)
        return;
    if (regs->step != STEP_HOST) {
        if (!fdc->busy && !fdc->waiting) /* after a restore */
            ask_disk(fdc);
        return;
    }
    if (device_now(&fdc->dev) >= regs->deadline)
        fail(fdc, ST1_OVERRUN, 0);
    else if (by_dma(fdc))
        serve_dma(fdc);
    else
        timer_set(&fdc->timer, regs->deadline);
}

/* --- the disk --------------------------------------------------------------------------------- */

static void read_done(struct fdc *fdc)
{
    memcpy(fdc->regs.sector, fdc->buffer, FLOPPY_SECTOR);
    if (fdc->regs.kind == KIND_VERIFY)
        after_sector(fdc);
    else
        ask_host(fdc);
}

static void write_done(struct fdc *fdc)
{
    fdc->regs.wrote = true;
    if (fdc->regs.kind == KIND_WRITE)
        after_sector(fdc);
    else
        after_format(fdc);
}

static void disk_done(struct disk_request *request, int error)
{
    struct fdc *fdc = request->owner;
    struct fdc_regs *regs = &fdc->regs;
    fdc->busy = false;
    if (fdc->waiting) {
        ask_disk(fdc);
        return;
    }
    if (fdc->submitted != fdc->generation || regs->phase != PHASE_EXECUTION)
        return;
    if (error && regs->step == STEP_READ) {
        fail(fdc, ST1_DATA, ST2_DATA);
    } else if (error) { /* the drive's fault signal */
        regs->wrote = false;
        finish(fdc, ST0_ABNORMAL | ST0_EQUIPMENT, 0, 0);
    } else if (regs->step == STEP_READ) {
        read_done(fdc);
    } else if (regs->step == STEP_WRITE) {
        write_done(fdc);
    } else if (regs->step == STEP_FLUSH) {
        conclude(fdc);
    }
}

/* What regs.step says, when the disk is free. */
static void ask_disk(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    struct disk *disk = fdc->disks[regs->unit % FDC_DRIVES];
    uint64_t offset = 0;
    bool flush = regs->step == STEP_FLUSH;
    fdc->waiting = fdc->busy;
    if (fdc->busy)
        return;
    if (!flush && !locate(fdc, &offset)) {
        fail(fdc, 0, 0);
        return;
    }
    if (!disk) { /* only a flush: what was to be flushed went with it */
        conclude(fdc);
        return;
    }
    if (regs->step == STEP_WRITE)
        memcpy(fdc->buffer, regs->sector, FLOPPY_SECTOR);
    fdc->iov = (struct iovec){ fdc->buffer, FLOPPY_SECTOR };
    fdc->request = (struct disk_request){
        .op = flush                      ? DISK_FLUSH
              : regs->step == STEP_WRITE ? DISK_WRITE
                                         : DISK_READ,
        .offset = offset,
        .length = flush ? 0 : FLOPPY_SECTOR,
        .iov = flush ? NULL : &fdc->iov,
        .iov_count = flush ? 0 : 1,
        .done = disk_done,
        .owner = fdc,
    };
    fdc->busy = true;
    fdc->submitted = fdc->generation;
    disk_submit(disk, &fdc->request);
    disk_kick(disk);
}

/* --- the beginning ---------------------------------------------------------------------------- */

/* All sectors have data marks: READ DELETED DATA skips them, or reads one and says so (6.1.2). */
static bool is_marked(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    uint64_t offset;
    if (regs->kind != KIND_READ_DELETED)
        return false;
    if (!locate(fdc, &offset)) {
        fail(fdc, 0, 0);
        return true;
    }
    regs->st2 |= ST2_CONTROL_MARK;
    if (!(regs->bytes[0] & COMMAND_SKIP))
        return false;
    finish(fdc, 0, 0, 0);
    return true;
}

static void start_sector(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    uint64_t offset;
    if (is_marked(fdc))
        return;
    if (to_disk(fdc) && !regs->header && !locate(fdc, &offset)) {
        fail(fdc, 0, 0);
    } else if (to_disk(fdc)) {
        ask_host(fdc);
    } else {
        regs->step = STEP_READ;
        ask_disk(fdc);
    }
}

/* READ TRACK begins at the index hole. */
static void rewind_track(struct fdc *fdc)
{
    fdc->regs.drives[fdc->regs.unit % FDC_DRIVES].passed = 0;
}

/* FORMAT TRACK and FORMAT AND WRITE: as many sectors as the image's tracks have, or none. */
static bool can_format(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    unsigned cylinder;
    const struct floppy_format *format = track(fdc, regs->unit, &cylinder);
    return format && regs->bytes[2] == SIZE_512 && regs->bytes[3] == format->sectors;
}

static void set_parameters(struct fdc *fdc, enum fdc_kind kind)
{
    struct fdc_regs *regs = &fdc->regs;
    bool format = kind == KIND_FORMAT || kind == KIND_FORMAT_WRITE;
    regs->kind = (uint8_t)kind;
    regs->phase = PHASE_EXECUTION;
    regs->polled = 0;
    regs->unit = (uint8_t)fdc_selected(fdc);
    regs->head = regs->bytes[1] & UNIT_HEAD ? 1 : 0;
    regs->st0 = regs->bytes[1] & UNIT_MASK;
    regs->st1 = regs->st2 = 0;
    regs->wrote = regs->ended = false;
    regs->header = format;
    regs->c = regs->bytes[2];
    regs->h = regs->bytes[3];
    regs->r = kind == KIND_READ_TRACK ? 1 : regs->bytes[4];
    regs->n = regs->bytes[5];
    regs->last_sector = regs->bytes[format ? 3 : 6];
    regs->left = kind == KIND_VERIFY ? regs->bytes[8] : regs->last_sector;
    if (!regs->left)
        regs->left = UINT8_MAX + 1;
    if (!format && regs->config & CONFIG_SEEKS && regs->c != regs->pcn[regs->st0]) {
        fdc_seek(fdc, regs->st0, regs->c);
        regs->st0 |= ST0_SEEK_END;
    }
    if (kind == KIND_READ_TRACK && regs->unit < FDC_DRIVES)
        rewind_track(fdc);
}

void fdc_transfer(struct fdc *fdc, enum fdc_kind kind)
{
    struct fdc_regs *regs = &fdc->regs;
    fdc->generation++;
    set_parameters(fdc, kind);
    const struct disk *disk = regs->unit < FDC_DRIVES ? fdc->disks[regs->unit] : NULL;
    if (!disk)
        fail(fdc, ST1_NO_MARK, 0);
    else if (to_disk(fdc) && disk->readonly)
        fail(fdc, ST1_PROTECTED, 0);
    else if (regs->header && !can_format(fdc))
        finish(fdc, ST0_ABNORMAL | ST0_EQUIPMENT, 0, 0);
    else
        start_sector(fdc);
}

/* --- what else may happen --------------------------------------------------------------------- */

void fdc_cancel(struct fdc *fdc)
{
    fdc->generation++;
    fdc->waiting = false;
    fdc->regs.kind = KIND_NONE;
    drop_request(fdc);
}

void fdc_lose_disk(struct fdc *fdc)
{
    fdc->regs.wrote = false;
    if (fdc->regs.step == STEP_FLUSH)
        conclude(fdc);
    else
        fail(fdc, ST1_NO_MARK, 0);
}

void fdc_resume(struct fdc *fdc)
{
    struct fdc_regs *regs = &fdc->regs;
    fdc->generation++;
    fdc->waiting = false;
    drop_request(fdc);
    if (regs->phase != PHASE_EXECUTION)
        return;
    if (regs->kind == KIND_NONE || regs->unit >= FDC_DRIVES)
        fdc_result(fdc, 0); /* no state of ours */
    else                    /* the disk, or the channel, is asked again when time goes on */
        timer_set(&fdc->timer,
                  by_dma(fdc) || regs->step != STEP_HOST ? device_now(&fdc->dev) : regs->deadline);
}
