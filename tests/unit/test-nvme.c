/* The NVMe controller, driven as a driver would: queues, PRP lists and SGLs in guest memory,
 * registers and doorbells through the BAR. Section numbers are of NVM Express 1.4. */
#include "base/loop.h"
#include "rig/rig.h"

#include <errno.h>
#include <string.h>

/* Where things lie in the 1 MiB of RAM. */
enum {
    ASQ = 0x1000,
    ACQ = 0x2000,
    SQ = 0x3000,
    CQ = 0x4000,
    SHADOW = 0x5000,
    EVENTS = 0x6000,
    LIST = 0x8000,
    ANSWER = 0xa000,
    DATA = 0x20000,
};
enum { CAP = 0, VS = 8, INTMS = 0xc, INTMC = 0x10, CC = 0x14, CSTS = 0x1c, AQA = 0x24 };
enum { REG_ASQ = 0x28, REG_ACQ = 0x30, DOORBELL = 0x1000 };
enum { CC_ON = 0x460001, RDY = 1, CFS = 2, PAGE = 4096, ADMIN_DEPTH = 16 };
enum { FLUSH = 0, WRITE = 1, READ = 2, COMPARE = 5, ZEROES = 8, DSM = 9 };
enum {
    DELETE_SQ = 0,
    CREATE_SQ = 1,
    GET_LOG = 2,
    DELETE_CQ = 4,
    CREATE_CQ = 5,
    IDENTIFY = 6,
    ABORT = 8,
    SET = 9,
    GET = 10,
    AER = 12,
    DBBUF = 0x7c,
};
enum { SGL = 0x40, DNR = 0x4000, MORE = 0x2000, FUA = 1 << 30 };

