/* The ATA command set (ATA8-ACS; section numbers below are of revision 4a); see ata.h. What is not
 * in the table of commands is aborted. Not claimed and not there: SMART, security, HPA, DCO, APM.
 */
#include "ata.h"

#include "atapi.h"

#include <errno.h>
#include <string.h>

/* Device register. */
enum { DEVICE_LBA = 0x40, DEVICE_FUA = 0x80, DEVICE_HEAD = 0x0f };
/* Answers of CHECK POWER MODE (7.2). */
enum { POWER_STANDBY = 0x00, POWER_IDLE = 0x80, POWER_ACTIVE = 0xff };
enum { MAX_MULTIPLE = 16, HEADS = 16, SECTORS = 63, MAX_CYLINDERS = 16383 };
enum { UDMA = 0x40, UDMA_BEST = 5, MWDMA = 0x20, NOT_QUEUED = 0x80, TAG = 0x1f };
#define LBA28_LIMIT UINT64_C(0x0fffffff)

const struct field drive_fields[] = {
    SAVED(struct drive_regs, failed_lba),
    SAVED(struct drive_regs, failed_count),
    SAVED(struct drive_regs, failed_tag),
    SAVED(struct drive_regs, failed_status),
    SAVED(struct drive_regs, failed_error),
    SAVED(struct drive_regs, queue_failed),
    SAVED_MAX(struct drive_regs, multiple, MAX_MULTIPLE),
    SAVED(struct drive_regs, transfer_mode),
    SAVED(struct drive_regs, power),
    SAVED_MAX(struct drive_regs, heads, HEADS),
    SAVED(struct drive_regs, sectors),
    SAVED(struct drive_regs, write_cache),
    SAVED(struct drive_regs, look_ahead),
    SAVED(struct drive_regs, soft_reset),
    SAVED(struct drive_regs, sense_key),
    SAVED(struct drive_regs, sense_code),
    SAVED(struct drive_regs, sense_qualifier),
    SAVED(struct drive_regs, attention),
    SAVED(struct drive_regs, media_event),
    SAVED(struct drive_regs, locked),
    SAVED(struct drive_regs, tray_open),
    SAVED_PAD(struct drive_regs, pad),
    SAVED_END,
};

static uint64_t sectors(const struct drive *drive)
{
    return drive->disk ? drive->disk->size / SECTOR : 0;
}

void ata_fail(struct job *job, uint8_t error)
{
    job->kind = JOB_DONE;
    job->taskfile.status = ATA_READY | ATA_ERROR;
    job->taskfile.error = error;
}

void ata_disk_failed(struct drive *drive, struct job *job, int error)
{
    if (drive->packet) {
        atapi_disk_failed(drive, job);
        return;
    }
    bool reads = job->kind == JOB_READ || job->kind == JOB_VERIFY;
    job->taskfile.lba = job->offset / SECTOR;
    ata_fail(job, reads ? ATA_UNCORRECTABLE : ATA_ABORTED);
    if (!reads && error != EROFS)
        job->taskfile.status |= ATA_FAULT;
}

void ata_log_failure(struct drive *drive, const struct job *job, unsigned tag)
{
    struct drive_regs *regs = drive->regs;
    regs->queue_failed = true;
    regs->failed_tag = (uint8_t)(job->queued ? tag & TAG : NOT_QUEUED);
    regs->failed_status = job->taskfile.status;
    regs->failed_error = job->taskfile.error;
    regs->failed_lba = job->taskfile.lba;
    regs->failed_count = job->taskfile.count;
}

/* --- resets ---------------------------------------------------------------------------------- */

void ata_reset(struct drive *drive)
{
    struct drive_regs *regs = drive->regs;
    regs->queue_failed = false;
    regs->soft_reset = false;
    regs->multiple = MAX_MULTIPLE;
    regs->heads = HEADS;
    regs->sectors = SECTORS;
    regs->power = POWER_ACTIVE;
    regs->write_cache = true;
    regs->look_ahead = true;
    regs->transfer_mode = UDMA | UDMA_BEST;
    if (drive->packet)
        atapi_reset(drive);
}

