/* The floppy controller: resets and sense, seeks, reading and writing by DMA and without, what is
 * not found, formatting, changed disks, slow hosts, failing disks. */
#include "rig/rig.h"

#include <errno.h>
#include <string.h>

enum { DOR = 0x3f2, MSR = 0x3f4, DATA = 0x3f5, RATE = 0x3f7 };
enum { ON = 0x1c, SECTORS = 9, BUFFER = 0x8000 }; /* DOR: drive 0, its motor, DMA, no reset */
enum { ABNORMAL = 0x40, END = 0x80, NO_DATA = 4, PROTECTED = 2, NO_MARK = 1, OVERRUN = 0x10 };
enum { READ = 0xe6, WRITE = 0xc5, FORMAT = 0x4d, VERIFY = 0x56, READ_ID = 0x4a };

struct fixture {
    struct rig *rig;
    uint8_t result[32];
};

static void command(struct rig *rig, const uint8_t *bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        g_assert_cmphex(rig_in(rig, MSR, 1) & 0xf0, ==, i ? 0x90 : 0x80);
        rig_out(rig, DATA, 1, bytes[i]);
    }
}
#define COMMAND(rig, ...)                                                                          \
    command(rig, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* Reads a result phase, which has so many bytes. */
static void result(struct fixture *f, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        g_assert_cmphex(rig_in(f->rig, MSR, 1) & 0xf0, ==, 0xd0);
        f->result[i] = (uint8_t)rig_in(f->rig, DATA, 1);
    }
    g_assert_cmphex(rig_in(f->rig, MSR, 1) & 0xf0, ==, 0x80);
}

static bool raised(struct fixture *f)
{
    return rig_line(f->rig, "irq")->level;
}

static void expect_sense(struct fixture *f, unsigned st0, unsigned cylinder)
{
    COMMAND(f->rig, 0x08);
    result(f, 2);
    g_assert_cmphex(f->result[0], ==, st0);
    g_assert_cmpuint(f->result[1], ==, cylinder);
}

static void expect_nothing(struct fixture *f)
{
    COMMAND(f->rig, 0x08);
    result(f, 1);
    g_assert_cmphex(f->result[0], ==, 0x80);
}

/* The seven bytes at the end of a transfer, with its interrupt. */
static void expect(struct fixture *f, unsigned st0, unsigned st1, unsigned st2, unsigned c,
                   unsigned h, unsigned r)
{
    g_assert_true(raised(f));
    result(f, 7);
    g_assert_false(raised(f));
    g_assert_cmphex(f->result[0], ==, st0);
    g_assert_cmphex(f->result[1], ==, st1);
    g_assert_cmphex(f->result[2], ==, st2);
    g_assert_cmpuint(f->result[3], ==, c);
    g_assert_cmpuint(f->result[4], ==, h);
    g_assert_cmpuint(f->result[5], ==, r);
    g_assert_cmpuint(f->result[6], ==, 2);
}

static uint8_t *sector(struct rig *rig, unsigned c, unsigned h, unsigned r)
{
    return rig->disk->data + ((c * 2 + h) * SECTORS + r - 1) * SECTOR;
}

static void seek(struct fixture *f, unsigned cylinder)
{
    COMMAND(f->rig, 0x0f, 0, (uint8_t)cylinder);
    expect_sense(f, 0x20, cylinder);
}

/* The chip runs at 250 kbit/s with DMA, the head is at track 0, each sector begins with its name.
 */
static void start(struct fixture *f)
{
    struct rig *rig = f->rig;
    for (unsigned c = 0; c < 80; c++)
        for (unsigned h = 0; h < 2; h++)
            for (unsigned r = 1; r <= SECTORS; r++) {
                uint8_t *at = sector(rig, c, h, r);
                memset(at, (int)(c + h + r), SECTOR);
                at[0] = (uint8_t)c, at[1] = (uint8_t)h, at[2] = (uint8_t)r;
            }
    rig_out(rig, DOR, 1, ON);
    for (unsigned i = 0; i < 4; i++)
        expect_sense(f, 0xc0 | i, 0);
    rig_out(rig, RATE, 1, 2);
    COMMAND(rig, 0x03, 0xaf, 0x02);
    COMMAND(rig, 0x07, 0);
    expect_sense(f, 0x20, 0);
}

