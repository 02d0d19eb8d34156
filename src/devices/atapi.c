/* The packet commands of a CD/DVD-ROM drive: MMC-6, with SPC-3 for what all drives do; see atapi.h.
 * A medium is data in one session of one track with blocks of 2048 bytes; one larger than a CD can
 * be is a DVD. No audio. Replies are made in drive->data, zeroed before each. */
#include "atapi.h"

#include <string.h>

/* Sense keys and additional sense codes, as key << 16 | code << 8 | qualifier (MMC-6 annex F). */
enum {
    NO_MEDIUM = 0x023a01,
    NO_MEDIUM_OPEN = 0x023a02,
    READ_FAILED = 0x031100,
    BAD_OPCODE = 0x052000,
    OUT_OF_RANGE = 0x052100,
    BAD_FIELD = 0x052400,
    NO_SAVED_PAGES = 0x053900,
    WRONG_MEDIUM = 0x053002,
    REMOVAL_PREVENTED = 0x055302,
    BAD_MODE = 0x056400,
    ATTENTION = 0x060000,
};
enum { MEDIUM_CHANGED = 0x28, WAS_RESET = 0x29 }; /* unit attentions */
enum { EVENT_NEW = 2, EVENT_REMOVED = 3 };
enum {
    CD_BLOCKS = 449850,
    LEAD_OUT = 0xaa,
    DATA_TRACK = 0x14,
    PROFILE_CD = 0x08,
    PROFILE_DVD = 0x10,
    MSF_OFFSET = 150
};

static unsigned get16(const uint8_t *at)
{
    return (unsigned)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static void put16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value & 0xffff);
}

static void set_sense(struct drive *drive, uint32_t sense)
{
    drive->regs->sense_key = (uint8_t)(sense >> 16);
    drive->regs->sense_code = (uint8_t)(sense >> 8);
    drive->regs->sense_qualifier = (uint8_t)sense;
}

static void check(struct drive *drive, struct job *job, uint32_t sense)
{
    set_sense(drive, sense);
    ata_fail(job, (uint8_t)(drive->regs->sense_key << 4 | ATA_ABORTED));
}

static void send(struct job *job, unsigned length, unsigned allocated)
{
    job->data = MIN(length, allocated);
    job->kind = job->data ? JOB_SEND : JOB_DONE;
}

static bool has_medium(const struct drive *drive)
{
    return drive->disk && !drive->regs->tray_open;
}

static uint32_t blocks(const struct drive *drive)
{
    return has_medium(drive) ? (uint32_t)MIN(drive->disk->size / CD_BLOCK, UINT32_MAX) : 0;
}

static unsigned profile(const struct drive *drive)
{
    if (!has_medium(drive))
        return 0;
    return blocks(drive) > CD_BLOCKS ? PROFILE_DVD : PROFILE_CD;
}

/* A block's address as a reply holds it: a number, or minute, second, frame (MMC-6 table 2). */
static void put_address(uint8_t *at, uint32_t block, bool msf)
{
    uint64_t frames = (uint64_t)block + MSF_OFFSET;
    if (!msf) {
        put32(at, block);
        return;
    }
    at[0] = 0;
    at[1] = (uint8_t)MIN(frames / 75 / 60, 255);
    at[2] = (uint8_t)(frames / 75 % 60);
    at[3] = (uint8_t)(frames % 75);
}

/* --- state ----------------------------------------------------------------------------------- */

void atapi_reset(struct drive *drive)
{
    set_sense(drive, 0);
    drive->regs->attention = WAS_RESET;
    drive->regs->locked = false;
}

void atapi_change_medium(struct drive *drive, struct disk *disk)
{
    bool had = drive->disk;
    drive->disk = disk;
    if (disk) {
        drive->regs->tray_open = false;
        drive->regs->attention = MEDIUM_CHANGED;
        drive->regs->media_event = EVENT_NEW;
    } else if (had && !drive->regs->tray_open) {
        drive->regs->media_event = EVENT_REMOVED;
    }
}

void atapi_disk_failed(struct drive *drive, struct job *job)
{
    check(drive, job, READ_FAILED);
}

/* --- what all devices answer (SPC-3) --------------------------------------------------------- */

static void succeed(struct drive *drive, struct job *job, const uint8_t *packet)
{
    (void)drive, (void)job, (void)packet;
}

static void request_sense(struct drive *drive, struct job *job, const uint8_t *packet)
{
    struct drive_regs *regs = drive->regs;
    if (!regs->sense_key && regs->attention) {
        set_sense(drive, ATTENTION | (uint32_t)regs->attention << 8);
        regs->attention = 0;
    }
    drive->data[0] = 0x70;
    drive->data[2] = regs->sense_key & 0xf;
    drive->data[7] = 10;
    drive->data[12] = regs->sense_code;
    drive->data[13] = regs->sense_qualifier;
    set_sense(drive, 0);
    send(job, 18, packet[4]);
}