void ata_power_on(struct drive *drive)
{
    memset(drive->regs, 0, sizeof *drive->regs);
    ata_reset(drive);
}

void ata_signature(const struct drive *drive, struct taskfile *taskfile)
{
    *taskfile = (struct taskfile){
        .count = 1,
        .lba = drive->packet ? 0xeb1401 : 0x000001,
        .status = drive->packet ? 0 : ATA_READY,
        .error = 1, /* diagnostics passed */
    };
}

/* --- IDENTIFY (7.16, 7.17) ------------------------------------------------------------------- */

struct word {
    uint8_t at;
    uint16_t value;
};

static const struct word disk_words[] = {
    { 0, 0x0040 },  { 3, HEADS },    { 6, SECTORS },  { 47, 0x8000 | MAX_MULTIPLE },
    { 48, 0x4000 }, { 49, 0x0f00 },  { 50, 0x4000 },  { 53, 0x0007 },
    { 63, 0x0007 }, { 64, 0x0003 },  { 65, 120 },     { 66, 120 },
    { 67, 120 },    { 68, 120 },     { 75, 31 },      { 76, 0x0106 }, /* NCQ, both speeds */
    { 80, 0x01f0 }, { 82, 0x4068 },  { 83, 0x7400 },  { 84, 0x4060 },
    { 85, 0x4008 }, { 86, 0xb400 },  { 87, 0x4060 },  { 88, 0x003f },
    { 105, 8 },     { 106, 0x4000 }, { 119, 0x4000 }, { 120, 0x4000 },
    { 217, 1 },     { 222, 0x101f }, /* SSD; SATA */
};
static const struct word packet_words[] = {
    { 0, 0x85c0 },  { 49, 0x0f00 }, { 53, 0x0006 }, { 63, 0x0007 }, { 64, 0x0003 }, { 65, 120 },
    { 66, 120 },    { 67, 120 },    { 68, 120 },    { 76, 0x0006 }, { 80, 0x01f0 }, { 82, 0x4210 },
    { 83, 0x4000 }, { 84, 0x4000 }, { 85, 0x4210 }, { 87, 0x4000 }, { 88, 0x003f }, { 222, 0x101f },
};

static void put_word(struct drive *drive, unsigned at, uint64_t value)
{
    drive->data[2 * at] = (uint8_t)value;
    drive->data[2 * at + 1] = (uint8_t)(value >> 8);
}

static void add_word(struct drive *drive, unsigned at, unsigned bits)
{
    put_word(drive, at, (unsigned)(drive->data[2 * at] | drive->data[2 * at + 1] << 8) | bits);
}

static void put_number(struct drive *drive, unsigned at, uint64_t value, unsigned words)
{
    for (unsigned i = 0; i < words; i++)
        put_word(drive, at + i, value >> 16 * i);
}

/* ATA strings: padded with blanks, the first character in the high byte of a word. */
static void put_string(struct drive *drive, unsigned at, unsigned words, const char *text)
{
    size_t length = strlen(text);
    for (unsigned i = 0; i < 2 * words; i++)
        drive->data[(2 * at + i) ^ 1] = i < length ? (uint8_t)text[i] : ' ';
}

/* Words 255 of the data, and the last byte of logs: the sum of all 512 bytes is 0. */
static void put_checksum(struct drive *drive)
{
    uint8_t sum = 0;
    for (unsigned i = 0; i < SECTOR - 1; i++)
        sum = (uint8_t)(sum + drive->data[i]);
    drive->data[SECTOR - 1] = (uint8_t)-sum;
}

static void put_modes(struct drive *drive)
{
    uint8_t mode = drive->regs->transfer_mode;
    if ((mode & 0xf8) == UDMA)
        add_word(drive, 88, 0x100u << (mode & 7));
    else if ((mode & 0xf8) == MWDMA)
        add_word(drive, 63, 0x100u << (mode & 7));
}

