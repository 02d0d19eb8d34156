/* virtio-blk (virtio 1.2 section 5.2): requests, their ranges and errors, the write cache. The disk
 * is the rig's, in memory, whose requests wait until the test lets them finish. */
#include "base/loop.h"
#include "rig/virtio-driver.h"

#include <errno.h>
#include <string.h>

enum { F_RO = 5, F_FLUSH = 9, F_CONFIG_WCE = 11, F_DISCARD = 13, F_WRITE_ZEROES = 14 };
enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { OK = 0, IOERR = 1, UNSUPPORTED = 2, NO_STATUS = 0xee };
enum { CAPACITY = 0, SEG_MAX = 12, BLK_SIZE = 20, WRITEBACK = 32, NUM_QUEUES = 34, DISCARD = 36 };
#define ALL        ~UINT64_C(0)
#define WITHOUT(f) (ALL & ~(UINT64_C(1) << (f)))

struct bench {
    struct rig *rig;
    struct driver *driver;
    uint64_t header, data, status;
};

static struct bench open_bench(uint64_t features)
{
    static const char *const options[] = { "serial", "0123456789ABCDEFGHIJKL", "packed", "on",
                                           NULL };
    struct bench b = { .rig = rig_new(device_class_find("virtio-blk"), options) };
    b.driver = driver_start(b.rig, features);
    b.header = driver_room(b.driver, 16);
    b.status = driver_room(b.driver, 1);
    b.data = driver_room(b.driver, 65536);
    return b;
}

static void done(struct bench *b)
{
    driver_free(b->driver);
    rig_free(b->rig);
}

/* Makes a request available that has `bytes` of data. */
static void start(struct bench *b, uint32_t type, uint64_t sector, uint32_t bytes)
{
    const struct {
        le32 type, reserved;
        le64 sector;
    } header = { le32_of(type), { 0 }, le64_of(sector) };
    bool in = type == T_IN || type == T_GET_ID;
    driver_put(b->driver, b->header, &header, sizeof header);
    driver_put(b->driver, b->status, &(uint8_t){ NO_STATUS }, 1);
    const struct driver_buffer buffers[] = { { b->header, 16, false },
                                             { b->data, bytes, in },
                                             { b->status, 1, true } };
    driver_add(b->driver, 0, buffers, 3);
    driver_run(b->driver, 0);
}

static uint8_t answer(struct bench *b, uint32_t *written)
{
    uint8_t status;
    g_assert_true(driver_used(b->driver, 0, NULL, written));
    g_assert_false(driver_used(b->driver, 0, NULL, NULL));
    driver_get(b->driver, b->status, &status, 1);
    return status;
}

static uint8_t run(struct bench *b, uint32_t type, uint64_t sector, uint32_t bytes)
{
    start(b, type, sector, bytes);
    rig_disk_run(b->rig);
    driver_turn(b->driver);
    return answer(b, NULL);
}

static bool waits(struct bench *b, enum disk_op op, uint64_t offset, uint64_t length)
{
    const struct disk_request *r = b->rig->disk->first;
    return r && r->op == op && r->offset == offset && r->length == length && !r->next;
}

static void config(void)
{
    struct bench b = open_bench(ALL);
    uint64_t offered = driver_offered(b.driver);
    for (unsigned f = 0; f < 24; f++)
        g_assert_true((offered >> f & 1) == (f == 2 || f == 6 || f == 9 || f == 10 || f == 11 ||
                                             f == 12 || f == 13 || f == 14));
    g_assert_cmpuint(driver_config(b.driver, CAPACITY, 8), ==, RIG_DISK_SIZE / 512);
    g_assert_cmpuint(driver_config(b.driver, SEG_MAX, 4), ==, 254);
    g_assert_cmpuint(driver_config(b.driver, BLK_SIZE, 4), ==, 512);
    g_assert_cmpuint(driver_config(b.driver, WRITEBACK, 1), ==, 1);
    g_assert_cmpuint(driver_config(b.driver, NUM_QUEUES, 2), ==, 1);
    g_assert_cmpuint(driver_config(b.driver, DISCARD, 4), >, 0);
    driver_config_write(b.driver, CAPACITY, 4, 1); /* read-only but for writeback */
    driver_config_write(b.driver, WRITEBACK, 2, 0);
    driver_config_write(b.driver, WRITEBACK + 1, 1, 0);
    g_assert_cmpuint(driver_config(b.driver, CAPACITY, 8), ==, RIG_DISK_SIZE / 512);
    g_assert_cmpuint(driver_config(b.driver, WRITEBACK, 1), ==, 1);
    g_assert_cmpuint(driver_config(b.driver, 60, 8), ==, 0); /* beyond the end */
    driver_config_write(b.driver, 200, 4, 0);
    done(&b);
}