static void inquiry(struct drive *drive, struct job *job, const uint8_t *packet)
{
    static const uint8_t head[] = { 0x05, 0x80, 0x05, 0x32, 31 };
    enum { VITAL = 1, PAGES = 0x00, SERIAL = 0x80, LENGTH = 36 };
    unsigned allocated = get16(packet + 3);
    uint8_t *data = drive->data;
    if (!(packet[1] & VITAL)) {
        memcpy(data, head, sizeof head);
        memcpy(data + 8, "hv      CD/DVD drive    1.0 ", LENGTH - 8);
        send(job, LENGTH, allocated);
        return;
    }
    data[0] = 0x05;
    data[1] = packet[2];
    if (packet[2] == PAGES) {
        data[3] = 2;
        data[5] = SERIAL;
        send(job, 6, allocated);
    } else if (packet[2] == SERIAL) {
        data[3] = DRIVE_SERIAL;
        memset(data + 4, ' ', DRIVE_SERIAL);
        memcpy(data + 4, drive->serial, strlen(drive->serial));
        send(job, 4 + DRIVE_SERIAL, allocated);
    } else {
        check(drive, job, BAD_FIELD);
    }
}

/* MMC-6 7: mode pages. Nothing in them can be changed. */
static const uint8_t mode_pages[][24] = {
    { 0x01, 0x0a },
    { 0x0e, 0x0e, 0x04 },
    { 0x2a, 0x14, 0x0b, 0x00, 0x70, 0x00, 0x29, 0x00, 0x16, 0x00, 0, 0, 0x02, 0x00, 0x16, 0x00 },
};

static void mode_sense(struct drive *drive, struct job *job, const uint8_t *packet)
{
    enum { CHANGEABLE = 1, SAVED_VALUES = 3, ALL = 0x3f, CAPABILITIES = 0x2a, LOCK_STATE = 2 };
    bool ten = packet[0] == 0x5a;
    unsigned control = packet[2] >> 6, page = packet[2] & 0x3f, length = ten ? 8 : 4;
    unsigned head = length;
    if (control == SAVED_VALUES) {
        check(drive, job, NO_SAVED_PAGES);
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(mode_pages); i++) {
        const uint8_t *p = mode_pages[i];
        if (page != ALL && page != p[0])
            continue;
        memcpy(drive->data + length, p, control == CHANGEABLE ? 2 : p[1] + 2);
        if (p[0] == CAPABILITIES && control != CHANGEABLE && drive->regs->locked)
            drive->data[length + 6] |= LOCK_STATE;
        length += p[1] + 2u;
    }
    if (length == head) {
        check(drive, job, BAD_FIELD);
        return;
    }
    if (ten)
        put16(drive->data, length - 2);
    else
        drive->data[0] = (uint8_t)(length - 1);
    send(job, length, ten ? get16(packet + 7) : packet[4]);
}

static void mode_select(struct drive *drive, struct job *job, const uint8_t *packet)
{
    unsigned length = packet[0] == 0x55 ? get16(packet + 7) : packet[4];
    if (length > DRIVE_DATA) {
        check(drive, job, BAD_FIELD);
        return;
    }
    job->data = length;
    job->kind = length ? JOB_TAKE : JOB_DONE;
}

/* --- the tray -------------------------------------------------------------------------------- */

static void start_stop(struct drive *drive, struct job *job, const uint8_t *packet)
{
    enum { LOAD_EJECT = 2, START = 1, POWER_CONDITION = 0xf0 };
    struct drive_regs *regs = drive->regs;
    if (packet[4] & POWER_CONDITION || !(packet[4] & LOAD_EJECT))
        return;
    if (packet[4] & START) {
        regs->tray_open = false;
    } else if (regs->locked) {
        check(drive, job, REMOVAL_PREVENTED);
    } else if (!regs->tray_open) {
        regs->tray_open = true;
        job->eject = drive->disk;
        if (drive->disk)
            regs->media_event = EVENT_REMOVED;
    }
}

static void prevent_allow(struct drive *drive, struct job *job, const uint8_t *packet)
{
    (void)job;
    drive->regs->locked = packet[4] & 1;
}