static void put_geometry(struct drive *drive)
{
    const struct drive_regs *regs = drive->regs;
    uint64_t total = sectors(drive), track = MAX(regs->heads * regs->sectors, 1);
    uint64_t cylinders = MIN(total / track, MAX_CYLINDERS);
    put_word(drive, 1, MIN(total / (HEADS * SECTORS), MAX_CYLINDERS));
    put_word(drive, 54, cylinders);
    put_word(drive, 55, regs->heads);
    put_word(drive, 56, regs->sectors);
    put_number(drive, 57, cylinders * track, 2);
    put_number(drive, 60, MIN(total, LBA28_LIMIT), 2);
    put_number(drive, 100, total, 4);
}

static void identify(struct drive *drive, struct job *job)
{
    const struct word *words = drive->packet ? packet_words : disk_words;
    size_t count = drive->packet ? G_N_ELEMENTS(packet_words) : G_N_ELEMENTS(disk_words);
    memset(drive->data, 0, SECTOR);
    for (size_t i = 0; i < count; i++)
        put_word(drive, words[i].at, words[i].value);
    put_string(drive, 10, 10, drive->serial);
    put_string(drive, 23, 4, "1.0");
    put_string(drive, 27, 20, drive->packet ? "hv CD/DVD drive" : "hv disk");
    put_modes(drive);
    if (!drive->packet) {
        put_geometry(drive);
        if (drive->regs->multiple)
            put_word(drive, 59, 0x100u | drive->regs->multiple);
        add_word(drive, 85,
                 (drive->regs->write_cache ? 0x20u : 0) | (drive->regs->look_ahead ? 0x40u : 0));
        put_word(drive, 169, drive->disk && !drive->disk->readonly); /* TRIM */
    }
    put_word(drive, 255, 0x00a5);
    put_checksum(drive);
    job->kind = JOB_SEND;
    job->pio = true;
    job->data = SECTOR;
}

/* IDENTIFY DEVICE and READ SECTORS on a packet device: aborted, with the signature, by which old
 * software tells what is there (7.16.3). */
static void show_signature(struct drive *drive, struct job *job)
{
    ata_signature(drive, &job->taskfile);
    ata_fail(job, ATA_ABORTED);
}

/* --- transfers ------------------------------------------------------------------------------- */

enum command_flags {
    ON_DISK = 1,
    ON_CD = 2,
    EXT = 4, /* 48-bit registers */
    PIO = 8,
    MULTIPLE = 16,
    WRITE = 32,
    QUEUED = 64,
    FUA = 128,
    VERIFY = 256,
};

struct command {
    uint8_t opcode;
    uint16_t flags;
    void (*run)(struct drive *drive, struct job *job);
};

static const struct command *find(const struct drive *drive, uint8_t opcode);

/* The first sector; false when a CHS address has no meaning. */
static bool address(const struct drive *drive, const struct taskfile *t, unsigned flags,
                    uint64_t *lba)
{
    const struct drive_regs *regs = drive->regs;
    if (flags & (EXT | QUEUED)) {
        *lba = t->lba;
        return true;
    }
    *lba = (t->lba & 0xffffff) | (uint64_t)(t->device & DEVICE_HEAD) << 24;
    if (t->device & DEVICE_LBA)
        return true;
    unsigned sector = t->lba & 0xff, cylinder = t->lba >> 8 & 0xffff;
    unsigned head = t->device & DEVICE_HEAD;
    if (!sector || sector > regs->sectors || head >= regs->heads)
        return false;
    *lba = ((uint64_t)cylinder * regs->heads + head) * regs->sectors + sector - 1;
    return true;
}

static uint64_t sector_count(const struct taskfile *t, unsigned flags)
{
    if (flags & QUEUED)
        return t->features ? t->features : 65536;
    if (flags & EXT)
        return t->count ? t->count : 65536;
    return t->count & 0xff ? t->count & 0xff : 256;
}