static void transfers(void)
{
    struct bench b = open_bench(ALL);
    uint32_t written;
    g_autofree uint8_t *bytes = g_malloc(65536);
    for (unsigned i = 0; i < 65536; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 512);
    driver_put(b.driver, b.data, bytes, 65536);
    start(&b, T_OUT, 3, 65536);
    g_assert_true(waits(&b, DISK_WRITE, 3 * 512, 65536));
    rig_disk_run(b.rig);
    driver_turn(b.driver);
    g_assert_cmpuint(answer(&b, &written), ==, OK);
    g_assert_cmpuint(written, ==, 1);
    g_assert_cmpmem(b.rig->disk->data + 3 * 512, 65536, bytes, 65536);
    start(&b, T_IN, 4, 1024);
    rig_disk_run(b.rig);
    driver_turn(b.driver);
    g_assert_cmpuint(answer(&b, &written), ==, OK);
    g_assert_cmpuint(written, ==, 1025);
    uint8_t back[1024];
    driver_get(b.driver, b.data, back, sizeof back);
    g_assert_cmpmem(back, 1024, bytes + 512, 1024);
    /* The last sector, and none at all. */
    g_assert_cmpuint(run(&b, T_IN, RIG_DISK_SIZE / 512 - 1, 512), ==, OK);
    g_assert_cmpuint(run(&b, T_IN, 0, 0), ==, OK);
    done(&b);
}

/* Any layout (section 2.7.4): the header in pieces, one with the data, the status with it. */
static void layouts(void)
{
    for (unsigned cut = 1; cut < 16; cut++) {
        struct bench b = open_bench(ALL);
        uint8_t out[16 + 512] = { T_OUT, 0, 0, 0, 0, 0, 0, 0, 9 };
        memset(out + 16, (int)cut, 512);
        driver_put(b.driver, b.data, out, sizeof out);
        const struct driver_buffer write[] = { { b.data, cut, false },
                                               { b.data + cut, 16 + 512 - cut - 1, false },
                                               { b.data + 16 + 511, 1, false },
                                               { b.status, 1, true } };
        driver_add(b.driver, 0, write, 4);
        driver_run(b.driver, 0);
        rig_disk_run(b.rig);
        g_assert_cmpuint(answer(&b, NULL), ==, OK);
        g_assert_cmpuint(b.rig->disk->data[9 * 512], ==, cut);
        g_assert_cmpuint(b.rig->disk->data[9 * 512 + 511], ==, cut);
        out[0] = T_IN;
        driver_put(b.driver, b.data, out, 16);
        const struct driver_buffer read[] = { { b.data, 16, false },
                                              { b.data + 100, cut, true },
                                              { b.data + 200, 512 - cut + 1, true } };
        driver_add(b.driver, 0, read, 3);
        driver_run(b.driver, 0);
        rig_disk_run(b.rig);
        uint32_t written;
        uint8_t got[513];
        g_assert_true(driver_used(b.driver, 0, NULL, &written));
        g_assert_cmpuint(written, ==, 513);
        driver_get(b.driver, b.data + 100, got, cut);
        driver_get(b.driver, b.data + 200, got + cut, 513 - cut);
        g_assert_true(got[0] == cut && got[511] == cut && got[512] == OK);
        done(&b);
    }
}