/* MMC-6 6.6: the media class only. */
static void event_status(struct drive *drive, struct job *job, const uint8_t *packet)
{
    enum { POLLED = 1, MEDIA_BIT = 0x10, MEDIA = 4, NO_EVENT = 0x80, TRAY = 1, PRESENT = 2 };
    struct drive_regs *regs = drive->regs;
    uint8_t *data = drive->data;
    if (!(packet[1] & POLLED)) {
        check(drive, job, BAD_FIELD);
        return;
    }
    bool media = packet[4] & MEDIA_BIT;
    put16(data, media ? 6 : 2);
    data[2] = media ? MEDIA : NO_EVENT;
    data[3] = MEDIA_BIT;
    if (media) {
        data[4] = regs->media_event;
        data[5] = (uint8_t)((regs->tray_open ? TRAY : 0) | (has_medium(drive) ? PRESENT : 0));
        regs->media_event = 0;
    }
    send(job, media ? 8 : 4, get16(packet + 7));
}

static void mechanism_status(struct drive *drive, struct job *job, const uint8_t *packet)
{
    enum { DOOR_OPEN = 0x10 };
    drive->data[1] = drive->regs->tray_open ? DOOR_OPEN : 0;
    send(job, 8, get16(packet + 8));
}

/* --- what the drive and the medium are ------------------------------------------------------- */

/* MMC-6 5.3: a feature's code, flags (version, persistent, current) and data. */
struct feature {
    uint16_t code;
    uint8_t flags, length;
    uint8_t data[8];
    uint8_t profile; /* current only with this one; 0: as the flags say */
};
static const struct feature features[] = {
    { 0x0000, 0x03, 8, { 0, PROFILE_DVD, 0, 0, 0, PROFILE_CD, 0, 0 }, 0 },
    { 0x0001, 0x0b, 8, { 0, 0, 0, 7, 1 }, 0 },          /* core: SATA */
    { 0x0003, 0x03, 4, { 0x29 }, 0 },                   /* removable medium: tray, eject, lock */
    { 0x0010, 0x00, 8, { 0, 0, 8, 0, 0, 1, 0 }, 0xff }, /* random readable, with any medium */
    { 0x001e, 0x08, 4, { 0 }, PROFILE_CD },             /* CD read */
    { 0x001f, 0x08, 4, { 0 }, PROFILE_DVD },            /* DVD read */
    { 0x0100, 0x03, 0, { 0 }, 0 },                      /* power management */
};

static unsigned put_feature(const struct drive *drive, uint8_t *at, const struct feature *f)
{
    enum { CURRENT = 1 };
    unsigned now = profile(drive);
    bool current = f->profile == 0xff ? now != 0 : now && f->profile == now;
    put16(at, f->code);
    at[2] = (uint8_t)(f->flags | (current ? CURRENT : 0));
    at[3] = f->length;
    memcpy(at + 4, f->data, f->length);
    for (unsigned i = 0; f->code == 0 && i < f->length; i += 4)
        at[4 + i + 2] = now && f->data[i + 1] == now;
    return 4u + f->length;
}

static void get_configuration(struct drive *drive, struct job *job, const uint8_t *packet)
{
    enum { ALL, ONLY_CURRENT, ONE, CURRENT = 1, HEAD = 8 };
    unsigned type = packet[1] & 3, from = get16(packet + 2), length = HEAD;
    if (type > ONE) {
        check(drive, job, BAD_FIELD);
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(features); i++) {
        const struct feature *f = &features[i];
        uint8_t *at = drive->data + length;
        if (type == ONE ? f->code != from : f->code < from)
            continue;
        unsigned size = put_feature(drive, at, f);
        if (type != ONLY_CURRENT || at[2] & CURRENT)
            length += size;
        else
            memset(at, 0, size);
    }
    put32(drive->data, length - 4);
    put16(drive->data + 6, profile(drive));
    send(job, length, get16(packet + 7));
}

static void read_capacity(struct drive *drive, struct job *job, const uint8_t *packet)
{
    (void)packet;
    put32(drive->data, blocks(drive) - 1);
    put32(drive->data + 4, CD_BLOCK);
    send(job, 8, 8);
}

/* Format 2 of READ TOC: the entries of the lead-in, as POINT with its address. */
static unsigned full_toc(struct drive *drive)
{
    static const uint8_t points[] = { 0xa0, 0xa1, 0xa2, 1 };
    uint8_t *at = drive->data + 4;
    for (size_t i = 0; i < G_N_ELEMENTS(points); i++, at += 11) {
        uint8_t address[4];
        at[0] = 1;
        at[1] = DATA_TRACK;
        at[3] = points[i];
        put_address(address, points[i] == 0xa2 ? blocks(drive) : 0, true);
        memcpy(at + 8, address + 1, 3);
        if (points[i] < 0xa2 && points[i] > 1) { /* the first and last track's number */
            at[8] = 1;
            at[9] = at[10] = 0;
        }
    }
    return (unsigned)(at - drive->data);
}