/* All reads, writes and verifies (7.24 to 7.36, 7.63 to 7.74). */
static void transfer(struct drive *drive, struct job *job)
{
    const struct taskfile *t = &job->taskfile;
    unsigned flags = find(drive, t->command)->flags;
    uint64_t lba, count = sector_count(t, flags), total = sectors(drive);
    job->pio = flags & PIO;
    job->queued = flags & QUEUED;
    drive->regs->power = POWER_ACTIVE;
    if (flags & MULTIPLE && !drive->regs->multiple) {
        ata_fail(job, ATA_ABORTED);
        return;
    }
    if (!address(drive, t, flags, &lba) || lba > total || count > total - lba) {
        ata_fail(job, ATA_NOT_FOUND);
        return;
    }
    job->kind = flags & WRITE ? JOB_WRITE : flags & VERIFY ? JOB_VERIFY : JOB_READ;
    job->offset = lba * SECTOR;
    job->length = count * SECTOR;
    job->flush = flags & WRITE && (!drive->regs->write_cache || flags & FUA ||
                                   (flags & QUEUED && t->device & DEVICE_FUA));
    if (flags & WRITE && drive->disk->readonly)
        ata_fail(job, ATA_ABORTED);
}

static void flush(struct drive *drive, struct job *job)
{
    (void)drive;
    job->kind = JOB_FLUSH;
}

/* --- DATA SET MANAGEMENT (7.10) -------------------------------------------------------------- */

static void data_set_management(struct drive *drive, struct job *job)
{
    enum { TRIM = 1 };
    unsigned blocks = job->taskfile.count;
    if (job->taskfile.features != TRIM || !blocks || blocks > DRIVE_DATA / SECTOR ||
        drive->disk->readonly) {
        ata_fail(job, ATA_ABORTED);
        return;
    }
    job->kind = JOB_TAKE;
    job->data = blocks * SECTOR;
}

/* Range entry: 48 bits of address, 16 bits of length; length 0 is no entry. */
static void range_get(const struct drive *drive, unsigned range, uint64_t *lba, uint64_t *count)
{
    const uint8_t *entry = drive->data + 8 * range;
    *lba = ata_get32(entry) | (uint64_t)(entry[4] | entry[5] << 8) << 32;
    *count = (uint64_t)(entry[6] | entry[7] << 8);
}

void ata_discarded(struct drive *drive, struct job *job)
{
    uint64_t lba, count;
    job->kind = JOB_DONE;
    while (job->kind == JOB_DONE && job->range < job->data / 8) {
        range_get(drive, job->range++, &lba, &count);
        if (count)
            job->kind = JOB_DISCARD;
    }
    if (job->kind == JOB_DISCARD) {
        job->offset = lba * SECTOR;
        job->length = count * SECTOR;
    }
}

void ata_taken(struct drive *drive, struct job *job)
{
    uint64_t total = sectors(drive), lba, count;
    job->kind = JOB_DONE;
    if (drive->packet)
        return; /* MODE SELECT: nothing can be changed, nothing is wrong */
    for (unsigned i = 0; i < job->data / 8; i++) {
        range_get(drive, i, &lba, &count);
        if (count && (lba > total || count > total - lba)) {
            ata_fail(job, ATA_NOT_FOUND);
            return;
        }
    }
    ata_discarded(drive, job);
}

/* --- the other commands ---------------------------------------------------------------------- */

static void succeed(struct drive *drive, struct job *job)
{
    (void)drive, (void)job;
}

static void abort_always(struct drive *drive, struct job *job)
{
    (void)drive;
    ata_fail(job, ATA_ABORTED);
}

static void diagnose(struct drive *drive, struct job *job)
{
    ata_signature(drive, &job->taskfile); /* error 1: no error */
}

static void device_reset_command(struct drive *drive, struct job *job)
{
    ata_reset(drive);
    ata_signature(drive, &job->taskfile);
}

static void initialize_parameters(struct drive *drive, struct job *job)
{
    uint8_t count = (uint8_t)job->taskfile.count;
    if (!count) {
        ata_fail(job, ATA_ABORTED);
        return;
    }
    drive->regs->sectors = count;
    drive->regs->heads = (uint8_t)((job->taskfile.device & DEVICE_HEAD) + 1);
}

static void set_multiple(struct drive *drive, struct job *job)
{
    uint8_t count = (uint8_t)job->taskfile.count;
    if (count > MAX_MULTIPLE || count & (count - 1))
        ata_fail(job, ATA_ABORTED);
    else
        drive->regs->multiple = count;
}