static void set_up(struct fixture *f, const void *unused)
{
    (void)unused;
    f->rig = rig_new(device_class_find("fdc"), NULL);
}

static void tear_down(struct fixture *f, const void *unused)
{
    (void)unused;
    rig_disk_run(f->rig);
    g_assert_true(rig_round_trip(f->rig));
    rig_free(f->rig);
}

/* --- resets ----------------------------------------------------------------------------------- */

static void resets(struct fixture *f, const void *unused)
{
    (void)unused;
    g_assert_cmphex(rig_in(f->rig, MSR, 1), ==, 0); /* held in reset */
    g_assert_false(raised(f));
    rig_out(f->rig, DOR, 1, 0x04); /* without the gate, no interrupt is seen */
    g_assert_cmphex(rig_in(f->rig, MSR, 1), ==, 0x80);
    g_assert_false(raised(f));
    rig_out(f->rig, DOR, 1, 0x0c);
    g_assert_true(raised(f));
    for (unsigned i = 0; i < 4; i++) {
        expect_sense(f, 0xc0 | i, 0);
        g_assert_false(raised(f));
    }
    expect_nothing(f);
    rig_out(f->rig, MSR, 1, 0x82); /* DSR's reset ends by itself */
    g_assert_true(raised(f));
    expect_sense(f, 0xc0, 0);
    rig_out(f->rig, DOR, 1, 0x08);
    g_assert_false(raised(f));
    rig_out(f->rig, DATA, 1, 0x10);
    rig_out(f->rig, DOR, 1, 0x0c);
    g_assert_cmphex(rig_in(f->rig, MSR, 1), ==, 0x80); /* nothing is taken while it is held */
}

static void identity(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    COMMAND(f->rig, 0x10);
    result(f, 1);
    g_assert_cmphex(f->result[0], ==, 0x90);
    COMMAND(f->rig, 0x18);
    result(f, 1);
    g_assert_cmphex(f->result[0], ==, 0x01);
    static const uint8_t unknown[] = { 0x00, 0x01, 0x0b, 0x11, 0x1f, 0x5f, 0xd1 };
    for (size_t i = 0; i < sizeof unknown; i++) {
        COMMAND(f->rig, unknown[i]);
        result(f, 1);
        g_assert_cmphex(f->result[0], ==, 0x80);
    }
    g_assert_false(raised(f));
    g_assert_cmphex(rig_in(f->rig, 0x3f0, 1), ==, 0xff); /* no PS/2 */
}

static void dump(struct fixture *f, unsigned mode, unsigned config, unsigned track)
{
    COMMAND(f->rig, 0x0e);
    result(f, 10);
    g_assert_cmphex(f->result[7], ==, mode);
    g_assert_cmphex(f->result[8], ==, config);
    g_assert_cmphex(f->result[9], ==, track);
}

static void settings(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    dump(f, 0, 0x20, 0);
    g_assert_cmphex(f->result[4], ==, 0xaf);
    g_assert_cmphex(f->result[5], ==, 0x02);
    COMMAND(f->rig, 0x13, 0, 0x57, 0x11);
    COMMAND(f->rig, 0x12, 0x87); /* drive 0 is perpendicular; GAP, WGATE */
    dump(f, 0x07, 0x57, 0x11);
    COMMAND(f->rig, 0x12, 0x02); /* without OW the drives stay */
    dump(f, 0x06, 0x57, 0x11);
    rig_out(f->rig, MSR, 1, 0x82);
    dump(f, 0x04, 0x20, 0);
    COMMAND(f->rig, 0x13, 0, 0x57, 0x11);
    COMMAND(f->rig, 0x94);
    result(f, 1);
    g_assert_cmphex(f->result[0], ==, 0x10);
    rig_out(f->rig, MSR, 1, 0x82);
    dump(f, 0x84, 0x07, 0x11); /* the FIFO and its threshold are locked, implied seeks are not */
    COMMAND(f->rig, 0x14);
    result(f, 1);
    g_assert_cmphex(f->result[0], ==, 0);
}