static void wrong_requests(void)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t bytes;
        uint8_t status;
    } cases[] = {
        { T_IN, 0, 511, IOERR },
        { T_IN, 0, 513, IOERR },
        { T_OUT, 0, 100, IOERR },
        { T_IN, RIG_DISK_SIZE / 512, 512, IOERR },
        { T_IN, RIG_DISK_SIZE / 512 - 1, 1024, IOERR },
        { T_OUT, RIG_DISK_SIZE / 512 - 1, 1024, IOERR },
        { T_IN, UINT64_C(1) << 55, 512, IOERR }, /* times 512 is 2^64 */
        { T_OUT, UINT64_MAX, 512, IOERR },
        { T_IN, (UINT64_C(1) << 55) + 1, 512, IOERR },
        { 2, 0, 512, UNSUPPORTED }, /* SCSI commands of old */
        { 7, 0, 512, UNSUPPORTED },
        { 10, 0, 512, UNSUPPORTED },
        { 0x80000000, 0, 512, UNSUPPORTED },
        { UINT32_MAX, 0, 0, UNSUPPORTED },
    };
    struct bench b = open_bench(ALL);
    memset(b.rig->disk->data, 0x5a, RIG_DISK_SIZE);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
        if (run(&b, cases[i].type, cases[i].sector, cases[i].bytes) != cases[i].status)
            g_error("case %u", i);
    for (unsigned i = 0; i < RIG_DISK_SIZE; i++)
        g_assert_cmphex(b.rig->disk->data[i], ==, 0x5a);
    done(&b);
}

/* Chains without room for a status, or with half a header. */
static void wrong_chains(void)
{
    struct bench b = open_bench(ALL);
    uint32_t written;
    const struct driver_buffer header_only = { b.header, 16, false };
    driver_add(b.driver, 0, &header_only, 1);
    driver_run(b.driver, 0);
    g_assert_true(driver_used(b.driver, 0, NULL, &written));
    g_assert_cmpuint(written, ==, 0);
    const struct driver_buffer half[] = { { b.header, 15, false }, { b.status, 1, true } };
    driver_add(b.driver, 0, half, 2);
    driver_run(b.driver, 0);
    g_assert_cmpuint(answer(&b, &written), ==, IOERR);
    g_assert_cmpuint(written, ==, 1);
    driver_put(b.driver, b.status, &(uint8_t){ NO_STATUS }, 1);
    driver_add(b.driver, 0, half + 1, 1);
    driver_run(b.driver, 0);
    g_assert_cmpuint(answer(&b, NULL), ==, IOERR);
    g_assert_cmpuint(b.rig->disk->submitted, ==, 0);
    g_assert_cmphex(driver_status(b.driver) & DRIVER_NEEDS_RESET, ==, 0);
    done(&b);
}

static void disk_errors(void)
{
    static const uint32_t types[] = { T_IN, T_OUT, T_FLUSH };
    struct bench b = open_bench(ALL);
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        uint32_t written;
        b.rig->disk->fail = EIO;
        start(&b, types[i], 0, types[i] == T_FLUSH ? 0 : 512);
        rig_disk_run(b.rig);
        g_assert_cmpuint(answer(&b, &written), ==, IOERR);
        g_assert_cmpuint(written, ==, 1);
        b.rig->disk->fail = 0;
        g_assert_cmpuint(run(&b, types[i], 0, types[i] == T_FLUSH ? 0 : 512), ==, OK);
    }
    done(&b);
}

/* A disk that may not be written, whatever the driver tries. */
static void read_only(void)
{
    struct bench b = open_bench(ALL);
    b.rig->disk->disk.readonly = true;
    g_assert_cmpuint(run(&b, T_IN, 0, 512), ==, OK);
    g_assert_cmpuint(run(&b, T_OUT, 0, 512), ==, IOERR);
    driver_put(b.driver, b.data, (uint8_t[16]){ [8] = 1 }, 16);
    g_assert_cmpuint(run(&b, T_DISCARD, 0, 16), ==, IOERR);
    g_assert_cmpuint(run(&b, T_WRITE_ZEROES, 0, 16), ==, IOERR);
    g_assert_cmpuint(run(&b, T_FLUSH, 0, 0), ==, OK);
    g_assert_cmpuint(b.rig->disk->submitted, ==, 2);
    done(&b);
}