static void read_native_max(struct drive *drive, struct job *job)
{
    bool ext = find(drive, job->taskfile.command)->flags & EXT;
    uint64_t last = sectors(drive) - 1;
    if (!ext)
        last = MIN(last, LBA28_LIMIT - 1);
    job->taskfile.lba = ext ? last : last & 0xffffff;
    job->taskfile.device = (uint8_t)(DEVICE_LBA | (ext ? 0 : last >> 24));
}

static void power(struct drive *drive, struct job *job)
{
    switch (job->taskfile.command) {
    case 0xe0: /* STANDBY IMMEDIATE, STANDBY, SLEEP: what was written reaches the medium */
    case 0xe2:
    case 0xe6:
        drive->regs->power = POWER_STANDBY;
        if (drive->disk)
            job->kind = JOB_FLUSH;
        break;
    case 0xe1: /* IDLE IMMEDIATE, IDLE */
    case 0xe3:
        drive->regs->power = POWER_IDLE;
        break;
    case 0xe5:
        job->taskfile.count = drive->regs->power;
        break;
    }
}

/* 7.15 READ LOG EXT: the directory (00h) and the NCQ error log (10h), a page each. */
static void read_log(struct drive *drive, struct job *job)
{
    enum { DIRECTORY = 0x00, NCQ_ERROR = 0x10 };
    struct drive_regs *regs = drive->regs;
    unsigned log = (unsigned)job->taskfile.lba & 0xff;
    unsigned page =
        (unsigned)(job->taskfile.lba >> 8 & 0xff) | (unsigned)(job->taskfile.lba >> 32 & 0xff) << 8;
    uint8_t *data = drive->data;
    if (job->taskfile.count != 1 || page || (log != DIRECTORY && log != NCQ_ERROR)) {
        ata_fail(job, ATA_ABORTED);
        return;
    }
    memset(data, 0, SECTOR);
    if (log == DIRECTORY) {
        put_word(drive, 0, 1);
        put_word(drive, NCQ_ERROR, 1);
    } else {
        data[0] = regs->failed_tag;
        data[2] = regs->failed_status;
        data[3] = regs->failed_error;
        for (unsigned i = 0; i < 3; i++) {
            data[4 + i] = (uint8_t)(regs->failed_lba >> 8 * i);
            data[8 + i] = (uint8_t)(regs->failed_lba >> (24 + 8 * i));
        }
        data[7] = DEVICE_LBA;
        data[12] = (uint8_t)regs->failed_count;
        data[13] = (uint8_t)(regs->failed_count >> 8);
        put_checksum(drive);
        regs->queue_failed = false;
    }
    job->kind = JOB_SEND;
    job->pio = true;
    job->data = SECTOR;
}

static bool transfer_mode_known(uint8_t mode)
{
    return mode <= 1 || (mode >= 0x08 && mode <= 0x0c) || (mode >= MWDMA && mode <= MWDMA + 2) ||
           (mode >= UDMA && mode <= UDMA + UDMA_BEST);
}

/* 7.48 SET FEATURES. */
static void set_features(struct drive *drive, struct job *job)
{
    struct drive_regs *regs = drive->regs;
    uint8_t mode = (uint8_t)job->taskfile.count;
    switch (job->taskfile.features & 0xff) {
    case 0x03:
        if (transfer_mode_known(mode))
            regs->transfer_mode = mode;
        else
            ata_fail(job, ATA_ABORTED);
        break;
    case 0x66: /* power-on defaults after a software reset: off, on */
    case 0xcc:
        break;
    case 0x02:
    case 0x82: /* cached data reaches the medium before the cache is off */
        if (drive->packet) {
            ata_fail(job, ATA_ABORTED);
            break;
        }
        regs->write_cache = !(job->taskfile.features & 0x80);
        job->kind = regs->write_cache ? JOB_DONE : JOB_FLUSH;
        break;
    case 0xaa:
    case 0x55:
        regs->look_ahead = (job->taskfile.features & 0xff) == 0xaa;
        break;
    default:
        ata_fail(job, ATA_ABORTED);
    }
}