/* SAVE, then RESTORE into a chip that was reset. */
static void save_restore(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    seek(f, 33);
    COMMAND(f->rig, 0x13, 0, 0x57, 0x11);
    COMMAND(f->rig, 0x2e);
    result(f, 16);
    uint8_t saved[17] = { 0x4e };
    memcpy(saved + 1, f->result, 16);
    rig_out(f->rig, MSR, 1, 0x80);
    command(f->rig, saved, 17);
    dump(f, 0, 0x57, 0x11);
    g_assert_cmpuint(f->result[0], ==, 33);
    /* DRIVE SPECIFICATION: one byte for each drive, then the end with or without a result. */
    COMMAND(f->rig, 0x8e, 0x05, 0x2a, 0x80);
    result(f, 4);
    g_assert_cmpmem(f->result, 4, "\x05\x0a\0\0", 4);
    COMMAND(f->rig, 0x8e, 0x00, 0xc0);
    g_assert_cmphex(rig_in(f->rig, MSR, 1), ==, 0x80);
    COMMAND(f->rig, 0x17, 0x05);
    result(f, 1);
    g_assert_cmphex(f->result[0], ==, 0x05);
}

/* --- heads ------------------------------------------------------------------------------------ */

static unsigned st3(struct fixture *f, unsigned drive)
{
    COMMAND(f->rig, 0x04, (uint8_t)drive);
    result(f, 1);
    return f->result[0];
}

static void heads(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    g_assert_cmphex(st3(f, 4), ==, 0x3c); /* track 0, head 1 */
    COMMAND(f->rig, 0x0f, 0, 40);
    g_assert_true(raised(f));
    g_assert_cmphex(rig_in(f->rig, MSR, 1), ==, 0x81); /* busy until it was sensed */
    expect_sense(f, 0x20, 40);
    g_assert_cmphex(rig_in(f->rig, MSR, 1), ==, 0x80);
    g_assert_cmphex(st3(f, 0), ==, 0x28);
    COMMAND(f->rig, 0xcf, 0, 5); /* relative, in and out */
    expect_sense(f, 0x20, 45);
    COMMAND(f->rig, 0x8f, 0, 10);
    expect_sense(f, 0x20, 35);
    COMMAND(f->rig, 0x07, 0);
    expect_sense(f, 0x20, 0);
    g_assert_cmphex(st3(f, 0), ==, 0x38);
    rig_out(f->rig, DOR, 1, 0x2d); /* no drive is there: track 0 is not found */
    COMMAND(f->rig, 0x07, 1);
    expect_sense(f, 0x71, 0);
    rig_out(f->rig, DOR, 1, 0x0c); /* nor is one selected whose motor is off */
    COMMAND(f->rig, 0x07, 0);
    expect_sense(f, 0x70, 0);
}

/* Two seeks end before they are sensed: two interrupts. */
static void overlapped(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    COMMAND(f->rig, 0x0f, 0, 3);
    COMMAND(f->rig, 0x0f, 1, 4);
    unsigned before = rig_line(f->rig, "irq")->rises;
    expect_sense(f, 0x20, 3);
    g_assert_cmpuint(rig_line(f->rig, "irq")->rises, ==, before + 1);
    expect_sense(f, 0x21, 4);
    g_assert_false(raised(f));
    expect_nothing(f);
}

/* --- reading ---------------------------------------------------------------------------------- */

static void read_command(struct fixture *f, unsigned c, unsigned h, unsigned r, unsigned last)
{
    COMMAND(f->rig, READ, (uint8_t)(h << 2), (uint8_t)c, (uint8_t)h, (uint8_t)r, 2, (uint8_t)last,
            0x1b, 0xff);
}

static void expect_memory(struct rig *rig, uint64_t at, const uint8_t *data, unsigned length)
{
    g_autofree uint8_t *seen = g_malloc(length);
    g_assert_true(guest_read(rig->board.guest, GPA(at), seen, length));
    g_assert_cmpmem(seen, length, data, length);
}

static void reads(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    seek(f, 7);
    rig_dma_program(f->rig, BUFFER, 3 * SECTOR);
    read_command(f, 7, 1, 2, SECTORS);
    g_assert_cmphex(rig_in(f->rig, MSR, 1), ==, 0x10);
    g_assert_false(raised(f));
    rig_disk_run(f->rig);
    expect(f, 0x04, 0, 0, 7, 1, 5);
    expect_memory(f->rig, BUFFER, sector(f->rig, 7, 1, 2), 3 * SECTOR);
    g_assert_cmpuint(f->rig->disk->submitted, ==, 3);
    /* A terminal count inside a sector: the rest of it does not reach the host. */
    guest_write(f->rig->board.guest, GPA(BUFFER), "\0\0\0\0", 4);
    rig_dma_program(f->rig, BUFFER, 3);
    read_command(f, 7, 1, 2, SECTORS);
    rig_disk_run(f->rig);
    expect(f, 0x04, 0, 0, 7, 1, 3);
    expect_memory(f->rig, BUFFER, (const uint8_t[]){ 7, 1, 2, 0 }, 4);
}