struct entry {
    uint32_t cdw0, nsid, cdw2, cdw3;
    uint64_t mptr, prp1, prp2;
    uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
struct completion {
    uint32_t result, reserved;
    uint16_t head, sq, cid, status;
};
struct pair {
    uint64_t sq, cq;
    unsigned depth, tail, head;
    bool phase;
};

static struct rig *rig;
static struct pair admin, io;
static uint16_t next_cid;
static struct completion last;

static uint32_t reg(unsigned offset)
{
    return (uint32_t)rig_load(rig, rig_bar(rig, 0) + offset, 4);
}

static void set(unsigned offset, uint32_t value)
{
    rig_store(rig, rig_bar(rig, 0) + offset, 4, value);
}

static void put(uint64_t at, const void *data, size_t length)
{
    g_assert_true(guest_write(rig->board.guest, GPA(at), data, length));
}

static void get(uint64_t at, void *data, size_t length)
{
    g_assert_true(guest_read(rig->board.guest, GPA(at), data, length));
}

static uint64_t peek(uint64_t at, unsigned width)
{
    uint64_t value = 0;
    get(at, &value, width);
    return value;
}

static void poke32(uint64_t at, uint32_t value)
{
    put(at, &value, sizeof value);
}

static void turn(void)
{
    for (int i = 0; i < 1000 && loop_turn(rig->dev->loop); i++)
        continue;
}

static void enable(void)
{
    uint8_t zeros[PAGE] = { 0 };
    for (uint64_t at = ASQ; at <= EVENTS; at += PAGE)
        put(at, zeros, PAGE);
    admin = (struct pair){ ASQ, ACQ, ADMIN_DEPTH, 0, 0, true };
    set(AQA, (ADMIN_DEPTH - 1) << 16 | (ADMIN_DEPTH - 1));
    rig_store(rig, rig_bar(rig, 0) + REG_ASQ, 8, ASQ);
    rig_store(rig, rig_bar(rig, 0) + REG_ACQ, 8, ACQ);
    set(CC, CC_ON);
    g_assert_cmphex(reg(CSTS), ==, RDY);
}

static void begin(void)
{
    rig = rig_new(device_class_find("nvme"), NULL);
    next_cid = 1;
    for (unsigned i = 0; i < RIG_DISK_SIZE; i++)
        rig->disk->data[i] = (uint8_t)(i ^ i >> 9);
    enable();
}

static void end(void)
{
    g_assert_true(rig_round_trip(rig));
    rig_free(rig);
}

static unsigned id_of(const struct pair *pair)
{
    return pair == &admin ? 0 : 1;
}

/* Puts a command into the queue without ringing; its identifier. */
static uint16_t add(struct pair *pair, struct entry e)
{
    uint16_t cid = next_cid++;
    e.cdw0 |= (uint32_t)cid << 16;
    G_STATIC_ASSERT(sizeof e == 64);
    put(pair->sq + pair->tail * sizeof e, &e, sizeof e);
    pair->tail = (pair->tail + 1) % pair->depth;
    return cid;
}

static void ring(struct pair *pair)
{
    set(DOORBELL + 8 * id_of(pair), pair->tail);
    turn();
}

static uint16_t submit(struct pair *pair, struct entry e)
{
    uint16_t cid = add(pair, e);
    ring(pair);
    return cid;
}

/* Takes the next completion into `last`, by its phase tag; false: there is none. */
static bool take_silently(struct pair *pair)
{
    get(pair->cq + pair->head * sizeof last, &last, sizeof last);
    if ((last.status & 1) != pair->phase)
        return false;
    pair->head = (pair->head + 1) % pair->depth;
    pair->phase ^= pair->head == 0;
    return true;
}

static bool take(struct pair *pair)
{
    turn();
    bool found = take_silently(pair);
    if (found)
        set(DOORBELL + 8 * id_of(pair) + 4, pair->head);
    return found;
}

/* One command from submission to its end: the status field. */
static uint16_t run(struct pair *pair, struct entry e)
{
    uint16_t cid = submit(pair, e);
    rig_disk_run(rig);
    g_assert_true(take(pair));
    g_assert_cmpuint(last.cid, ==, cid);
    g_assert_cmpuint(last.sq, ==, id_of(pair));
    return last.status >> 1;
}

static uint16_t identify(unsigned cns, uint32_t nsid)
{
    return run(&admin,
               (struct entry){ .cdw0 = IDENTIFY, .nsid = nsid, .prp1 = ANSWER, .cdw10 = cns });
}

static uint16_t create_cq(unsigned id, unsigned depth, unsigned vector)
{
    return run(&admin, (struct entry){ .cdw0 = CREATE_CQ,
                                       .prp1 = CQ,
                                       .cdw10 = (depth - 1) << 16 | id,
                                       .cdw11 = vector << 16 | 3 });
}

static uint16_t create_sq(unsigned id, unsigned depth, unsigned cq)
{
    return run(&admin, (struct entry){ .cdw0 = CREATE_SQ,
                                       .prp1 = SQ,
                                       .cdw10 = (depth - 1) << 16 | id,
                                       .cdw11 = cq << 16 | 1 });
}

static void create_io(unsigned depth)
{
    io = (struct pair){ SQ, CQ, depth, 0, 0, true };
    g_assert_cmphex(create_cq(1, depth, 0), ==, 0);
    g_assert_cmphex(create_sq(1, depth, 1), ==, 0);
}

static void begin_io(void)
{
    begin();
    create_io(16);
}

static struct entry transfer(unsigned opcode, uint64_t lba, unsigned sectors, uint64_t prp1,
                             uint64_t prp2)
{
    return (struct entry){ .cdw0 = opcode,
                           .nsid = 1,
                           .prp1 = prp1,
                           .prp2 = prp2,
                           .cdw10 = (uint32_t)lba,
                           .cdw11 = (uint32_t)(lba >> 32),
                           .cdw12 = sectors - 1 };
}

static bool same(uint64_t at, size_t offset, size_t length)
{
    g_autofree uint8_t *data = g_malloc(length);
    get(at, data, length);
    return !memcmp(data, rig->disk->data + offset, length);
}

static void fill(uint64_t at, size_t length, uint8_t seed)
{
    g_autofree uint8_t *data = g_malloc(length);
    for (size_t i = 0; i < length; i++)
        data[i] = (uint8_t)(seed + i * 7 + i / 300);
    put(at, data, length);
}

/* --- the controller -------------------------------------------------------------------------- */

static void registers(void)
{
    begin();
    g_assert_cmphex(rig_config_read(rig, 0, 4), ==, 0x10f01af4);
    g_assert_cmphex(rig_config_read(rig, PCI_CLASS, 1) | rig_config_read(rig, 10, 2) << 8, ==,
                    0x010802);
    g_assert_cmphex(rig_load(rig, rig_bar(rig, 0) + CAP, 8), ==, 0x00000020280103ff);
    g_assert_cmphex(reg(VS), ==, 0x00010400);
    g_assert_cmphex(reg(CC), ==, CC_ON);
    g_assert_cmphex(reg(AQA), ==, 0x000f000f);
    g_assert_cmphex(rig_load(rig, rig_bar(rig, 0) + REG_ASQ, 8), ==, ASQ);
    set(CC, 0);
    g_assert_cmphex(reg(CSTS), ==, 0);
    g_assert_cmphex(rig_load(rig, rig_bar(rig, 0) + REG_ACQ, 8), ==, ACQ); /* kept (7.3.2) */
    set(CC, CC_ON | 1 << 7);                                               /* pages of 8 KiB */
    g_assert_cmphex(reg(CSTS), ==, CFS);
    set(CC, 0);
    g_assert_cmphex(reg(CSTS), ==, 0);
    set(CC, CC_ON);
    g_assert_cmphex(reg(CSTS), ==, RDY);
    end();
}

static void identities(void)
{
    uint8_t data[PAGE];
    begin();
    g_assert_cmphex(identify(1, 0), ==, 0);
    get(ANSWER, data, sizeof data);
    g_assert_cmpmem(data + 4, 2, "HV", 2); /* made of the image's identity */
    g_assert_cmpmem(data + 22, 2, "  ", 2);
    g_assert_cmpmem(data + 24, 12, "hv NVMe disk", 12);
    g_assert_cmpuint(data[77], ==, 8);
    g_assert_cmphex(data[512], ==, 0x66);
    g_assert_cmphex(data[513], ==, 0x44);
    g_assert_cmpuint(data[516], ==, 1);
    g_assert_true(g_str_has_prefix((char *)data + 768, "nqn.2014-08.org.nvmexpress:uuid:"));
    g_assert_cmpuint(strlen((char *)data + 768), ==, 32 + 36);

    g_assert_cmphex(identify(0, 1), ==, 0);
    g_assert_cmpuint(peek(ANSWER, 8), ==, RIG_DISK_SIZE / 512);
    g_assert_cmpuint(peek(ANSWER + 8, 8), ==, RIG_DISK_SIZE / 512);
    g_assert_cmphex(peek(ANSWER + 128, 4), ==, 9 << 16);
    g_assert_cmphex(identify(0, 2), ==, 0x0b | DNR);
    g_assert_cmphex(identify(0, 0), ==, 0x0b | DNR);

    g_assert_cmphex(identify(2, 0), ==, 0);
    g_assert_cmpuint(peek(ANSWER, 4), ==, 1);
    g_assert_cmpuint(peek(ANSWER + 4, 4), ==, 0);
    g_assert_cmphex(identify(2, 1), ==, 0);
    g_assert_cmpuint(peek(ANSWER, 4), ==, 0);

    g_assert_cmphex(identify(3, 1), ==, 0);
    g_assert_cmphex(peek(ANSWER, 2), ==, 0x1003);
    g_assert_cmphex(peek(ANSWER + 4 + 6, 1) >> 4, ==, 5); /* the UUID's version */
    g_assert_cmphex(peek(ANSWER + 20, 4), ==, 0);
    g_assert_cmphex(identify(0x40, 1), ==, 0x02 | DNR);
    g_assert_cmphex(run(&admin, (struct entry){ .cdw0 = 0xc0 }), ==, 0x01 | DNR);
    g_assert_cmphex(run(&admin, (struct entry){ .cdw0 = IDENTIFY | SGL << 8, .prp1 = ANSWER }), ==,
                    0x02 | DNR);
    end();
}

static void options(void)
{
    static const char *const few[] = { "queues", "4", "serial", "S1", NULL };
    rig = rig_new(device_class_find("nvme"), few);
    next_cid = 1;
    enable();
    g_assert_cmphex(identify(1, 0), ==, 0);
    uint8_t serial[20];
    get(ANSWER + 4, serial, sizeof serial);
    g_assert_cmpmem(serial, 20, "S1                  ", 20);
    g_assert_cmphex(create_cq(5, 16, 0), ==, 0x101 | DNR);
    g_assert_cmphex(create_cq(4, 16, 0), ==, 0);
    rig_free(rig);
}

static void queue_errors(void)
{
    begin();
    g_assert_cmphex(create_cq(0, 16, 0), ==, 0x101 | DNR);
    g_assert_cmphex(create_cq(65, 16, 0), ==, 0x101 | DNR); /* there are 64 */
    g_assert_cmphex(create_cq(1, 1, 0), ==, 0x102 | DNR);
    g_assert_cmphex(create_cq(1, 1025, 0), ==, 0x102 | DNR);
    g_assert_cmphex(create_cq(1, 16, 1), ==, 0x108 | DNR); /* MSI-X is off */
    g_assert_cmphex(create_cq(1, 16, 0), ==, 0);
    g_assert_cmphex(create_cq(1, 16, 0), ==, 0x101 | DNR); /* it exists */
    g_assert_cmphex(create_sq(1, 16, 2), ==, 0x100 | DNR);
    g_assert_cmphex(create_sq(1, 16, 0), ==, 0x100 | DNR);
    g_assert_cmphex(create_sq(1, 16, 77), ==, 0x101 | DNR);
    struct entry e = { .cdw0 = CREATE_SQ, .prp1 = SQ, .cdw10 = 15 << 16 | 1, .cdw11 = 1 << 16 };
    g_assert_cmphex(run(&admin, e), ==, 0x02 | DNR); /* not contiguous */
    e.cdw11 |= 1;
    e.prp1 = SQ + 4;
    g_assert_cmphex(run(&admin, e), ==, 0x13 | DNR);
    e.prp1 = RIG_RAM - PAGE;
    e.cdw10 = 127 << 16 | 1; /* 8 KiB: beyond the end of RAM */
    g_assert_cmphex(run(&admin, e), ==, 0x02 | DNR);
    g_assert_cmphex(create_sq(1, 16, 1), ==, 0);
    struct entry gone = { .cdw0 = DELETE_CQ, .cdw10 = 1 };
    g_assert_cmphex(run(&admin, gone), ==, 0x10c | DNR); /* a submission queue uses it */
    gone.cdw0 = DELETE_SQ;
    g_assert_cmphex(run(&admin, gone), ==, 0);
    g_assert_cmphex(run(&admin, gone), ==, 0x101 | DNR);
    gone.cdw0 = DELETE_CQ;
    g_assert_cmphex(run(&admin, gone), ==, 0);
    g_assert_cmphex(run(&admin, gone), ==, 0x101 | DNR);
    end();
}

static uint16_t set_feature(uint32_t id, uint32_t value, uint32_t nsid)
{
    return run(&admin, (struct entry){ .cdw0 = SET, .nsid = nsid, .cdw10 = id, .cdw11 = value });
}

static uint16_t get_feature(uint32_t id, uint32_t value, uint32_t nsid)
{
    return run(
        &admin,
        (struct entry){ .cdw0 = GET, .nsid = nsid, .prp1 = ANSWER, .cdw10 = id, .cdw11 = value });
}

static void features(void)
{
    begin();
    g_assert_cmphex(set_feature(7, 0x00010001, 0), ==, 0);
    g_assert_cmphex(last.result, ==, 0x003f003f); /* 64 queues, less one */
    g_assert_cmphex(set_feature(7, 0xffff0001, 0), ==, 0x02 | DNR);
    g_assert_cmphex(get_feature(6, 0, 0), ==, 0);
    g_assert_cmphex(last.result, ==, 1);
    g_assert_cmphex(set_feature(6, 0, 0), ==, 0);
    g_assert_cmphex(get_feature(6, 0, 0), ==, 0);
    g_assert_cmphex(last.result, ==, 0);
    g_assert_cmphex(get_feature(6 | 1 << 8, 0, 0), ==, 0); /* the default */
    g_assert_cmphex(last.result, ==, 1);
    g_assert_cmphex(get_feature(6 | 3 << 8, 0, 0), ==, 0); /* capabilities: changeable */
    g_assert_cmphex(last.result, ==, 4);
    g_assert_cmphex(set_feature(6 | 0x80000000, 0, 0), ==, 0x10d | DNR);
    g_assert_cmphex(set_feature(2, 1, 0), ==, 0x02 | DNR); /* no power state 1 */
    g_assert_cmphex(set_feature(0x70, 1, 0), ==, 0x02 | DNR);
    g_assert_cmphex(set_feature(5, 33, 1), ==, 0);
    g_assert_cmphex(set_feature(5, 33, 7), ==, 0x0b | DNR);
    g_assert_cmphex(get_feature(5, 0, 1), ==, 0);
    g_assert_cmphex(last.result, ==, 33);
    g_assert_cmphex(set_feature(9, 1 << 16 | 2, 0), ==, 0);
    g_assert_cmphex(get_feature(9, 2, 0), ==, 0);
    g_assert_cmphex(last.result, ==, 1 << 16 | 2);
    g_assert_cmphex(get_feature(9, 65, 0), ==, 0x02 | DNR);

    uint64_t now = 1234567;
    put(DATA, &now, sizeof now);
    g_assert_cmphex(run(&admin, (struct entry){ .cdw0 = SET, .prp1 = DATA, .cdw10 = 14 }), ==, 0);
    clock_advance(rig->board.clock, 5 * NS_PER_SECOND, 0);
    g_assert_cmphex(get_feature(14, 0, 0), ==, 0);
    g_assert_cmpuint(peek(ANSWER, 6), ==, now + 5000);
    g_assert_cmphex(peek(ANSWER + 6, 1), ==, 2); /* set by the host */

    create_io(16);
    g_assert_cmphex(set_feature(7, 0x00010001, 0), ==, 0x0c | DNR);
    end();
}

static uint16_t get_log(unsigned id, unsigned bytes, uint64_t offset, bool retain)
{
    return run(&admin, (struct entry){ .cdw0 = GET_LOG,
                                       .nsid = UINT32_MAX,
                                       .prp1 = ANSWER,
                                       .prp2 = ANSWER + PAGE,
                                       .cdw10 = (bytes / 4 - 1) << 16 | (uint32_t)retain << 15 | id,
                                       .cdw12 = (uint32_t)offset,
                                       .cdw13 = (uint32_t)(offset >> 32) });
}

static void logs(void)
{
    begin_io();
    g_assert_cmphex(run(&io, transfer(READ, 0, 8, DATA, 0)), ==, 0);
    g_assert_cmphex(run(&io, transfer(WRITE, 0, 4, DATA, 0)), ==, 0);
    g_assert_cmphex(get_log(2, 512, 0, false), ==, 0);
    g_assert_cmpuint(peek(ANSWER, 1), ==, 0);
    g_assert_cmpuint(peek(ANSWER + 32, 8), ==, 1); /* thousands of sectors, rounded up */
    g_assert_cmpuint(peek(ANSWER + 64, 8), ==, 1);
    g_assert_cmpuint(peek(ANSWER + 80, 8), ==, 1);
    g_assert_cmphex(get_log(3, 512, 0, false), ==, 0);
    g_assert_cmpuint(peek(ANSWER, 1), ==, 1);
    g_assert_cmphex(get_log(5, 4096, 0, false), ==, 0);
    g_assert_cmphex(peek(ANSWER + 4 * IDENTIFY, 4), ==, 1);
    g_assert_cmphex(peek(ANSWER + 1024 + 4 * WRITE, 4), ==, 3);
    g_assert_cmphex(peek(ANSWER + 1024 + 4 * 4, 4), ==, 0); /* no Write Uncorrectable */
    g_assert_cmphex(peek(ANSWER + 1024 + 4 * COMPARE, 4), ==, 1);
    g_assert_cmphex(get_log(5, 4, 1024 + 4 * READ, false), ==, 0);
    g_assert_cmphex(peek(ANSWER, 4), ==, 1);
    g_assert_cmphex(get_log(5, 4, 1026, false), ==, 0x02 | DNR);
    g_assert_cmphex(get_log(5, 4, 8192, false), ==, 0x02 | DNR);
    g_assert_cmphex(get_log(0x70, 4, 0, false), ==, 0x109 | DNR);

    rig->disk->fail = EIO;
    g_assert_cmphex(run(&io, transfer(READ, 40, 8, DATA, 0)), ==, 0x281 | MORE);
    uint16_t cid = last.cid;
    g_assert_cmphex(run(&io, transfer(WRITE, 48, 8, DATA, 0)), ==, 0x280 | MORE);
    rig->disk->fail = 0;
    g_assert_cmphex(get_log(1, 128, 0, false), ==, 0);
    g_assert_cmpuint(peek(ANSWER, 8), ==, 2); /* the newest first */
    g_assert_cmpuint(peek(ANSWER + 16, 8), ==, 48);
    g_assert_cmpuint(peek(ANSWER + 64, 8), ==, 1);
    g_assert_cmpuint(peek(ANSWER + 64 + 8, 2), ==, 1);
    g_assert_cmpuint(peek(ANSWER + 64 + 10, 2), ==, cid);
    g_assert_cmphex(peek(ANSWER + 64 + 12, 2) >> 1, ==, 0x281 | MORE);
    g_assert_cmpuint(peek(ANSWER + 64 + 16, 8), ==, 40);
    end();
}

/* --- data ------------------------------------------------------------------------------------ */

static void prps(void)
{
    uint64_t list[512] = { 0 };
    begin_io();
    g_assert_cmphex(run(&io, transfer(READ, 3, 1, DATA + 512, 0)), ==, 0);
    g_assert_true(same(DATA + 512, 3 * 512, 512));
    /* Two pages, the first from its middle. */
    g_assert_cmphex(run(&io, transfer(READ, 8, 8, DATA + 0x800, DATA + 0x10000)), ==, 0);
    g_assert_true(same(DATA + 0x800, 8 * 512, 0x800));
    g_assert_true(same(DATA + 0x10000, 8 * 512 + 0x800, 0x800));
    /* A list, backwards; and one that begins in the last entry of a page: a chain. */
    for (unsigned i = 0; i < 31; i++)
        list[i] = DATA + (40 - i) * PAGE;
    put(LIST, list, sizeof list);
    g_assert_cmphex(run(&io, transfer(READ, 16, 256, DATA, LIST)), ==, 0);
    g_assert_true(same(DATA, 16 * 512, PAGE));
    for (unsigned i = 0; i < 31; i++)
        g_assert_true(same(list[i], 16 * 512 + (i + 1) * PAGE, PAGE));
    uint64_t chain = LIST;
    put(LIST + 0x1ff8, &chain, sizeof chain);
    fill(DATA, 41 * PAGE, 5);
    g_assert_cmphex(run(&io, transfer(WRITE, 512, 256, DATA, LIST + 0x1ff8)), ==, 0);
    g_assert_true(same(DATA, 512 * 512, PAGE));
    g_assert_true(same(list[30], 512 * 512 + 31 * PAGE, PAGE));

    g_assert_cmphex(run(&io, transfer(READ, 0, 8, DATA + 2, 0)), ==, 0x13 | DNR);
    g_assert_cmphex(run(&io, transfer(READ, 0, 16, DATA, DATA + 4)), ==, 0x13 | DNR);
    g_assert_cmphex(run(&io, transfer(READ, 0, 32, DATA, LIST + 4)), ==, 0x13 | DNR);
    list[1] = DATA + 8;
    put(LIST, list, sizeof list);
    g_assert_cmphex(run(&io, transfer(READ, 0, 32, DATA, LIST)), ==, 0x13 | DNR);
    /* What is no memory: nothing of it is transferred. */
    g_assert_cmphex(run(&io, transfer(READ, 0, 16, DATA, RIG_RAM)), ==, 0x04);
    g_assert_cmphex(run(&io, transfer(READ, 0, 8, 0xfffffffffffff000, 0)), ==, 0x04);
    g_assert_cmphex(run(&io, transfer(READ, 0, 32, DATA, 0x10000000)), ==, 0x04);
    end();
}

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint8_t reserved[3], id;
};