static unsigned toc(struct drive *drive, unsigned from, bool msf)
{
    uint8_t *at = drive->data + 4;
    if (from <= 1) {
        at[1] = DATA_TRACK;
        at[2] = 1;
        put_address(at + 4, 0, msf);
        at += 8;
    }
    at[1] = DATA_TRACK;
    at[2] = LEAD_OUT;
    put_address(at + 4, blocks(drive), msf);
    return (unsigned)(at + 8 - drive->data);
}

static void read_toc(struct drive *drive, struct job *job, const uint8_t *packet)
{
    bool msf = packet[1] & 2;
    unsigned format = packet[2] & 0xf ? packet[2] & 0xf : packet[9] >> 6, length;
    if (format > 2 || (format == 0 && packet[6] > 1 && packet[6] != LEAD_OUT)) {
        check(drive, job, BAD_FIELD);
        return;
    }
    if (format == 0) {
        length = toc(drive, packet[6], msf);
    } else if (format == 1) { /* sessions: the first track of the last one */
        drive->data[5] = DATA_TRACK;
        drive->data[6] = 1;
        put_address(drive->data + 8, 0, msf);
        length = 12;
    } else {
        length = full_toc(drive);
    }
    put16(drive->data, length - 2);
    drive->data[2] = drive->data[3] = 1;
    send(job, length, get16(packet + 7));
}

static void read_disc_information(struct drive *drive, struct job *job, const uint8_t *packet)
{
    enum { COMPLETE = 0x0e, LENGTH = 34 };
    uint8_t *data = drive->data;
    if (packet[1] & 7) {
        check(drive, job, BAD_FIELD);
        return;
    }
    put16(data, LENGTH - 2);
    data[2] = COMPLETE;
    data[3] = data[4] = data[5] = data[6] = 1;
    data[7] = 0x20;
    memset(data + 16, 0xff, 8);
    send(job, LENGTH, get16(packet + 7));
}

static void read_track_information(struct drive *drive, struct job *job, const uint8_t *packet)
{
    enum { BY_BLOCK, BY_TRACK, BY_SESSION, LENGTH = 36 };
    unsigned type = packet[1] & 3;
    uint32_t number = get32(packet + 2);
    uint8_t *data = drive->data;
    bool known = type == BY_BLOCK ? number < blocks(drive) : type <= BY_SESSION && number == 1;
    if (!known) {
        check(drive, job, BAD_FIELD);
        return;
    }
    put16(data, LENGTH - 2);
    data[2] = data[3] = 1;
    data[5] = 4;
    data[6] = 1;
    put32(data + 24, blocks(drive));
    send(job, LENGTH, get16(packet + 7));
}

static void read_subchannel(struct drive *drive, struct job *job, const uint8_t *packet)
{
    enum { SUB_Q = 0x40, POSITION = 1, CATALOG = 2, TRACK_CODE = 3, NO_AUDIO = 0x15 };
    bool wanted = packet[2] & SUB_Q;
    unsigned format = packet[3], length = 4;
    if (wanted && (format < POSITION || format > TRACK_CODE)) {
        check(drive, job, BAD_FIELD);
        return;
    }
    drive->data[1] = NO_AUDIO;
    if (wanted) {
        length = format == POSITION ? 16 : 24;
        drive->data[4] = (uint8_t)format;
        drive->data[5] = format == CATALOG ? 0 : DATA_TRACK;
        drive->data[6] = format == CATALOG ? 0 : 1;
        if (format == POSITION) {
            drive->data[7] = 1;
            put_address(drive->data + 8, 0, packet[1] & 2);
        }
    }
    put16(drive->data + 2, length - 4);
    send(job, length, get16(packet + 7));
}

static void read_dvd_structure(struct drive *drive, struct job *job, const uint8_t *packet)
{
    enum { PHYSICAL, COPYRIGHT, FIRST_SECTOR = 0x30000 };
    uint8_t *data = drive->data;
    if (profile(drive) != PROFILE_DVD) {
        check(drive, job, WRONG_MEDIUM);
        return;
    }
    if (packet[7] > COPYRIGHT || packet[6]) {
        check(drive, job, BAD_FIELD);
        return;
    }
    unsigned length = packet[7] == PHYSICAL ? 4 + 2048 : 8;
    put16(data, length - 2);
    if (packet[7] == PHYSICAL) {
        data[4] = 0x01; /* DVD-ROM, version 1; 120 mm, 10 Mbit/s; one embossed layer */
        data[5] = 0x02;
        data[6] = 0x01;
        put32(data + 8, FIRST_SECTOR);
        put32(data + 12, FIRST_SECTOR + blocks(drive) - 1);
    }
    send(job, length, get16(packet + 8));
}