/* The table of results: where the sector after the last one is, by MT, head and EOT. */
static void next_ids(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    rig_dma_program(f->rig, BUFFER, SECTOR);
    read_command(f, 0, 0, 9, 9);
    rig_disk_run(f->rig);
    expect(f, 0x04, 0, 0, 0, 1, 1); /* MT: the other side */
    read_command(f, 0, 1, 9, 9);
    rig_disk_run(f->rig);
    expect(f, 0x00, 0, 0, 1, 0, 1);
    COMMAND(f->rig, READ & 0x7f, 0, 0, 0, 9, 2, 9, 0x1b, 0xff);
    rig_disk_run(f->rig);
    expect(f, 0x00, 0, 0, 1, 0, 1);
    /* A cylinder from end to end, with MT; one sector more is too much. */
    rig_dma_program(f->rig, BUFFER, 18 * SECTOR);
    read_command(f, 0, 0, 1, 9);
    rig_disk_run(f->rig);
    expect(f, 0x00, 0, 0, 1, 0, 1);
    expect_memory(f->rig, BUFFER, sector(f->rig, 0, 0, 1), 18 * SECTOR);
    rig_dma_program(f->rig, BUFFER, 19 * SECTOR);
    read_command(f, 0, 0, 1, 9);
    rig_disk_run(f->rig);
    expect(f, ABNORMAL, END, 0, 1, 0, 1);
}

static void not_found(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    read_command(f, 0, 0, 10, 10);
    expect(f, ABNORMAL, NO_DATA, 0, 0, 0, 10);
    read_command(f, 0, 0, 0, 10);
    expect(f, ABNORMAL, NO_DATA, 0, 0, 0, 0);
    read_command(f, 3, 0, 1, 9);
    expect(f, ABNORMAL, NO_DATA, 0x10, 3, 0, 1);
    COMMAND(f->rig, READ, 0, 0, 1, 1, 2, 9, 0x1b, 0xff); /* head 0 has no ID of head 1 */
    expect(f, ABNORMAL, NO_DATA, 0, 0, 1, 1);
    COMMAND(f->rig, READ & 0xbf, 0, 0, 0, 1, 2, 9, 0x1b, 0xff); /* FM */
    expect(f, ABNORMAL, NO_MARK, 0, 0, 0, 1);
    rig_out(f->rig, RATE, 1, 0); /* 500 kbit/s */
    read_command(f, 0, 0, 1, 9);
    expect(f, ABNORMAL, NO_MARK, 0, 0, 0, 1);
    rig_out(f->rig, RATE, 1, 2);
    seek(f, 82); /* beyond what is formatted */
    read_command(f, 82, 0, 1, 9);
    expect(f, ABNORMAL, NO_MARK, 0, 82, 0, 1);
    rig_out(f->rig, DOR, 1, 0x0c);
    read_command(f, 0, 0, 1, 9);
    expect(f, ABNORMAL, NO_MARK, 0, 0, 0, 1);
    g_assert_cmpuint(f->rig->disk->submitted, ==, 0);
}

static void implied_seek(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    COMMAND(f->rig, 0x13, 0, 0x57, 0);
    rig_dma_program(f->rig, BUFFER, SECTOR);
    read_command(f, 55, 0, 4, 9);
    rig_disk_run(f->rig);
    expect(f, 0x20, 0, 0, 55, 0, 5);
    expect_memory(f->rig, BUFFER, sector(f->rig, 55, 0, 4), SECTOR);
    g_assert_false(st3(f, 0) & 0x10);
}

static void read_id(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    seek(f, 12);
    for (unsigned i = 0; i < 2 * SECTORS; i++) { /* they come by one after the other */
        COMMAND(f->rig, READ_ID, 4);
        expect(f, 0x04, 0, 0, 12, 1, i % SECTORS + 1);
    }
    rig_out(f->rig, RATE, 1, 3);
    COMMAND(f->rig, READ_ID, 0);
    g_assert_true(raised(f));
    result(f, 7);
    g_assert_cmphex(f->result[0], ==, ABNORMAL);
    g_assert_cmphex(f->result[1], ==, NO_MARK);
}