static struct entry with_sgl(struct entry e, struct descriptor first)
{
    e.cdw0 |= SGL << 8;
    memcpy(&e.prp1, &first, sizeof first);
    return e;
}

static void sgls(void)
{
    struct entry e = transfer(READ, 5, 8, 0, 0);
    begin_io();
    g_assert_cmphex(run(&io, with_sgl(e, (struct descriptor){ DATA + 3, PAGE, { 0 }, 0 })), ==, 0);
    g_assert_true(same(DATA + 3, 5 * 512, PAGE));
    struct descriptor list[4] = {
        { DATA, 100, { 0 }, 0 },
        { DATA + 0x3000, 0, { 0 }, 0 },
        { DATA + 0x1000, 1948, { 0 }, 0 },
        { LIST + 0x100, 32, { 0 }, 0x30 },
    };
    struct descriptor tail[2] = { { DATA + 0x5001, 2000, { 0 }, 0 },
                                  { DATA + 0x200, 48, { 0 }, 0 } };
    put(LIST, list, sizeof list);
    put(LIST + 0x100, tail, sizeof tail);
    struct descriptor segment = { LIST, sizeof list, { 0 }, 0x20 };
    g_assert_cmphex(run(&io, with_sgl(e, segment)), ==, 0);
    g_assert_true(same(DATA, 5 * 512, 100));
    g_assert_true(same(DATA + 0x1000, 5 * 512 + 100, 1948));
    g_assert_true(same(DATA + 0x5001, 5 * 512 + 2048, 2000));
    g_assert_true(same(DATA + 0x200, 5 * 512 + 4048, 48));

    tail[1].length = 49;
    put(LIST + 0x100, tail, sizeof tail);
    g_assert_cmphex(run(&io, with_sgl(e, segment)), ==, 0x0f | DNR);
    tail[1].length = 47;
    put(LIST + 0x100, tail, sizeof tail);
    g_assert_cmphex(run(&io, with_sgl(e, segment)), ==, 0x0f | DNR);
    segment.length = 33;
    g_assert_cmphex(run(&io, with_sgl(e, segment)), ==, 0x0d | DNR);
    list[3] = (struct descriptor){ LIST, sizeof list, { 0 }, 0x20 }; /* for ever */
    list[0].length = list[2].length = 0;
    put(LIST, list, sizeof list);
    segment.length = sizeof list;
    g_assert_cmphex(run(&io, with_sgl(e, segment)), ==, 0x0e | DNR);
    g_assert_cmphex(run(&io, with_sgl(e, (struct descriptor){ DATA, PAGE, { 0 }, 0x10 })), ==,
                    0x11 | DNR);
    g_assert_cmphex(run(&io, with_sgl(e, (struct descriptor){ DATA, PAGE, { 0 }, 0x01 })), ==,
                    0x11 | DNR);
    g_assert_cmphex(run(&io, with_sgl(e, (struct descriptor){ RIG_RAM - 8, PAGE, { 0 }, 0 })), ==,
                    0x04);
    end();
}