static void identity(void)
{
    struct bench b = open_bench(ALL);
    char id[32];
    uint32_t written;
    memset(id, '.', sizeof id);
    driver_put(b.driver, b.data, id, sizeof id);
    start(&b, T_GET_ID, 0, 20);
    g_assert_cmpuint(answer(&b, &written), ==, OK);
    g_assert_cmpuint(written, ==, 21);
    driver_get(b.driver, b.data, id, sizeof id);
    g_assert_cmpmem(id, 21, "0123456789ABCDEFGHIJ.", 21); /* cut, without a 0 (5.2.6.1) */
    memset(id, '.', sizeof id);
    driver_put(b.driver, b.data, id, sizeof id);
    g_assert_cmpuint(run(&b, T_GET_ID, 0, 5), ==, OK);
    driver_get(b.driver, b.data, id, sizeof id);
    g_assert_cmpmem(id, 6, "01234.", 6);
    done(&b);
}

/* --- the write cache (sections 5.2.5, 5.2.6.2) ---------------------------------------------- */

static void flush(void)
{
    struct bench b = open_bench(ALL);
    start(&b, T_OUT, 0, 512);
    rig_disk_run(b.rig);
    g_assert_cmpuint(answer(&b, NULL), ==, OK); /* no flush by itself */
    g_assert_cmpuint(b.rig->disk->submitted, ==, 1);
    start(&b, T_FLUSH, 0, 0);
    g_assert_true(b.rig->disk->first->op == DISK_FLUSH);
    g_assert_false(driver_used(b.driver, 0, NULL, NULL)); /* not before it is done */
    rig_disk_run(b.rig);
    g_assert_cmpuint(answer(&b, NULL), ==, OK);
    done(&b);
}

static void expect_synced(struct bench *b, uint32_t type, enum disk_op op, uint32_t bytes)
{
    start(b, type, 0, bytes);
    g_assert_true(b->rig->disk->first->op == op);
    rig_disk_step(b->rig);
    driver_turn(b->driver);
    g_assert_false(driver_used(b->driver, 0, NULL, NULL));
    g_assert_true(b->rig->disk->first && b->rig->disk->first->op == DISK_FLUSH);
    rig_disk_step(b->rig);
    driver_turn(b->driver);
    g_assert_cmpuint(answer(b, NULL), ==, OK);
    g_assert_null(b->rig->disk->first);
}

static void write_through(void)
{
    const uint8_t range[16] = { [8] = 1 };
    /* A driver that cannot flush. */
    struct bench b = open_bench(WITHOUT(F_FLUSH));
    expect_synced(&b, T_OUT, DISK_WRITE, 512);
    done(&b);
    /* One that turns the cache off, and on. */
    b = open_bench(ALL);
    driver_config_write(b.driver, WRITEBACK, 1, 0);
    g_assert_cmpuint(driver_config(b.driver, WRITEBACK, 1), ==, 0);
    expect_synced(&b, T_OUT, DISK_WRITE, 512);
    driver_put(b.driver, b.data, range, sizeof range);
    expect_synced(&b, T_WRITE_ZEROES, DISK_WRITE_ZEROES, 16);
    g_assert_true(rig_round_trip(b.rig));
    b.rig->disk->fail = EIO; /* no flush for what failed */
    unsigned submitted = b.rig->disk->submitted;
    g_assert_cmpuint(run(&b, T_OUT, 0, 512), ==, IOERR);
    g_assert_cmpuint(b.rig->disk->submitted, ==, submitted + 1);
    b.rig->disk->fail = 0;
    driver_config_write(b.driver, WRITEBACK, 1, 1);
    g_assert_cmpuint(run(&b, T_OUT, 0, 512), ==, OK);
    g_assert_cmpuint(b.rig->disk->submitted, ==, submitted + 2);
    driver_config_write(b.driver, WRITEBACK, 1, 0);
    driver_reset(b.driver);
    g_assert_cmpuint(driver_config(b.driver, WRITEBACK, 1), ==, 1);
    done(&b);
    /* Without the feature the byte is read-only. */
    b = open_bench(WITHOUT(F_CONFIG_WCE));
    driver_config_write(b.driver, WRITEBACK, 1, 0);
    g_assert_cmpuint(driver_config(b.driver, WRITEBACK, 1), ==, 1);
    done(&b);
}

/* --- ranges (section 5.2.6.2) --------------------------------------------------------------- */

static void put_range(struct bench *b, unsigned i, uint64_t sector, uint32_t sectors,
                      uint32_t flags)
{
    const struct {
        le64 sector;
        le32 sectors, flags;
    } range = { le64_of(sector), le32_of(sectors), le32_of(flags) };
    driver_put(b->driver, b->data + 16 * i, &range, sizeof range);
}