static void read_track(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    rig_dma_program(f->rig, BUFFER, 65536);
    COMMAND(f->rig, READ_ID, 0); /* wherever the disk has turned to */
    result(f, 7);
    COMMAND(f->rig, 0x42, 0, 0, 0, 5, 2, 9, 0x1b, 0xff);
    rig_disk_run(f->rig);
    expect(f, 0, 0, 0, 0, 0, 10);
    expect_memory(f->rig, BUFFER, sector(f->rig, 0, 0, 1), 9 * SECTOR);
    /* IDs that do not fit are told, and read nevertheless. */
    rig_dma_program(f->rig, BUFFER, 65536);
    COMMAND(f->rig, 0x42, 0, 9, 0, 1, 2, 9, 0x1b, 0xff);
    rig_disk_run(f->rig);
    expect(f, 0, NO_DATA, 0, 9, 0, 10);
}

static void deleted(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    rig_dma_program(f->rig, BUFFER, 9 * SECTOR);
    COMMAND(f->rig, 0x4c, 0, 0, 0, 1, 2, 9, 0x1b, 0xff);
    rig_disk_run(f->rig);
    expect(f, 0, 0, 0x40, 0, 0, 1);
    expect_memory(f->rig, BUFFER, sector(f->rig, 0, 0, 1), SECTOR);
    COMMAND(f->rig, 0x6c, 0, 0, 0, 1, 2, 9, 0x1b, 0xff); /* SK: not even read */
    expect(f, 0, 0, 0x40, 0, 0, 1);
    g_assert_cmpuint(f->rig->disk->submitted, ==, 1);
}

static void verify(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    f->rig->dma.masked = true;
    COMMAND(f->rig, VERIFY, 0, 0, 0, 1, 2, 9, 0x1b, 0xff);
    rig_disk_run(f->rig);
    expect(f, 0, 0, 0, 1, 0, 1);
    g_assert_cmpuint(f->rig->disk->submitted, ==, 9);
    COMMAND(f->rig, VERIFY, 0x80, 0, 0, 1, 2, 9, 0x1b, 4); /* EC: so many sectors */
    rig_disk_run(f->rig);
    expect(f, 0, 0, 0, 0, 0, 5);
    COMMAND(f->rig, VERIFY, 0, 0, 0, 1, 2, 10, 0x1b, 0xff);
    rig_disk_run(f->rig);
    expect(f, ABNORMAL, NO_DATA, 0, 0, 0, 10);
    COMMAND(f->rig, VERIFY, 0x80, 0, 0, 1, 2, 9, 0x1b, 10);
    rig_disk_run(f->rig);
    expect(f, ABNORMAL, END, 0, 1, 0, 1);
    g_assert_false(f->rig->dma.requested);
}

/* --- writing ---------------------------------------------------------------------------------- */

static void write_command(struct fixture *f, unsigned c, unsigned h, unsigned r, unsigned last)
{
    COMMAND(f->rig, WRITE, (uint8_t)(h << 2), (uint8_t)c, (uint8_t)h, (uint8_t)r, 2, (uint8_t)last,
            0x1b, 0xff);
}

static void fill(struct rig *rig, uint8_t byte, unsigned length)
{
    g_autofree uint8_t *data = g_malloc(length);
    memset(data, byte, length);
    guest_write(rig->board.guest, GPA(BUFFER), data, length);
}

static void writes(struct fixture *f, const void *unused)
{
    uint8_t expected[SECTOR];
    (void)unused;
    start(f);
    seek(f, 79);
    fill(f->rig, 0xab, SECTOR + 100);
    rig_dma_program(f->rig, BUFFER, SECTOR + 100);
    write_command(f, 79, 1, 8, 9);
    for (unsigned i = 0; i < 2; i++) {
        g_assert_true(rig_disk_step(f->rig));
        g_assert_false(raised(f));
    }
    g_assert_cmpint(f->rig->disk->first->op, ==, DISK_FLUSH); /* before the guest hears of it */
    rig_disk_run(f->rig);
    expect(f, 0x00, 0, 0, 80, 0, 1);
    memset(expected, 0xab, sizeof expected);
    g_assert_cmpmem(sector(f->rig, 79, 1, 8), SECTOR, expected, SECTOR);
    memset(expected + 100, 0, sizeof expected - 100); /* what the host did not give is zeros */
    g_assert_cmpmem(sector(f->rig, 79, 1, 9), SECTOR, expected, SECTOR);
    g_assert_cmpuint(sector(f->rig, 79, 1, 7)[0], ==, 79);
}