/* --- the NVM command set --------------------------------------------------------------------- */

static void io_errors(void)
{
    begin_io();
    unsigned sectors = RIG_DISK_SIZE / 512;
    g_assert_cmphex(run(&io, transfer(READ, sectors - 8, 8, DATA, 0)), ==, 0);
    g_assert_cmphex(run(&io, transfer(READ, sectors - 7, 8, DATA, 0)), ==, 0x80 | DNR);
    g_assert_cmphex(run(&io, transfer(READ, UINT64_MAX, 8, DATA, 0)), ==, 0x80 | DNR);
    struct entry e = transfer(READ, 0, 8, DATA, 0);
    e.nsid = 0;
    g_assert_cmphex(run(&io, e), ==, 0x0b | DNR);
    e.nsid = 2;
    g_assert_cmphex(run(&io, e), ==, 0x0b | DNR);
    e.nsid = 1;
    e.cdw0 |= 1 << 8; /* fused */
    g_assert_cmphex(run(&io, e), ==, 0x02 | DNR);
    e.cdw0 = READ | 0xc0 << 8;
    g_assert_cmphex(run(&io, e), ==, 0x02 | DNR);
    e.cdw0 = 4;
    g_assert_cmphex(run(&io, e), ==, 0x01 | DNR);
    g_assert_cmphex(run(&io, transfer(READ, 0, 2048, DATA, LIST)), ==, 0); /* all of it to page 0 */
    rig->disk->disk.size *= 4; /* so that the range is no reason */
    g_assert_cmphex(run(&io, transfer(READ, 0, 2049, DATA, LIST)), ==, 0x02 | DNR); /* MDTS */
    rig->disk->disk.size /= 4;
    rig->disk->disk.readonly = true;
    g_assert_cmphex(run(&io, transfer(WRITE, 0, 8, DATA, 0)), ==, 0x20 | DNR);
    g_assert_cmphex(run(&io, transfer(ZEROES, 0, 8, 0, 0)), ==, 0x20 | DNR);
    g_assert_cmphex(run(&io, transfer(READ, 0, 8, DATA, 0)), ==, 0);
    g_assert_cmphex(identify(0, 1), ==, 0);
    g_assert_cmphex(peek(ANSWER + 99, 1), ==, 1);
    end();
}