static void ranges(void)
{
    static const struct {
        uint32_t type;
        enum disk_op op;
    } kinds[] = { { T_DISCARD, DISK_DISCARD }, { T_WRITE_ZEROES, DISK_WRITE_ZEROES } };
    for (unsigned k = 0; k < 2; k++) {
        struct bench b = open_bench(ALL);
        for (unsigned i = 0; i < 64; i++)
            put_range(&b, i, 10 * i, i + 1, 0);
        start(&b, kinds[k].type, 0, 64 * 16);
        for (unsigned i = 0; i < 64; i++) {
            g_assert_false(driver_used(b.driver, 0, NULL, NULL));
            g_assert_true(waits(&b, kinds[k].op, 10 * i * 512, (i + 1) * 512));
            rig_disk_step(b.rig);
        }
        driver_turn(b.driver);
        g_assert_cmpuint(answer(&b, NULL), ==, OK);
        /* The first that fails ends it. */
        start(&b, kinds[k].type, 0, 64 * 16);
        rig_disk_step(b.rig);
        b.rig->disk->fail = EIO;
        rig_disk_step(b.rig);
        g_assert_null(b.rig->disk->first);
        g_assert_cmpuint(answer(&b, NULL), ==, IOERR);
        done(&b);
    }
}

static void wrong_ranges(void)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t sectors, flags, bytes;
        uint8_t status;
    } cases[] = {
        { T_DISCARD, 0, 1, 0, 0, IOERR },
        { T_DISCARD, 0, 1, 0, 15, IOERR },
        { T_DISCARD, 0, 1, 0, 17, IOERR },
        { T_DISCARD, 0, 1, 0, 65 * 16, IOERR },
        { T_DISCARD, 0, 1, 1, 16, UNSUPPORTED }, /* unmap is not for discards */
        { T_DISCARD, 0, 1, 2, 16, UNSUPPORTED },
        { T_WRITE_ZEROES, 0, 1, 2, 16, UNSUPPORTED },
        { T_WRITE_ZEROES, 0, 1, 0x80000001, 16, UNSUPPORTED },
        { T_WRITE_ZEROES, 0, 1, 1, 16, OK },
        { T_DISCARD, RIG_DISK_SIZE / 512, 1, 0, 16, IOERR },
        { T_DISCARD, RIG_DISK_SIZE / 512 - 1, 2, 0, 16, IOERR },
        { T_DISCARD, UINT64_C(1) << 55, 1, 0, 16, IOERR },
        { T_WRITE_ZEROES, UINT64_MAX, 1, 0, 16, IOERR },
        { T_DISCARD, 0, UINT32_MAX, 0, 16, IOERR },
        { T_WRITE_ZEROES, 0, (1 << 21) + 1, 0, 16, IOERR },
    };
    struct bench b = open_bench(ALL);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        put_range(&b, 0, cases[i].sector, cases[i].sectors, cases[i].flags);
        if (run(&b, cases[i].type, 0, cases[i].bytes) != cases[i].status)
            g_error("case %u", i);
    }
    done(&b);
}

/* The guest that changes a range after the fact does not change what is judged; a reset ends what
 * has not begun. */
static void reset_between_ranges(void)
{
    struct bench b = open_bench(ALL);
    for (unsigned i = 0; i < 4; i++)
        put_range(&b, i, 10 * i, 1, 0);
    start(&b, T_DISCARD, 0, 64);
    rig_disk_step(b.rig);
    driver_write(b.driver, DRIVER_STATUS, 1, 0);
    g_assert_cmphex(driver_status(b.driver), !=, 0);
    rig_disk_step(b.rig);
    g_assert_null(b.rig->disk->first);
    g_assert_cmphex(driver_status(b.driver), ==, 0);
    done(&b);
}

/* --- the queue ------------------------------------------------------------------------------ */