static void write_protected(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    f->rig->disk->disk.readonly = true;
    g_assert_true(st3(f, 0) & 0x40);
    write_command(f, 0, 0, 1, 9);
    expect(f, ABNORMAL, PROTECTED, 0, 0, 0, 1);
    COMMAND(f->rig, FORMAT, 0, 2, 9, 0x50, 0xf6);
    g_assert_true(raised(f));
    result(f, 7);
    g_assert_cmphex(f->result[1], ==, PROTECTED);
    g_assert_cmpuint(f->rig->disk->submitted, ==, 0);
}

static void format(struct fixture *f, const void *unused)
{
    uint8_t ids[SECTORS][4];
    (void)unused;
    start(f);
    seek(f, 2);
    for (uint8_t i = 0; i < SECTORS; i++)
        memcpy(ids[i], (const uint8_t[]){ 2, 1, SECTORS - i, 2 }, 4);
    guest_write(f->rig->board.guest, GPA(BUFFER), ids, sizeof ids);
    rig_dma_program(f->rig, BUFFER, sizeof ids);
    COMMAND(f->rig, FORMAT, 4, 2, SECTORS, 0x50, 0xf6);
    rig_disk_run(f->rig);
    expect(f, 0x04, 0, 0, 2, 1, 1);
    for (unsigned i = 0; i < SECTORS * SECTOR; i++)
        g_assert_cmphex(sector(f->rig, 2, 1, 1)[i], ==, 0xf6);
    g_assert_cmphex(sector(f->rig, 2, 0, 9)[0], ==, 2);
    g_assert_cmphex(sector(f->rig, 3, 0, 1)[0], ==, 3);
    /* What the image cannot hold: another number of sectors, another cylinder's IDs. */
    COMMAND(f->rig, FORMAT, 4, 2, SECTORS + 1, 0x50, 0xf6);
    result(f, 7);
    g_assert_cmphex(f->result[0], ==, 0x54);
    ids[0][0] = 3;
    guest_write(f->rig->board.guest, GPA(BUFFER), ids, sizeof ids);
    rig_dma_program(f->rig, BUFFER, sizeof ids);
    COMMAND(f->rig, FORMAT, 4, 2, SECTORS, 0x50, 0x11);
    rig_disk_run(f->rig);
    result(f, 7);
    g_assert_cmphex(f->result[0], ==, 0x54);
    g_assert_cmphex(sector(f->rig, 2, 1, 9)[0], ==, 0xf6);
}

/* FORMAT AND WRITE: after each ID its data. */
static void format_write(struct fixture *f, const void *unused)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    (void)unused;
    start(f);
    for (uint8_t r = 1; r <= SECTORS; r++) {
        uint8_t bytes[SECTOR];
        memset(bytes, 0x30 + r, sizeof bytes);
        g_byte_array_append(data, (const uint8_t[]){ 0, 0, r, 2 }, 4);
        g_byte_array_append(data, bytes, sizeof bytes);
    }
    guest_write(f->rig->board.guest, GPA(BUFFER), data->data, data->len);
    rig_dma_program(f->rig, BUFFER, data->len);
    COMMAND(f->rig, 0xed, 0, 2, SECTORS, 0x50, 0xf6);
    rig_disk_run(f->rig);
    expect(f, 0, 0, 0, 0, 0, 9);
    for (unsigned r = 1; r <= SECTORS; r++)
        g_assert_cmphex(sector(f->rig, 0, 0, r)[511], ==, 0x30 + r);
}

/* --- without DMA ------------------------------------------------------------------------------ */