static void writes(void)
{
    begin_io();
    fill(DATA, PAGE, 9);
    g_assert_cmphex(run(&io, transfer(WRITE, 100, 8, DATA, 0)), ==, 0);
    g_assert_true(same(DATA, 100 * 512, PAGE));
    g_assert_cmpuint(rig->disk->submitted, ==, 1);
    /* FUA: the flush comes after the write, and the end after both. */
    struct entry fua = transfer(WRITE, 200, 8, DATA, 0);
    fua.cdw12 |= FUA;
    submit(&io, fua);
    g_assert_true(rig_disk_step(rig));
    g_assert_false(take(&io));
    g_assert_cmpuint(rig->disk->first->op, ==, DISK_FLUSH);
    g_assert_true(rig_disk_step(rig));
    g_assert_true(take(&io));
    g_assert_cmphex(last.status >> 1, ==, 0);
    g_assert_true(same(DATA, 200 * 512, PAGE));
    /* Without the write cache, every write is like that. */
    g_assert_cmphex(set_feature(6, 0, 0), ==, 0);
    rig->disk->submitted = 0;
    g_assert_cmphex(run(&io, transfer(WRITE, 300, 8, DATA, 0)), ==, 0);
    g_assert_cmpuint(rig->disk->submitted, ==, 2);
    g_assert_cmphex(run(&io, transfer(ZEROES, 301, 2, 0, 0)), ==, 0);
    g_assert_cmpuint(rig->disk->submitted, ==, 4);
    for (unsigned i = 0; i < 1024; i++)
        g_assert_cmpuint(rig->disk->data[301 * 512 + i], ==, 0);
    g_assert_cmpuint(rig->disk->data[303 * 512], !=, 0);

    struct entry flush = { .cdw0 = FLUSH, .nsid = 1 };
    g_assert_cmphex(run(&io, flush), ==, 0);
    flush.nsid = UINT32_MAX;
    g_assert_cmphex(run(&io, flush), ==, 0);
    g_assert_cmpuint(rig->disk->submitted, ==, 6);
    end();
}

/* Section 6.6: the disk against memory, in pieces of the disk and pages of memory. */
static void compares(void)
{
    enum { SECTORS = 300, BYTES = SECTORS * 512, ODD = 0x200 };
    begin_io();
    uint64_t pages[(BYTES + ODD) / PAGE];
    for (unsigned i = 0; i < G_N_ELEMENTS(pages); i++)
        pages[i] = DATA + (i + 1) * PAGE;
    put(LIST, pages, sizeof pages);
    put(DATA + ODD, rig->disk->data + 10 * 512, BYTES);
    struct entry e = transfer(COMPARE, 10, SECTORS, DATA + ODD, LIST);
    g_assert_cmphex(run(&io, e), ==, 0);
    g_assert_cmpuint(rig->disk->submitted, ==, 3);    /* 64 KiB each */
    g_assert_true(same(DATA + ODD, 10 * 512, BYTES)); /* neither was changed */
    /* The last byte, one in a later piece, the first one. */
    const unsigned wrong[] = { BYTES - 1, 66000, 0 };
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        uint8_t *byte = &rig->disk->data[10 * 512 + wrong[i]];
        *byte ^= 1;
        g_assert_cmphex(run(&io, e), ==, 0x285);
        *byte ^= 1;
    }
    g_assert_cmphex(run(&io, e), ==, 0);
    g_assert_cmphex(run(&io, transfer(COMPARE, 11, 8, DATA + ODD, DATA + PAGE)), ==, 0x285);
    g_assert_cmphex(run(&io, transfer(COMPARE, RIG_DISK_SIZE / 512, 1, DATA, 0)), ==, 0x80 | DNR);
    rig->disk->disk.readonly = true;
    g_assert_cmphex(run(&io, e), ==, 0);
    g_assert_cmphex(identify(1, 0), ==, 0);
    g_assert_cmphex(peek(ANSWER + 520, 2) & 1, ==, 1);
    end();
}