static void out_of_order(void)
{
    struct bench b = open_bench(ALL);
    unsigned id[8], back;
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t header[16] = { T_IN, [8] = (uint8_t)i };
        uint64_t at = b.data + 1024 * i;
        driver_put(b.driver, at, header, 16);
        const struct driver_buffer buffers[] = { { at, 16, false },
                                                 { at + 16, 512, true },
                                                 { at + 528, 1, true } };
        id[i] = driver_add(b.driver, 0, buffers, 3);
        memset(b.rig->disk->data + 512 * i, (int)(i + 1), 512);
    }
    driver_run(b.driver, 0);
    g_assert_cmpuint(b.rig->disk->waiting, ==, 8);
    static const unsigned order[] = { 7, 3, 0, 4, 1, 1, 1, 0 }; /* of those that are left */
    static const unsigned which[] = { 7, 3, 0, 6, 2, 4, 5, 1 };
    for (unsigned i = 0; i < 8; i++) {
        uint8_t byte;
        g_assert_true(rig_disk_finish(b.rig, order[i]));
        g_assert_true(driver_used(b.driver, 0, &back, NULL));
        g_assert_cmpuint(back, ==, id[which[i]]);
        driver_get(b.driver, b.data + 1024 * which[i] + 16 + 511, &byte, 1);
        g_assert_cmpuint(byte, ==, which[i] + 1);
    }
    done(&b);
}

/* However much there is, others have their turn. */
static void batches(void)
{
    struct bench b = open_bench(ALL);
    driver_reset(b.driver);
    g_assert_true(driver_negotiate(b.driver, driver_offered(b.driver)));
    driver_queue(b.driver, 0, 256);
    driver_ok(b.driver);
    driver_turn(b.driver);
    driver_put(b.driver, b.header, (uint8_t[16]){ T_IN }, 16);
    const struct driver_buffer buffers[] = { { b.header, 16, false },
                                             { b.data, 512, true },
                                             { b.status, 1, true } };
    for (unsigned i = 0; i < 200; i++)
        driver_add(b.driver, 0, buffers, 3);
    driver_kick(b.driver, 0);
    for (unsigned taken = 0; taken < 200;) {
        loop_turn(b.rig->dev->loop);
        g_assert_cmpuint(b.rig->disk->waiting, >, taken);
        g_assert_cmpuint(b.rig->disk->waiting, <=, taken + VIRTQUEUE_BATCH);
        taken = b.rig->disk->waiting;
    }
    rig_disk_run(b.rig);
    done(&b);
}

static void resize(void)
{
    struct bench b = open_bench(ALL);
    uint64_t generation = driver_read(b.driver, DRIVER_GENERATION, 1);
    g_assert_cmpuint(run(&b, T_IN, 1024, 512), ==, OK);
    driver_isr(b.driver);
    b.rig->disk->disk.size = 512 * 512;
    b.rig->dev->class->disk_resized(b.rig->dev, 0);
    g_assert_cmphex(driver_isr(b.driver), ==, 2);
    g_assert_cmpuint(driver_read(b.driver, DRIVER_GENERATION, 1), !=, generation);
    g_assert_cmpuint(driver_config(b.driver, CAPACITY, 8), ==, 512);
    g_assert_cmpuint(run(&b, T_IN, 1024, 512), ==, IOERR);
    g_assert_cmpuint(run(&b, T_IN, 511, 512), ==, OK);
    done(&b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-blk/config", config);
    g_test_add_func("/virtio-blk/transfers", transfers);
    g_test_add_func("/virtio-blk/layouts", layouts);
    g_test_add_func("/virtio-blk/wrong-requests", wrong_requests);
    g_test_add_func("/virtio-blk/wrong-chains", wrong_chains);
    g_test_add_func("/virtio-blk/disk-errors", disk_errors);
    g_test_add_func("/virtio-blk/read-only", read_only);
    g_test_add_func("/virtio-blk/identity", identity);
    g_test_add_func("/virtio-blk/flush", flush);
    g_test_add_func("/virtio-blk/write-through", write_through);
    g_test_add_func("/virtio-blk/ranges", ranges);
    g_test_add_func("/virtio-blk/wrong-ranges", wrong_ranges);
    g_test_add_func("/virtio-blk/reset-between-ranges", reset_between_ranges);
    g_test_add_func("/virtio-blk/out-of-order", out_of_order);
    g_test_add_func("/virtio-blk/batches", batches);
    g_test_add_func("/virtio-blk/resize", resize);
    return g_test_run();
}