static void by_hand(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    COMMAND(f->rig, 0x03, 0xaf, 0x03);
    read_command(f, 0, 1, 8, 9);
    g_assert_cmphex(rig_in(f->rig, MSR, 1), ==, 0x30);
    for (unsigned r = 8; r <= 9; r++) {
        rig_disk_run(f->rig);
        g_assert_true(raised(f));
        g_assert_cmphex(rig_in(f->rig, MSR, 1), ==, 0xf0);
        for (unsigned i = 0; i < SECTOR; i++)
            g_assert_cmphex(rig_in(f->rig, DATA, 1), ==, sector(f->rig, 0, 1, r)[i]);
    }
    expect(f, ABNORMAL, END, 0, 1, 0, 1); /* nobody can give a terminal count */
    write_command(f, 0, 1, 9, 9);
    g_assert_cmphex(rig_in(f->rig, MSR, 1), ==, 0xb0);
    g_assert_cmphex(rig_in(f->rig, DATA, 1), ==, 0); /* the wrong way: nothing */
    for (unsigned i = 0; i < SECTOR; i++)
        rig_out(f->rig, DATA, 1, i & 0xff);
    g_assert_cmphex(rig_in(f->rig, MSR, 1), ==, 0x30);
    rig_disk_run(f->rig);
    expect(f, ABNORMAL, END, 0, 1, 0, 1);
    for (unsigned i = 0; i < SECTOR; i++)
        g_assert_cmphex(sector(f->rig, 0, 1, 9)[i], ==, i & 0xff);
}

/* --- what goes wrong -------------------------------------------------------------------------- */

static void slow_host(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    f->rig->dma.masked = true;
    read_command(f, 0, 0, 1, 9);
    rig_disk_run(f->rig);
    g_assert_true(f->rig->dma.requested);
    clock_advance(f->rig->board.clock, NS_PER_SECOND / 4, 0);
    g_assert_false(raised(f));
    rig_dma_program(f->rig, BUFFER, SECTOR); /* in time */
    clock_advance(f->rig->board.clock, 1, 0);
    expect(f, 0, 0, 0, 0, 0, 2);
    f->rig->dma.masked = true;
    read_command(f, 0, 0, 1, 9);
    rig_disk_run(f->rig);
    clock_advance(f->rig->board.clock, NS_PER_SECOND, 0);
    expect(f, ABNORMAL, OVERRUN, 0, 0, 0, 1);
    g_assert_false(f->rig->dma.requested);
    clock_advance(f->rig->board.clock, NS_PER_SECOND, 0);
    g_assert_false(raised(f));
}

static void disk_errors(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    f->rig->disk->fail = EIO;
    read_command(f, 0, 0, 1, 9);
    rig_disk_run(f->rig);
    expect(f, ABNORMAL, 0x20, 0x20, 0, 0, 1);
    write_command(f, 0, 0, 1, 9);
    rig_disk_run(f->rig);
    expect(f, ABNORMAL | 0x10, 0, 0, 0, 0, 1);
    f->rig->disk->fail = 0;
    rig_dma_program(f->rig, BUFFER, SECTOR);
    write_command(f, 0, 0, 1, 9);
    rig_disk_step(f->rig);
    f->rig->disk->fail = EIO; /* the flush: it is not on the disk */
    rig_disk_run(f->rig);
    expect(f, ABNORMAL | 0x10, 0, 0, 0, 0, 2);
}

/* A reset while the disk works: its answer is nobody's, and what comes next waits for it. */
static void reset_in_between(struct fixture *f, const void *unused)
{
    (void)unused;
    start(f);
    guest_write(f->rig->board.guest, GPA(BUFFER), "none", 4);
    read_command(f, 0, 0, 1, 9);
    rig_out(f->rig, DOR, 1, 0x18);
    rig_out(f->rig, DOR, 1, ON);
    for (unsigned i = 0; i < 4; i++)
        expect_sense(f, 0xc0 | i, 0);
    rig_dma_program(f->rig, BUFFER + SECTOR, SECTOR);
    read_command(f, 0, 1, 3, 9);
    g_assert_cmpuint(f->rig->disk->submitted, ==, 1);
    rig_disk_run(f->rig);
    g_assert_cmpuint(f->rig->disk->submitted, ==, 2);
    expect(f, 0x04, 0, 0, 0, 1, 4);
    expect_memory(f->rig, BUFFER, (const uint8_t *)"none", 4);
    expect_memory(f->rig, BUFFER + SECTOR, sector(f->rig, 0, 1, 3), SECTOR);
}

/* --- disks come and go ------------------------------------------------------------------------ */

static void change(struct rig *rig, struct disk *disk)
{
    g_mutex_lock(&rig->dev->lock);
    rig->dev->class->change_medium(rig->dev, 0, disk);
    g_mutex_unlock(&rig->dev->lock);
}