/* More Compares than there is room for: the others wait, and have their turn. */
static void many_compares(void)
{
    enum { MANY = 40 };
    begin();
    create_io(64);
    put(DATA, rig->disk->data, 512);
    for (unsigned i = 0; i < MANY; i++)
        add(&io, transfer(COMPARE, 0, 1, DATA, 0));
    ring(&io);
    g_assert_cmpuint(rig->disk->submitted, ==, 16);
    for (unsigned i = 0; i < MANY; i++) {
        rig_disk_run(rig);
        g_assert_true(take(&io));
        g_assert_cmphex(last.status >> 1, ==, 0);
    }
    g_assert_cmpuint(rig->disk->submitted, ==, MANY);
    end();
}

static void deallocate(void)
{
    struct {
        uint32_t attributes, length;
        uint64_t lba;
    } ranges[256] = { { 0, 2, 10 }, { 0, 0, 7 }, { 0, 1, 20 } };
    begin_io();
    struct entry e = { .cdw0 = DSM, .nsid = 1, .prp1 = DATA, .cdw10 = 2, .cdw11 = 4 };
    put(DATA, ranges, sizeof ranges);
    g_assert_cmphex(run(&io, e), ==, 0);
    g_assert_cmpuint(rig->disk->submitted, ==, 2); /* the empty range is none */
    g_assert_cmpuint(rig->disk->data[10 * 512 + 1023], ==, 0);
    g_assert_cmpuint(rig->disk->data[20 * 512 + 511], ==, 0);
    g_assert_cmpuint(rig->disk->data[21 * 512 + 511], !=, 0);
    for (unsigned i = 0; i < 256; i++)
        ranges[i].length = 1, ranges[i].lba = 100 + 2 * i;
    put(DATA, ranges, sizeof ranges);
    e.cdw10 = 255;
    g_assert_cmphex(run(&io, e), ==, 0);
    g_assert_cmpuint(rig->disk->submitted, ==, 258);
    e.cdw11 = 0; /* hints */
    g_assert_cmphex(run(&io, e), ==, 0);
    g_assert_cmpuint(rig->disk->submitted, ==, 258);
    ranges[200].lba = RIG_DISK_SIZE / 512;
    put(DATA, ranges, sizeof ranges);
    e.cdw11 = 4;
    g_assert_cmphex(run(&io, e), ==, 0x80 | DNR);
    g_assert_cmpuint(rig->disk->submitted, ==, 258); /* nothing at all was discarded */
    end();
}

/* --- queues ---------------------------------------------------------------------------------- */

/* Three times round: the phase tag turns each time, SQHD follows. */
static void phases(void)
{
    begin();
    create_io(5);
    for (unsigned i = 0; i < 17; i++) {
        g_assert_cmphex(run(&io, transfer(READ, i, 1, DATA, 0)), ==, 0);
        g_assert_cmpuint(last.head, ==, (i + 1) % 5);
        g_assert_true(same(DATA, i * 512, 512));
    }
    end();
}

/* Completions wait while the driver takes none, and fetching stops. */
static void full_completion_queue(void)
{
    begin();
    io = (struct pair){ SQ, CQ, 16, 0, 0, true };
    g_assert_cmphex(create_cq(1, 4, 0), ==, 0);
    g_assert_cmphex(create_sq(1, 16, 1), ==, 0);
    for (unsigned i = 0; i < 10; i++)
        add(&io, transfer(READ, i, 1, DATA + i * 512, 0));
    ring(&io);
    rig_disk_run(rig);
    struct pair taken = { SQ, CQ, 4, 0, 0, true };
    for (unsigned i = 0; i < 3; i++)
        g_assert_true(take_silently(&taken));
    g_assert_false(take_silently(&taken));
    for (unsigned i = 3; i < 10; i++) {
        set(DOORBELL + 8 + 4, taken.head);
        turn();
        rig_disk_run(rig);
        g_assert_true(take_silently(&taken));
    }
    g_assert_true(same(DATA, 0, 10 * 512));
    end();
}

static void invalid_doorbells(void)
{
    begin_io();
    uint16_t first = submit(&admin, (struct entry){ .cdw0 = AER });
    g_assert_false(take(&admin));
    set(DOORBELL + 8, 16); /* beyond the queue */
    g_assert_true(take(&admin));
    g_assert_cmpuint(last.cid, ==, first);
    g_assert_cmphex(last.status >> 1, ==, 0);
    g_assert_cmphex(last.result, ==, 0x010100);
    submit(&admin, (struct entry){ .cdw0 = AER });
    set(DOORBELL + 8 + 4, 3);     /* entries that were never posted */
    g_assert_false(take(&admin)); /* masked until the log is read */
    g_assert_cmphex(get_log(1, 64, 0, true), ==, 0);
    g_assert_false(take(&admin)); /* that retained the event */
    submit(&admin, (struct entry){ .cdw0 = GET_LOG, .prp1 = ANSWER, .cdw10 = 15 << 16 | 1 });
    g_assert_true(take(&admin));
    g_assert_true(take(&admin));
    g_assert_cmphex(last.result, ==, 0x010100);
    submit(&admin, (struct entry){ .cdw0 = AER });
    set(DOORBELL + 3 * 8, 1); /* no such queue */
    g_assert_false(take(&admin));
    g_assert_cmphex(run(&io, transfer(READ, 0, 1, DATA, 0)), ==, 0); /* no harm was done */
    end();
}