static void packet(struct drive *drive, struct job *job)
{
    (void)drive;
    job->kind = JOB_PACKET;
    job->pio = !(job->taskfile.features & 1);
}

static const struct command commands[] = {
    { 0x00, ON_DISK | ON_CD, abort_always }, /* NOP */
    { 0x06, ON_DISK, data_set_management },
    { 0x08, ON_CD, device_reset_command },
    { 0x10, ON_DISK, succeed }, /* RECALIBRATE */
    { 0x20, ON_DISK | PIO, transfer },
    { 0x20, ON_CD, show_signature },
    { 0x21, ON_DISK | PIO, transfer },
    { 0x24, ON_DISK | PIO | EXT, transfer },
    { 0x25, ON_DISK | EXT, transfer },
    { 0x27, ON_DISK | EXT, read_native_max },
    { 0x29, ON_DISK | PIO | EXT | MULTIPLE, transfer },
    { 0x2f, ON_DISK | EXT, read_log },
    { 0x30, ON_DISK | WRITE | PIO, transfer },
    { 0x31, ON_DISK | WRITE | PIO, transfer },
    { 0x34, ON_DISK | WRITE | PIO | EXT, transfer },
    { 0x35, ON_DISK | WRITE | EXT, transfer },
    { 0x39, ON_DISK | WRITE | PIO | EXT | MULTIPLE, transfer },
    { 0x3d, ON_DISK | WRITE | EXT | FUA, transfer },
    { 0x40, ON_DISK | VERIFY, transfer },
    { 0x41, ON_DISK | VERIFY, transfer },
    { 0x42, ON_DISK | VERIFY | EXT, transfer },
    { 0x60, ON_DISK | QUEUED, transfer },
    { 0x61, ON_DISK | QUEUED | WRITE, transfer },
    { 0x70, ON_DISK, succeed }, /* SEEK */
    { 0x90, ON_DISK | ON_CD, diagnose },
    { 0x91, ON_DISK, initialize_parameters },
    { 0xa0, ON_CD, packet },
    { 0xa1, ON_CD, identify },
    { 0xc4, ON_DISK | PIO | MULTIPLE, transfer },
    { 0xc5, ON_DISK | WRITE | PIO | MULTIPLE, transfer },
    { 0xc6, ON_DISK, set_multiple },
    { 0xc8, ON_DISK, transfer },
    { 0xc9, ON_DISK, transfer },
    { 0xca, ON_DISK | WRITE, transfer },
    { 0xcb, ON_DISK | WRITE, transfer },
    { 0xce, ON_DISK | WRITE | PIO | EXT | MULTIPLE | FUA, transfer },
    { 0xe0, ON_DISK | ON_CD, power },
    { 0xe1, ON_DISK | ON_CD, power },
    { 0xe2, ON_DISK | ON_CD, power },
    { 0xe3, ON_DISK | ON_CD, power },
    { 0xe5, ON_DISK | ON_CD, power },
    { 0xe6, ON_DISK | ON_CD, power },
    { 0xe7, ON_DISK, flush },
    { 0xea, ON_DISK | EXT, flush },
    { 0xec, ON_DISK, identify },
    { 0xec, ON_CD, show_signature },
    { 0xef, ON_DISK | ON_CD, set_features },
    { 0xf8, ON_DISK, read_native_max },
};

static const struct command *find(const struct drive *drive, uint8_t opcode)
{
    unsigned on = drive->packet ? ON_CD : ON_DISK;
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        if (commands[i].opcode == opcode && commands[i].flags & on)
            return &commands[i];
    return NULL;
}

void ata_command(struct drive *drive, struct job *job)
{
    const struct command *command = find(drive, job->taskfile.command);
    bool reads_log = job->taskfile.command == 0x2f;
    job->kind = JOB_DONE;
    job->taskfile.status = ATA_READY;
    job->taskfile.error = 0;
    if (!command || (drive->regs->queue_failed && !reads_log))
        ata_fail(job, ATA_ABORTED);
    else
        command->run(drive, job);
}