static void changed(struct fixture *f, const void *unused)
{
    (void)unused;
    rig_out(f->rig, DOR, 1, ON);
    g_assert_cmphex(rig_in(f->rig, RATE, 1), ==, 0x80);
    start(f);
    g_assert_cmphex(rig_in(f->rig, RATE, 1), ==, 0x80); /* at track 0: no step was needed */
    seek(f, 1);
    g_assert_cmphex(rig_in(f->rig, RATE, 1), ==, 0x00);
    change(f->rig, NULL);
    g_assert_cmphex(rig_in(f->rig, RATE, 1), ==, 0x80);
    seek(f, 2);
    g_assert_cmphex(rig_in(f->rig, RATE, 1), ==, 0x80); /* there is none */
    read_command(f, 2, 0, 1, 9);
    expect(f, ABNORMAL, NO_MARK, 0, 2, 0, 1);
    change(f->rig, &f->rig->disk->disk);
    g_assert_cmphex(rig_in(f->rig, RATE, 1), ==, 0x80);
    rig_out(f->rig, DOR, 1, 0x0c); /* a drive that is not selected says nothing */
    g_assert_cmphex(rig_in(f->rig, RATE, 1), ==, 0x00);
    rig_out(f->rig, DOR, 1, ON);
    seek(f, 1);
    g_assert_cmphex(rig_in(f->rig, RATE, 1), ==, 0x00);
    read_command(f, 1, 0, 1, 9); /* taken out in the middle */
    change(f->rig, NULL);
    expect(f, ABNORMAL, NO_MARK, 0, 1, 0, 1);
    change(f->rig, &f->rig->disk->disk);
    rig_disk_run(f->rig);
    g_assert_false(raised(f));
}

/* A state that was saved while the host had not taken its data goes on elsewhere. */
static void loaded(struct fixture *f, const void *unused)
{
    g_autoptr(GByteArray) state = g_byte_array_new();
    (void)unused;
    start(f);
    COMMAND(f->rig, 0x03, 0xaf, 0x03);
    COMMAND(f->rig, READ & 0x7f, 0, 0, 0, 1, 2, 2, 0x1b, 0xff);
    rig_disk_run(f->rig);
    for (unsigned i = 0; i < 100; i++)
        rig_in(f->rig, DATA, 1);
    device_save(f->rig->dev, state);
    struct fixture other = { rig_new(device_class_find("fdc"), NULL), { 0 } };
    memcpy(other.rig->disk->data, f->rig->disk->data, RIG_FLOPPY_SIZE);
    const uint8_t *in = state->data;
    size_t length = state->len;
    g_assert_true(device_load(other.rig->dev, &in, &length, NULL));
    g_assert_true(raised(&other));
    for (unsigned i = 100; i < SECTOR; i++)
        g_assert_cmphex(rig_in(other.rig, DATA, 1), ==, sector(f->rig, 0, 0, 1)[i]);
    rig_disk_run(other.rig);
    for (unsigned i = 0; i < SECTOR; i++)
        g_assert_cmphex(rig_in(other.rig, DATA, 1), ==, sector(f->rig, 0, 0, 2)[i]);
    expect(&other, ABNORMAL, END, 0, 1, 0, 1);
    rig_free(other.rig);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(struct fixture *f, const void *unused);
    } tests[] = {
        { "resets", resets },
        { "identity", identity },
        { "settings", settings },
        { "save-restore", save_restore },
        { "heads", heads },
        { "overlapped", overlapped },
        { "reads", reads },
        { "next-ids", next_ids },
        { "not-found", not_found },
        { "implied-seek", implied_seek },
        { "read-id", read_id },
        { "read-track", read_track },
        { "deleted", deleted },
        { "verify", verify },
        { "writes", writes },
        { "write-protected", write_protected },
        { "format", format },
        { "format-write", format_write },
        { "by-hand", by_hand },
        { "slow-host", slow_host },
        { "disk-errors", disk_errors },
        { "reset-in-between", reset_in_between },
        { "changed", changed },
        { "loaded", loaded },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strdup_printf("/fdc/%s", tests[i].name);
        g_test_add(path, struct fixture, NULL, set_up, tests[i].run, tear_down);
    }
    return g_test_run();
}