static void async_events(void)
{
    begin();
    uint16_t cids[4];
    for (unsigned i = 0; i < 4; i++)
        cids[i] = submit(&admin, (struct entry){ .cdw0 = AER });
    g_assert_cmphex(run(&admin, (struct entry){ .cdw0 = AER }), ==, 0x105 | DNR);
    /* An Abort takes one back (5.1). */
    submit(&admin, (struct entry){ .cdw0 = ABORT, .cdw10 = (uint32_t)cids[1] << 16 });
    g_assert_true(take(&admin));
    g_assert_cmpuint(last.cid, ==, cids[1]);
    g_assert_cmphex(last.status >> 1, ==, 0x07);
    g_assert_true(take(&admin));
    g_assert_cmpuint(last.result, ==, 0);
    g_assert_cmphex(run(&admin, (struct entry){ .cdw0 = ABORT, .cdw10 = 0x12340001 }), ==, 0);
    g_assert_cmpuint(last.result, ==, 1);
    /* It is warmer than this threshold: 20 C. */
    submit(&admin, (struct entry){ .cdw0 = SET, .cdw10 = 4, .cdw11 = 293 });
    g_assert_true(take(&admin));
    g_assert_true(take(&admin));
    g_assert_cmphex(last.result, ==, 0x020101);
    g_assert_cmphex(get_log(2, 512, 0, false), ==, 0);
    g_assert_cmphex(peek(ANSWER, 1), ==, 2);
    /* The disk grows. */
    rig->disk->disk.size -= PAGE;
    g_mutex_lock(&rig->dev->lock);
    rig->dev->class->disk_resized(rig->dev, 0);
    g_mutex_unlock(&rig->dev->lock);
    g_assert_true(take(&admin));
    g_assert_cmphex(last.result, ==, 0x040002);
    g_assert_cmphex(get_log(4, 4096, 0, false), ==, 0);
    g_assert_cmpuint(peek(ANSWER, 4), ==, 1);
    g_assert_cmphex(get_log(4, 4096, 0, false), ==, 0);
    g_assert_cmpuint(peek(ANSWER, 4), ==, 0);
    rig->disk->disk.size += PAGE;
    end();
}

static void interrupts(void)
{
    begin_io();
    struct rig_line *line = rig_line(rig, "intx");
    g_assert_false(line->level);
    submit(&io, transfer(READ, 0, 1, DATA, 0));
    rig_disk_run(rig);
    turn();
    g_assert_true(line->level);
    set(INTMS, 1);
    g_assert_false(line->level);
    g_assert_cmphex(reg(INTMC), ==, 1);
    set(INTMC, 1);
    g_assert_true(line->level);
    g_assert_true(take(&io));
    g_assert_false(line->level);
    set(CC, 0);

    /* MSI-X: one message for all that ends together. */
    uint64_t table = rig_bar(rig, 4);
    unsigned capability = rig_config_read(rig, PCI_CAPABILITIES, 1);
    g_assert_cmphex(rig_config_read(rig, capability, 1), ==, 0x11);
    g_assert_cmphex(rig_config_read(rig, capability + 2, 2) & 0x7ff, ==, 64); /* 65 vectors */
    for (unsigned i = 0; i < 5; i++) {
        rig_store(rig, table + i * 16, 4, 0xfee00000);
        rig_store(rig, table + i * 16 + 8, 4, 0x40 + i);
        rig_store(rig, table + i * 16 + 12, 4, 0);
    }
    rig_config_write(rig, capability + 2, 2, 0x8000);
    enable();
    io = (struct pair){ SQ, CQ, 16, 0, 0, true };
    g_assert_cmphex(create_cq(1, 16, 65), ==, 0x108 | DNR);
    g_assert_cmphex(create_cq(1, 16, 2), ==, 0);
    g_assert_cmphex(create_sq(1, 16, 1), ==, 0);
    for (unsigned i = 0; i < 8; i++)
        add(&io, transfer(READ, i, 1, DATA, 0));
    ring(&io);
    rig->msis = 0;
    rig_disk_run(rig);
    turn();
    g_assert_cmpuint(rig->msis, ==, 1);
    g_assert_cmphex(rig->last_msi.data, ==, 0x42);
    for (unsigned i = 0; i < 8; i++)
        g_assert_true(take(&io));
    g_assert_false(line->level);
    end();
}

/* A reset waits for what is in flight, which then ends without a trace (7.3). */
static void reset_in_flight(void)
{
    begin_io();
    for (unsigned i = 0; i < 3; i++)
        submit(&io, transfer(READ, i, 1, DATA, 0));
    set(CC, 0);
    g_assert_cmphex(reg(CSTS), ==, RDY);
    set(CC, CC_ON); /* a driver that does not wait */
    g_assert_cmphex(reg(CSTS), ==, RDY);
    set(CC, 0);
    g_assert_true(rig_disk_step(rig));
    g_assert_cmphex(reg(CSTS), ==, RDY);
    rig_disk_run(rig);
    turn();
    g_assert_cmphex(reg(CSTS), ==, 0);
    for (unsigned i = 0; i < 16; i++)
        g_assert_cmpuint(peek(CQ + i * 16 + 12, 4), ==, 0);
    enable();
    create_io(16);
    g_assert_cmphex(run(&io, transfer(READ, 9, 8, DATA, 0)), ==, 0);
    g_assert_true(same(DATA, 9 * 512, PAGE));
    submit(&io, transfer(READ, 9, 8, DATA, 0));
    set(CC, 0);
    set(CC, CC_ON); /* enabled when drained */
    rig_disk_run(rig);
    g_assert_cmphex(reg(CSTS), ==, RDY);
    end();
}

static void deletion_in_flight(void)
{
    begin_io();
    uint16_t read = submit(&io, transfer(READ, 1, 1, DATA, 0));
    uint16_t gone = submit(&admin, (struct entry){ .cdw0 = DELETE_SQ, .cdw10 = 1 });
    g_assert_false(take(&admin));
    g_assert_cmphex(run(&admin, (struct entry){ .cdw0 = DELETE_CQ, .cdw10 = 1 }), ==, 0x10c | DNR);
    g_assert_true(take(&io));
    g_assert_cmpuint(last.cid, ==, read);
    g_assert_cmphex(last.status >> 1, ==, 0);
    g_assert_true(take(&admin));
    g_assert_cmpuint(last.cid, ==, gone);
    g_assert_cmphex(run(&admin, (struct entry){ .cdw0 = DELETE_CQ, .cdw10 = 1 }), ==, 0);
    create_io(8);
    g_assert_cmphex(run(&io, transfer(READ, 9, 8, DATA, 0)), ==, 0);
    end();
}

/* 7.6.2: what runs ends, and the disk is flushed. */
static void shutdown(void)
{
    begin_io();
    submit(&io, transfer(WRITE, 1, 1, DATA, 0));
    set(CC, CC_ON | 1 << 14);
    g_assert_cmphex(reg(CSTS), ==, RDY | 1 << 2);
    g_assert_true(rig_disk_step(rig));
    g_assert_cmpuint(rig->disk->first->op, ==, DISK_FLUSH);
    g_assert_cmphex(reg(CSTS), ==, RDY | 1 << 2);
    g_assert_true(rig_disk_step(rig));
    g_assert_cmphex(reg(CSTS), ==, RDY | 2 << 2);
    g_assert_true(take(&io));
    submit(&io, transfer(READ, 1, 1, DATA, 0)); /* not any more */
    g_assert_null(rig->disk->first);
    set(CC, 0);
    g_assert_cmphex(reg(CSTS), ==, 0);
    enable();
    end();
}