/* --- reading --------------------------------------------------------------------------------- */

static void read_blocks(struct drive *drive, struct job *job, uint32_t from, uint32_t count)
{
    uint32_t total = blocks(drive);
    if (from > total || count > total - from) {
        check(drive, job, OUT_OF_RANGE);
        return;
    }
    job->offset = (uint64_t)from * CD_BLOCK;
    job->length = (uint64_t)count * CD_BLOCK;
    job->kind = count ? JOB_READ : JOB_DONE;
}

static void read_10(struct drive *drive, struct job *job, const uint8_t *packet)
{
    read_blocks(drive, job, get32(packet + 2), get16(packet + 7));
}

static void read_12(struct drive *drive, struct job *job, const uint8_t *packet)
{
    read_blocks(drive, job, get32(packet + 2), get32(packet + 6));
}

/* MMC-6 6.15: the user data of mode 1 sectors; no headers, no sub-channels. */
static void read_cd(struct drive *drive, struct job *job, const uint8_t *packet)
{
    enum { ANY_TYPE, MODE_1 = 2, USER_DATA = 0x10 };
    unsigned type = packet[1] >> 2 & 7;
    uint32_t count = (uint32_t)packet[6] << 16 | get16(packet + 7);
    if ((type != ANY_TYPE && type != MODE_1) || packet[10] & 7)
        check(drive, job, BAD_MODE);
    else if ((packet[9] & 0xfe) == 0)
        read_blocks(drive, job, get32(packet + 2), 0);
    else if ((packet[9] & 0xfe) == USER_DATA)
        read_blocks(drive, job, get32(packet + 2), count);
    else
        check(drive, job, BAD_FIELD);
}

static void seek(struct drive *drive, struct job *job, const uint8_t *packet)
{
    if (get32(packet + 2) >= blocks(drive))
        check(drive, job, OUT_OF_RANGE);
}

/* --- the table ------------------------------------------------------------------------------- */

enum { MEDIUM = 1, ALWAYS = 2 /* answered while a unit attention waits */ };

static const struct packet_command {
    uint8_t opcode, flags;
    void (*run)(struct drive *drive, struct job *job, const uint8_t *packet);
} commands[] = {
    { 0x00, MEDIUM, succeed }, /* TEST UNIT READY */
    { 0x03, ALWAYS, request_sense },
    { 0x12, ALWAYS, inquiry },
    { 0x15, 0, mode_select },
    { 0x1a, 0, mode_sense },
    { 0x1b, 0, start_stop },
    { 0x1e, 0, prevent_allow },
    { 0x25, MEDIUM, read_capacity },
    { 0x28, MEDIUM, read_10 },
    { 0x2b, MEDIUM, seek },
    { 0x42, MEDIUM, read_subchannel },
    { 0x43, MEDIUM, read_toc },
    { 0x46, ALWAYS, get_configuration },
    { 0x4a, ALWAYS, event_status },
    { 0x51, MEDIUM, read_disc_information },
    { 0x52, MEDIUM, read_track_information },
    { 0x55, 0, mode_select },
    { 0x5a, 0, mode_sense },
    { 0xa8, MEDIUM, read_12 },
    { 0xad, MEDIUM, read_dvd_structure },
    { 0xbb, 0, succeed }, /* SET CD SPEED */
    { 0xbd, 0, mechanism_status },
    { 0xbe, MEDIUM, read_cd },
};

void atapi_command(struct drive *drive, struct job *job, const uint8_t packet[PACKET_SIZE])
{
    struct drive_regs *regs = drive->regs;
    const struct packet_command *command = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(commands) && !command; i++)
        if (commands[i].opcode == packet[0])
            command = &commands[i];
    job->kind = JOB_DONE;
    memset(drive->data, 0, sizeof drive->data);
    if (command && command->run == request_sense) {
        request_sense(drive, job, packet);
        return;
    }
    set_sense(drive, 0);
    if (!command) {
        check(drive, job, BAD_OPCODE);
    } else if (regs->attention && !(command->flags & ALWAYS)) {
        check(drive, job, ATTENTION | (uint32_t)regs->attention << 8);
        regs->attention = 0;
    } else if (command->flags & MEDIUM && !blocks(drive)) {
        check(drive, job, regs->tray_open ? NO_MEDIUM_OPEN : NO_MEDIUM);
    } else {
        command->run(drive, job, packet);
    }
}