/* 7.13: the doorbell is rung only when EventIdx asks for it. */
static void shadow_doorbells(void)
{
    begin_io();
    struct entry e = { .cdw0 = DBBUF, .prp1 = SHADOW, .prp2 = EVENTS + 8 };
    g_assert_cmphex(run(&admin, e), ==, 0x02 | DNR);
    e.prp2 = EVENTS;
    g_assert_cmphex(run(&io, transfer(READ, 1, 1, DATA, 0)), ==, 0);
    g_assert_cmphex(run(&admin, e), ==, 0);
    g_assert_cmpuint(peek(SHADOW + 8, 4), ==, 1); /* as the registers are */
    g_assert_cmpuint(peek(SHADOW + 12, 4), ==, 1);
    g_assert_cmpuint(peek(EVENTS + 8, 4), ==, 1);
    add(&io, transfer(READ, 7, 8, DATA, 0));
    poke32(SHADOW + 8, io.tail);
    turn(); /* the loop looks before it sleeps */
    g_assert_cmpuint(peek(EVENTS + 8, 4), ==, io.tail);
    rig_disk_run(rig);
    turn();
    g_assert_true(take_silently(&io));
    g_assert_true(same(DATA, 7 * 512, PAGE));
    g_assert_true(rig_line(rig, "intx")->level);
    poke32(SHADOW + 12, io.head);
    turn();
    g_assert_false(rig_line(rig, "intx")->level);
    g_assert_cmpuint(peek(EVENTS + 12, 4), ==, io.head);
    poke32(SHADOW + 8, 99); /* is ignored, and told */
    submit(&admin, (struct entry){ .cdw0 = AER });
    g_assert_true(take(&admin));
    g_assert_cmphex(last.result, ==, 0x010100);
    poke32(SHADOW + 8, io.tail);
    e.cdw0 = IDENTIFY;
    g_assert_cmphex(identify(1, 0), ==, 0); /* the admin queue's stay registers */
    end();
}

static void hostile_memory(void)
{
    begin_io();
    set(CC, 0);
    rig_store(rig, rig_bar(rig, 0) + REG_ASQ, 8, 0x7ffff000);
    set(CC, CC_ON);
    set(DOORBELL, 1);
    turn();
    g_assert_cmphex(reg(CSTS), ==, RDY | CFS);
    set(CC, 0);
    g_assert_cmphex(reg(CSTS), ==, 0);
    enable();
    rig_config_write(rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY); /* no bus master: nothing moves */
    set(DOORBELL, 1);
    turn();
    g_assert_cmphex(reg(CSTS), ==, RDY);
    rig_config_write(rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    g_assert_cmphex(identify(1, 0), ==, 0);
    end();
}

/* A state that comes while the controller runs replaces what it was. */
static void loaded_again(void)
{
    begin_io();
    g_autoptr(GByteArray) state = g_byte_array_new();
    device_save(rig->dev, state);
    for (int i = 0; i < 3; i++) {
        const uint8_t *in = state->data;
        size_t length = state->len;
        g_assert_true(device_load(rig->dev, &in, &length, NULL));
        g_assert_cmphex(reg(CSTS), ==, RDY);
    }
    g_assert_cmphex(identify(1, 0), ==, 0);
    end();
}

/* More than there are commands and tables for: the rest waits for its turn. */
static void many(void)
{
    uint64_t list[512];
    begin();
    io = (struct pair){ 0x80000, 0xa0000, 1024, 0, 0, true };
    struct entry e = { .cdw0 = CREATE_CQ, .prp1 = io.cq, .cdw10 = 1023 << 16 | 1, .cdw11 = 3 };
    g_assert_cmphex(run(&admin, e), ==, 0);
    e = (struct entry){ .cdw0 = CREATE_SQ, .prp1 = io.sq, .cdw10 = 1023 << 16 | 1 };
    e.cdw11 = 1 << 16 | 1;
    g_assert_cmphex(run(&admin, e), ==, 0);
    for (unsigned i = 0; i < 512; i++)
        list[i] = DATA + i % 16 * PAGE;
    put(LIST, list, sizeof list);
    for (unsigned i = 0; i < 1000; i++)
        add(&io, transfer(READ, i % 64, 128, DATA, LIST)); /* 64 KiB */
    ring(&io);
    g_assert_cmpuint(rig->disk->submitted, ==, 64); /* as many as tables */
    for (unsigned i = 0; i < 1000; i++) {
        g_assert_true(rig_disk_step(rig));
        g_assert_true(take(&io));
        g_assert_cmphex(last.status >> 1, ==, 0);
    }
    g_assert_cmpuint(rig->disk->submitted, ==, 1000);
    end();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nvme/registers", registers);
    g_test_add_func("/nvme/identify", identities);
    g_test_add_func("/nvme/options", options);
    g_test_add_func("/nvme/queue-errors", queue_errors);
    g_test_add_func("/nvme/features", features);
    g_test_add_func("/nvme/logs", logs);
    g_test_add_func("/nvme/prps", prps);
    g_test_add_func("/nvme/sgls", sgls);
    g_test_add_func("/nvme/io-errors", io_errors);
    g_test_add_func("/nvme/writes", writes);
    g_test_add_func("/nvme/compares", compares);
    g_test_add_func("/nvme/many-compares", many_compares);
    g_test_add_func("/nvme/deallocate", deallocate);
    g_test_add_func("/nvme/phases", phases);
    g_test_add_func("/nvme/full-completion-queue", full_completion_queue);
    g_test_add_func("/nvme/invalid-doorbells", invalid_doorbells);
    g_test_add_func("/nvme/async-events", async_events);
    g_test_add_func("/nvme/interrupts", interrupts);
    g_test_add_func("/nvme/reset-in-flight", reset_in_flight);
    g_test_add_func("/nvme/deletion-in-flight", deletion_in_flight);
    g_test_add_func("/nvme/shutdown", shutdown);
    g_test_add_func("/nvme/shadow-doorbells", shadow_doorbells);
    g_test_add_func("/nvme/hostile-memory", hostile_memory);
    g_test_add_func("/nvme/loaded-again", loaded_again);
    g_test_add_func("/nvme/many", many);
    return g_test_run();
}
