/* The AHCI controller and its drives, driven as a driver would: command list, tables and FISes in
 * guest memory, registers through the BAR. Section numbers are of AHCI 1.3.1. */
#include "rig/rig.h"

#include <errno.h>
#include <string.h>

enum { LIST = 0x1000, FISES = 0x2000, TABLES = 0x4000, TABLE = 0x1000, DATA = 0x40000 };
enum {
    GHC = 0x04,
    IS = 0x08,
    CLB = 0x00,
    FB = 0x08,
    PIS = 0x10,
    PIE = 0x14,
    CMD = 0x18,
    TFD = 0x20,
    SIG = 0x24,
    SSTS = 0x28,
    SCTL = 0x2c,
    SERR = 0x30,
    SACT = 0x34,
    CI = 0x38
};
enum { ST = 1, CLO = 8, FRE = 0x10, CR = 0x8000, BSY = 0x80, ERR = 1 };
enum {
    DHRS = 1,
    PSS = 2,
    SDBS = 8,
    DPS = 0x20,
    OFS = 1 << 24,
    IFS = 1 << 27,
    HBFS = 1 << 29,
    TFES = 1 << 30
};
enum { WRITES = 0x40, PACKET = 0x20, CD = 1 /* the port with the CD drive */ };

struct part {
    uint64_t at;
    uint32_t length;
};

static uint32_t hba(struct rig *rig, unsigned offset)
{
    return (uint32_t)rig_load(rig, rig_bar(rig, 5) + offset, 4);
}

static void hba_set(struct rig *rig, unsigned offset, uint32_t value)
{
    rig_store(rig, rig_bar(rig, 5) + offset, 4, value);
}

static uint32_t port(struct rig *rig, unsigned n, unsigned offset)
{
    return hba(rig, 0x100 + n * 0x80 + offset);
}

static void port_set(struct rig *rig, unsigned n, unsigned offset, uint32_t value)
{
    hba_set(rig, 0x100 + n * 0x80 + offset, value);
}

static void put(struct rig *rig, uint64_t at, const void *data, size_t length)
{
    g_assert_true(guest_write(rig->board.guest, GPA(at), data, length));
}

static void get(struct rig *rig, uint64_t at, void *data, size_t length)
{
    g_assert_true(guest_read(rig->board.guest, GPA(at), data, length));
}

static uint8_t byte(struct rig *rig, uint64_t at)
{
    uint8_t value;
    get(rig, at, &value, 1);
    return value;
}

static void start(struct rig *rig, unsigned n)
{
    port_set(rig, n, CLB, LIST);
    port_set(rig, n, FB, FISES);
    port_set(rig, n, SERR, UINT32_MAX);
    port_set(rig, n, PIS, UINT32_MAX);
    port_set(rig, n, PIE, UINT32_MAX);
    port_set(rig, n, CMD, FRE);
    port_set(rig, n, CMD, FRE | ST);
    hba_set(rig, IS, UINT32_MAX);
    hba_set(rig, GHC, 2);
    g_assert_cmphex(port(rig, n, CMD) & CR, ==, CR);
}

/* What a driver does after an error (6.2.2.1). */
static void restart(struct rig *rig, unsigned n)
{
    port_set(rig, n, CMD, FRE);
    g_assert_cmphex(port(rig, n, CMD) & CR, ==, 0);
    g_assert_cmphex(port(rig, n, CI) | port(rig, n, SACT), ==, 0);
    port_set(rig, n, PIS, UINT32_MAX);
    hba_set(rig, IS, UINT32_MAX);
    port_set(rig, n, CMD, FRE | ST);
}

static struct rig *new_rig(void)
{
    struct rig *rig = rig_new(device_class_find("ahci"), NULL);
    for (unsigned i = 0; i < RIG_DISK_SIZE; i++)
        rig->disk->data[i] = (uint8_t)(i ^ i >> 9);
    start(rig, 0);
    start(rig, CD);
    return rig;
}

struct fis {
    uint8_t command;
    uint64_t lba;
    uint16_t count, features;
    uint8_t device, control;
};

/* Puts a command into a slot, without issuing it. */
static void prepare(struct rig *rig, unsigned slot, struct fis f, unsigned flags,
                    const struct part *parts, unsigned count)
{
    uint64_t table = TABLES + slot * TABLE;
    uint32_t header[8] = { 5 | flags | count << 16, 0xffffffff, (uint32_t)table, 0 };
    uint8_t fis[20] = { 0x27,
                        f.control ? 0 : 0x80,
                        f.command,
                        (uint8_t)f.features,
                        (uint8_t)f.lba,
                        (uint8_t)(f.lba >> 8),
                        (uint8_t)(f.lba >> 16),
                        f.device ? f.device : 0x40,
                        (uint8_t)(f.lba >> 24),
                        (uint8_t)(f.lba >> 32),
                        (uint8_t)(f.lba >> 40),
                        (uint8_t)(f.features >> 8),
                        (uint8_t)f.count,
                        (uint8_t)(f.count >> 8),
                        0,
                        f.control & 0x7f };
    put(rig, LIST + slot * 32, header, sizeof header);
    put(rig, table, fis, sizeof fis);
    for (unsigned i = 0; i < count; i++) {
        uint32_t entry[4] = { (uint32_t)parts[i].at, (uint32_t)(parts[i].at >> 32), 0,
                              (parts[i].length - 1) | (i == count - 1 ? 0x80000000u : 0) };
        put(rig, table + 0x80 + i * 16, entry, sizeof entry);
    }
}

static void issue(struct rig *rig, unsigned n, uint32_t slots)
{
    port_set(rig, n, CI, slots);
}

/* One buffer at DATA, run to its end; returns PxTFD. */
static uint32_t run(struct rig *rig, unsigned n, struct fis f, unsigned flags, uint32_t length)
{
    struct part whole = { DATA, length };
    prepare(rig, 0, f, flags, &whole, length ? 1 : 0);
    issue(rig, n, 1);
    rig_disk_run(rig);
    return port(rig, n, TFD);
}

static uint32_t moved(struct rig *rig, unsigned slot)
{
    uint32_t value;
    get(rig, LIST + slot * 32 + 4, &value, 4);
    return value;
}

static bool same_as_disk(struct rig *rig, uint64_t at, size_t offset, size_t length)
{
    g_autofree uint8_t *data = g_malloc(length);
    get(rig, at, data, length);
    return !memcmp(data, rig->disk->data + offset, length);
}

/* --- the controller -------------------------------------------------------------------------- */

static void identity(void)
{
    struct rig *rig = rig_new(device_class_find("ahci"), NULL);
    g_assert_cmphex(rig_config_read(rig, 0, 4), ==, 0x29228086);
    g_assert_cmphex(rig_config_read(rig, 9, 2) | rig_config_read(rig, 11, 1) << 16, ==, 0x010601);
    g_assert_cmphex(rig_config_read(rig, PCI_HEADER_TYPE, 1), ==, 0x80);
    g_assert_cmphex(rig_config_read(rig, 0x80, 1), ==, 0x05);
    g_assert_cmphex(hba(rig, 0x10), ==, 0x00010301);
    g_assert_cmphex(hba(rig, 0x0c), ==, 0x3f);
    g_assert_cmphex(hba(rig, 0) & 0xc1001f1f, ==, 0xc1001f05); /* S64A SNCQ SCLO, 32 slots, 6 */
    g_assert_cmphex(hba(rig, GHC), ==, 0x80000000);
    g_assert_cmphex(port(rig, 0, SSTS), ==, 0x123);
    g_assert_cmphex(port(rig, 0, SIG), ==, 0x00000101);
    g_assert_cmphex(port(rig, CD, SIG), ==, 0xeb140101);
    g_assert_cmphex(port(rig, 2, SSTS), ==, 0);
    g_assert_cmphex(port(rig, 2, TFD), ==, 0x7f);
    port_set(rig, 0, FB, FISES); /* the signature's FIS comes when there is where to put it */
    g_assert_cmphex(byte(rig, FISES + 0x40), ==, 0);
    port_set(rig, 0, CMD, FRE);
    g_assert_cmphex(byte(rig, FISES + 0x40), ==, 0x34);
    g_assert_cmphex(byte(rig, FISES + 0x42), ==, 0x50);
    port_set(rig, 2, CMD, FRE | ST); /* nobody there: the list does not run */
    g_assert_cmphex(port(rig, 2, CMD) & CR, ==, 0);
    rig_free(rig);
}

static void interrupts(void)
{
    struct rig *rig = new_rig();
    struct rig_line *intx = rig_line(rig, "intx");
    g_assert_false(intx->level);
    run(rig, 0, (struct fis){ .command = 0xe5 }, 0, 0); /* CHECK POWER MODE */
    g_assert_true(intx->level);
    g_assert_cmphex(port(rig, 0, PIS), ==, DHRS);
    g_assert_cmphex(hba(rig, IS), ==, 1);
    hba_set(rig, IS, 1); /* comes back: PxIS still has its reason */
    g_assert_true(intx->level);
    port_set(rig, 0, PIS, DHRS);
    hba_set(rig, IS, 1);
    g_assert_false(intx->level);
    g_assert_cmphex(byte(rig, FISES + 0x4c), ==, 0xff); /* the answer: active */
    rig_free(rig);
}

/* 10.6.2: a message for each new bit of IS, and when some bits stay while others are cleared. */
static void messages(void)
{
    struct rig *rig = new_rig();
    rig_config_write(rig, 0x84, 4, 0xfee00000);
    rig_config_write(rig, 0x8c, 2, 0x41);
    rig_config_write(rig, 0x82, 2, 1);
    struct fis check = { .command = 0xe5 };
    run(rig, 0, check, 0, 0);
    g_assert_cmpuint(rig->msis, ==, 1);
    g_assert_cmphex(rig->last_msi.data, ==, 0x41);
    g_assert_false(rig_line(rig, "intx")->level);
    run(rig, CD, check, 0, 0);
    g_assert_cmpuint(rig->msis, ==, 2);
    port_set(rig, 0, PIS, DHRS);
    hba_set(rig, IS, 1);
    g_assert_cmpuint(rig->msis, ==, 3); /* port 1 still waits */
    port_set(rig, CD, PIS, DHRS);
    hba_set(rig, IS, 2);
    g_assert_cmpuint(rig->msis, ==, 3);
    run(rig, 0, check, 0, 0);
    port_set(rig, 0, PIS, DHRS);
    run(rig, 0, check, 0, 0); /* between the driver's clearing of PxIS and of IS */
    g_assert_cmpuint(rig->msis, ==, 4);
    hba_set(rig, IS, 1);
    g_assert_cmpuint(rig->msis, ==, 5);
    rig_free(rig);
}

static void waits_for_bus_mastering(void)
{
    struct rig *rig = new_rig();
    rig_config_write(rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    run(rig, 0, (struct fis){ .command = 0xe5 }, 0, 0);
    g_assert_cmphex(port(rig, 0, CI), ==, 1);
    g_assert_cmphex(port(rig, 0, PIS), ==, 0);
    rig_config_write(rig, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    g_assert_cmphex(port(rig, 0, CI), ==, 0);
    g_assert_cmphex(port(rig, 0, PIS), ==, DHRS);
    rig_free(rig);
}

/* --- disks ----------------------------------------------------------------------------------- */

static void identify(void)
{
    struct rig *rig = new_rig();
    uint8_t data[512], sum = 0;
    g_assert_cmphex(run(rig, 0, (struct fis){ .command = 0xec }, 0, 512), ==, 0x50);
    g_assert_cmphex(port(rig, 0, PIS), ==, PSS | DPS); /* PIO data-in ends without a D2H FIS */
    g_assert_cmphex(port(rig, 0, CI), ==, 0);
    g_assert_cmpuint(moved(rig, 0), ==, 512);
    g_assert_cmphex(byte(rig, FISES + 0x20), ==, 0x5f);
    g_assert_cmphex(byte(rig, FISES + 0x2f), ==, 0x50);
    get(rig, DATA, data, sizeof data);
    g_assert_cmpmem(data + 54, 8, "vhd si k", 8); /* "hv disk", swapped */
    g_assert_cmpuint(data[120] | data[121] << 8 | data[122] << 16, ==, RIG_DISK_SIZE / 512);
    for (unsigned i = 0; i < 512; i++)
        sum = (uint8_t)(sum + data[i]);
    g_assert_cmphex(sum, ==, 0);
    g_assert_cmphex(run(rig, 0, (struct fis){ .command = 0xa1 }, 0, 512) & ERR, ==, ERR);
    rig_free(rig);
}

static void dma(void)
{
    struct rig *rig = new_rig();
    /* Parts that end nowhere near sectors, odd ones made even (4.2.3.3). */
    static const struct part parts[] = {
        { DATA, 100 }, { DATA + 0x1000, 1000 }, { DATA + 0x2000, 2 }, { DATA + 0x3000, 3000 }
    };
    prepare(rig, 3, (struct fis){ .command = 0x25, .lba = 7, .count = 8 }, 0, parts, 4);
    issue(rig, 0, 1 << 3);
    g_assert_cmphex(port(rig, 0, CI), ==, 8);
    g_assert_cmphex(port(rig, 0, TFD) & BSY, ==, BSY);
    g_assert_cmphex(port(rig, 0, CMD) >> 8 & 0x1f, ==, 3);
    rig_disk_run(rig);
    g_assert_cmphex(port(rig, 0, CI), ==, 0);
    g_assert_cmphex(port(rig, 0, PIS), ==, DHRS | DPS);
    g_assert_cmphex(port(rig, 0, TFD), ==, 0x50);
    g_assert_cmpuint(moved(rig, 3), ==, 4096);
    g_assert_true(same_as_disk(rig, DATA, 7 * 512, 100));
    g_assert_true(same_as_disk(rig, DATA + 0x1000, 7 * 512 + 100, 1000));
    g_assert_true(same_as_disk(rig, DATA + 0x2000, 7 * 512 + 1100, 2));
    g_assert_true(same_as_disk(rig, DATA + 0x3000, 7 * 512 + 1102, 2994));
    rig_free(rig);
}

static void writes_only_what_was_asked(void)
{
    struct rig *rig = new_rig();
    g_autofree uint8_t *before = g_memdup2(rig->disk->data, RIG_DISK_SIZE);
    uint8_t data[1024];
    memset(data, 0xee, sizeof data);
    put(rig, DATA, data, sizeof data);
    run(rig, 0, (struct fis){ .command = 0xca, .lba = 100, .count = 2 }, WRITES, 1024);
    g_assert_cmphex(port(rig, 0, TFD), ==, 0x50);
    memcpy(before + 51200, data, sizeof data);
    g_assert_true(!memcmp(before, rig->disk->data, RIG_DISK_SIZE));
    /* PIO, by cylinder, head and sector: 1/6/42 is sector 1427. */
    struct fis chs = { .command = 0x30, .lba = 1 << 8 | 42, .count = 1, .device = 0xa6 };
    port_set(rig, 0, PIS, UINT32_MAX);
    run(rig, 0, chs, WRITES, 512);
    g_assert_cmphex(port(rig, 0, PIS), ==, PSS | DHRS | DPS);
    memcpy(before + 1427 * 512, data, 512);
    g_assert_true(!memcmp(before, rig->disk->data, RIG_DISK_SIZE));
    rig_free(rig);
}

/* More spans than a request takes: several requests, one command. */
static void long_table(void)
{
    enum { PARTS = 600, LENGTH = 66, SECTORS = 77 };
    struct rig *rig = new_rig();
    struct part parts[PARTS];
    uint8_t seen[PARTS * LENGTH];
    for (unsigned i = 0; i < PARTS; i++)
        parts[i] = (struct part){ DATA + i * 256, LENGTH };
    prepare(rig, 0, (struct fis){ .command = 0x25, .count = SECTORS }, 0, parts, PARTS);
    issue(rig, 0, 1);
    rig_disk_run(rig);
    g_assert_cmpuint(moved(rig, 0), ==, SECTORS * 512);
    g_assert_cmpuint(rig->disk->submitted, ==, 3);
    for (unsigned i = 0; i < PARTS; i++)
        get(rig, parts[i].at, seen + i * LENGTH, LENGTH);
    g_assert_true(!memcmp(seen, rig->disk->data, SECTORS * 512));
    rig_free(rig);
}

/* 65535 entries, two bytes each, all at one place: bounded requests, and the right end. */
static void endless_table(void)
{
    enum { AT = 0x50000, ENTRIES = 32 * 256 };
    struct rig *rig = new_rig();
    uint32_t entry[4] = { DATA, 0, 0, 1 };
    for (unsigned i = 0; i < ENTRIES; i++)
        put(rig, AT + 0x80 + i * 16, entry, sizeof entry);
    prepare(rig, 0, (struct fis){ .command = 0x25, .count = 32 }, 0, NULL, 0);
    uint32_t header[3] = { 5 | 0xffffu << 16, 0, AT };
    uint8_t fis[20];
    get(rig, TABLES, fis, sizeof fis);
    put(rig, LIST, header, sizeof header);
    put(rig, AT, fis, sizeof fis);
    issue(rig, 0, 1);
    rig_disk_run(rig);
    g_assert_cmpuint(rig->disk->submitted, ==, 32); /* a sector has 256 spans */
    g_assert_cmphex(port(rig, 0, TFD), ==, 0x50);
    g_assert_true(same_as_disk(rig, DATA, 32 * 512 - 2, 2));
    rig_free(rig);
}

static void queued(void)
{
    struct rig *rig = new_rig();
    for (unsigned slot = 0; slot < 32; slot++) {
        struct part part = { DATA + slot * 1024, 1024 };
        prepare(
            rig, slot,
            (struct fis){
                .command = 0x60, .lba = slot * 3, .count = (uint16_t)(slot << 3), .features = 2 },
            0, &part, 1);
    }
    port_set(rig, 0, SACT, UINT32_MAX);
    issue(rig, 0, UINT32_MAX);
    g_assert_cmpuint(rig->disk->submitted, ==, 32); /* all at once */
    g_assert_cmphex(port(rig, 0, CI), ==, 0);       /* accepted ... */
    g_assert_cmphex(port(rig, 0, SACT), ==, UINT32_MAX);
    g_assert_cmphex(port(rig, 0, TFD), ==, 0x50);
    g_assert_cmphex(port(rig, 0, PIS) & DHRS, ==, 0); /* ... without an interrupt */
    rig_disk_step(rig);
    g_assert_cmpuint(__builtin_popcount(port(rig, 0, SACT)), ==, 31);
    g_assert_cmphex(port(rig, 0, PIS), ==, SDBS | DPS);
    g_assert_cmphex(byte(rig, FISES + 0x58), ==, 0xa1);
    rig_disk_run(rig);
    g_assert_cmphex(port(rig, 0, SACT), ==, 0);
    for (unsigned slot = 0; slot < 32; slot++)
        g_assert_true(same_as_disk(rig, DATA + slot * 1024, slot * 3 * 512, 1024));
    rig_free(rig);
}

static void flushes(void)
{
    struct rig *rig = new_rig();
    struct fis write = { .command = 0x35, .count = 1 };
    run(rig, 0, write, WRITES, 512);
    g_assert_cmpuint(rig->disk->submitted, ==, 1);
    run(rig, 0, (struct fis){ .command = 0xea }, 0, 0);
    g_assert_cmpuint(rig->disk->submitted, ==, 2);
    write.command = 0x3d; /* WRITE DMA FUA EXT */
    run(rig, 0, write, WRITES, 512);
    g_assert_cmpuint(rig->disk->submitted, ==, 4);
    run(rig, 0, (struct fis){ .command = 0xef, .features = 0x82 }, 0, 0); /* cache off */
    write.command = 0x35;
    run(rig, 0, write, WRITES, 512);
    g_assert_cmpuint(rig->disk->submitted, ==, 7); /* flush, write, flush */
    rig->disk->fail = EIO;
    g_assert_cmphex(run(rig, 0, (struct fis){ .command = 0xe7 }, 0, 0) & 0x21, ==, 0x21);
    rig_free(rig);
}

static void trim(void)
{
    struct rig *rig = new_rig();
    uint64_t ranges[64] = { 10 | UINT64_C(2) << 48, 0, 20 | UINT64_C(1) << 48 };
    uint8_t zero[1024] = { 0 };
    put(rig, DATA, ranges, sizeof ranges);
    struct fis dsm = { .command = 0x06, .features = 1, .count = 1 };
    g_assert_cmphex(run(rig, 0, dsm, WRITES, 512), ==, 0x50);
    g_assert_cmpmem(rig->disk->data + 5120, 1024, zero, 1024);
    g_assert_cmpmem(rig->disk->data + 10240, 512, zero, 512);
    g_assert_cmphex(rig->disk->data[12 * 512 + 5], !=, 0);
    ranges[1] = UINT64_C(1) << 40 | UINT64_C(1) << 48; /* outside: nothing of it is done */
    put(rig, DATA, ranges, sizeof ranges);
    unsigned before = rig->disk->submitted;
    g_assert_cmphex(run(rig, 0, dsm, WRITES, 512), ==, 0x1051);
    g_assert_cmpuint(rig->disk->submitted, ==, before);
    rig_free(rig);
}

/* --- errors ---------------------------------------------------------------------------------- */

static void media_error(void)
{
    struct rig *rig = new_rig();
    struct fis read = { .command = 0x25, .lba = 33, .count = 4 };
    rig->disk->fail = EIO;
    struct part part = { DATA, 2048 };
    prepare(rig, 5, read, 0, &part, 1);
    prepare(rig, 6, read, 0, &part, 1);
    issue(rig, 0, 3 << 5); /* in turn: slot 5 first */
    rig_disk_run(rig);
    g_assert_cmphex(port(rig, 0, TFD), ==, 0x4051); /* UNC */
    g_assert_cmphex(port(rig, 0, PIS) & (TFES | DHRS), ==, TFES | DHRS);
    g_assert_cmphex(port(rig, 0, CI), ==, 3 << 5); /* stopped, with CCS at the one that failed */
    g_assert_cmphex(port(rig, 0, CMD) >> 8 & 0x1f, ==, 5);
    g_assert_cmphex(byte(rig, FISES + 0x44), ==, 33);
    g_assert_cmpuint(rig->disk->submitted, ==, 1);
    rig->disk->fail = 0;
    restart(rig, 0);
    g_assert_cmphex(run(rig, 0, read, 0, 2048), ==, 0x50);
    rig_free(rig);
}

static void outside_the_disk(void)
{
    struct rig *rig = new_rig();
    uint64_t end = RIG_DISK_SIZE / 512;
    struct fis read = { .command = 0x25, .lba = end - 1, .count = 2 };
    g_assert_cmphex(run(rig, 0, read, 0, 1024), ==, 0x1051); /* IDNF */
    restart(rig, 0);
    read.lba = UINT64_C(0xffffffffffff);
    g_assert_cmphex(run(rig, 0, read, 0, 1024), ==, 0x1051);
    restart(rig, 0);
    read = (struct fis){ .command = 0x25, .lba = end - 1, .count = 1 };
    g_assert_cmphex(run(rig, 0, read, 0, 512), ==, 0x50);
    g_assert_cmphex(run(rig, 0, (struct fis){ .command = 0xb0 }, 0, 0), ==, 0x0451); /* SMART */
    rig->disk->disk.readonly = true;
    restart(rig, 0);
    g_assert_cmphex(run(rig, 0, (struct fis){ .command = 0x35, .count = 1 }, WRITES, 512), ==,
                    0x0451);
    rig_free(rig);
}

/* The log page 10h tells which queued command failed; until it is read, others are aborted. */
static void queued_error(void)
{
    struct rig *rig = new_rig();
    struct part part = { DATA, 512 };
    for (unsigned slot = 0; slot < 3; slot++)
        prepare(
            rig, slot,
            (struct fis){
                .command = 0x60, .lba = 50 + slot, .count = (uint16_t)(slot << 3), .features = 1 },
            0, &part, 1);
    port_set(rig, 0, SACT, 7);
    issue(rig, 0, 7);
    rig_disk_step(rig);
    uint32_t left = port(rig, 0, SACT);
    rig->disk->fail = EIO;
    rig_disk_step(rig);
    rig->disk->fail = 0;
    g_assert_cmphex(port(rig, 0, PIS) & (TFES | SDBS), ==, TFES | SDBS);
    g_assert_cmphex(port(rig, 0, TFD) & 0xff01, ==, 0x4001);
    g_assert_cmphex(port(rig, 0, SACT), ==, left); /* of what runs on, nothing is told */
    port_set(rig, 0, CMD, FRE);
    g_assert_cmphex(port(rig, 0, CMD) & CR, ==, CR); /* not before the last request is back */
    rig_disk_run(rig);
    restart(rig, 0);
    g_assert_cmphex(run(rig, 0, (struct fis){ .command = 0xe7 }, 0, 0), ==, 0x0451);
    restart(rig, 0);
    struct fis log = { .command = 0x2f, .lba = 0x10, .count = 1 };
    g_assert_cmphex(run(rig, 0, log, 0, 512), ==, 0x50);
    unsigned tag = byte(rig, DATA);
    g_assert_true(left >> tag & 1);
    g_assert_cmphex(byte(rig, DATA + 3), ==, 0x40);
    g_assert_cmpuint(byte(rig, DATA + 4), ==, 50 + tag);
    g_assert_cmphex(run(rig, 0, (struct fis){ .command = 0xe7 }, 0, 0), ==, 0x50);
    rig_free(rig);
}

static void bad_memory(void)
{
    struct rig *rig = new_rig();
    struct part nowhere = { 0xf0000000, 4096 };
    struct fis read = { .command = 0x25, .count = 8 };
    prepare(rig, 0, read, 0, &nowhere, 1);
    issue(rig, 0, 1);
    g_assert_cmphex(port(rig, 0, PIS) & HBFS, ==, HBFS);
    g_assert_cmphex(port(rig, 0, CI), ==, 1);
    g_assert_cmpuint(rig->disk->submitted, ==, 0);
    restart(rig, 0);
    struct part bar = { rig_bar(rig, 5), 4096 }; /* its own registers are no memory either */
    prepare(rig, 0, (struct fis){ .command = 0xec }, 0, &bar, 1);
    issue(rig, 0, 1);
    g_assert_cmphex(port(rig, 0, PIS) & HBFS, ==, HBFS);
    restart(rig, 0);
    struct part top = { UINT64_MAX - 1023, 4096 };
    prepare(rig, 0, read, 0, &top, 1);
    issue(rig, 0, 1);
    g_assert_cmphex(port(rig, 0, PIS) & HBFS, ==, HBFS);
    port_set(rig, 0, CMD, FRE);
    port_set(rig, 0, CLB + 4, 0xffffffff); /* the list itself */
    restart(rig, 0);
    issue(rig, 0, 0x80000000);
    g_assert_cmphex(port(rig, 0, PIS) & HBFS, ==, HBFS);
    port_set(rig, 0, CMD, FRE);
    port_set(rig, 0, CLB + 4, 0);
    restart(rig, 0);
    put(rig, TABLES, "\x41", 1); /* no command FIS */
    issue(rig, 0, 1);
    g_assert_cmphex(port(rig, 0, PIS) & IFS, ==, IFS);
    restart(rig, 0);
    g_assert_cmphex(run(rig, 0, read, 0, 4096), ==, 0x50);
    rig_free(rig);
}

static void short_table(void)
{
    struct rig *rig = new_rig();
    g_assert_cmphex(run(rig, 0, (struct fis){ .command = 0x25, .count = 8 }, 0, 1024), ==, 0x50);
    g_assert_cmphex(port(rig, 0, PIS) & OFS, ==, OFS);
    g_assert_cmpuint(moved(rig, 0), ==, 1024);
    uint8_t data[512];
    memset(data, 0xdd, sizeof data);
    put(rig, DATA, data, sizeof data);
    struct fis write = { .command = 0x35, .lba = 4, .count = 8 };
    g_assert_cmphex(run(rig, 0, write, WRITES, 512) & ERR, ==, ERR);
    g_assert_cmpmem(rig->disk->data + 2048, 512, data, 512);
    g_assert_cmphex(rig->disk->data[2560 + 7], !=, 0xdd);
    rig_free(rig);
}

/* --- resets ---------------------------------------------------------------------------------- */

static void comreset_in_flight(void)
{
    struct rig *rig = new_rig();
    struct part part = { DATA, 4096 };
    prepare(rig, 0, (struct fis){ .command = 0x25, .count = 8 }, 0, &part, 1);
    issue(rig, 0, 1);
    port_set(rig, 0, CMD, FRE);
    port_set(rig, 0, PIS, UINT32_MAX);
    port_set(rig, 0, SCTL, 1);
    g_assert_cmphex(port(rig, 0, SSTS), ==, 0);
    port_set(rig, 0, SCTL, 0);
    g_assert_cmphex(port(rig, 0, SSTS), ==, 0x123);
    g_assert_cmphex(port(rig, 0, SERR) & 0x04000000, ==, 0x04000000);
    g_assert_cmphex(port(rig, 0, PIS) & 0x40, ==, 0x40); /* PCS follows SERR.DIAG.X */
    g_assert_cmphex(port(rig, 0, TFD) & BSY, ==, BSY);   /* until the old request is back */
    port_set(rig, 0, CMD, FRE | ST);
    g_assert_cmphex(port(rig, 0, CMD) & CR, ==, CR); /* which it held since before */
    issue(rig, 0, 1);
    g_assert_cmpuint(rig->disk->submitted, ==, 1);
    rig_disk_step(rig);
    g_assert_cmphex(port(rig, 0, SIG), ==, 0x101);
    g_assert_cmpuint(rig->disk->submitted, ==, 2); /* now the new one starts */
    rig_disk_run(rig);
    g_assert_cmphex(port(rig, 0, CI), ==, 0);
    rig_free(rig);
}

static void hba_reset_in_flight(void)
{
    struct rig *rig = new_rig();
    uint8_t data[2048];
    memset(data, 0xcc, sizeof data);
    put(rig, DATA, data, sizeof data);
    g_autofree uint8_t *before = g_memdup2(rig->disk->data, RIG_DISK_SIZE);
    struct part part = { DATA, 2048 };
    prepare(rig, 0, (struct fis){ .command = 0x35, .lba = 9, .count = 4 }, WRITES, &part, 1);
    issue(rig, 0, 1);
    hba_set(rig, GHC, 1);
    g_assert_cmphex(hba(rig, GHC) & 1, ==, 1); /* not done while the disk works */
    port_set(rig, 0, CI, 1);                   /* and deaf */
    rig_disk_run(rig);
    g_assert_cmphex(hba(rig, GHC), ==, 0x80000000);
    g_assert_cmphex(port(rig, 0, CI), ==, 0);
    g_assert_cmphex(port(rig, 0, PIE), ==, 0);
    g_assert_cmphex(port(rig, 0, CMD) & (ST | FRE | CR), ==, 0);
    g_assert_cmphex(port(rig, 0, CLB), ==, LIST); /* 10.4.3: stays */
    g_assert_cmphex(port(rig, 0, SIG), ==, 0x101);
    g_assert_false(rig_line(rig, "intx")->level);
    memcpy(before + 9 * 512, data, sizeof data); /* all of the write, nowhere else */
    g_assert_true(!memcmp(before, rig->disk->data, RIG_DISK_SIZE));
    rig_free(rig);
}

static void software_reset(void)
{
    struct rig *rig = new_rig();
    prepare(rig, 0, (struct fis){ .control = 0x84 }, 0x500, NULL, 0);
    issue(rig, 0, 1);
    g_assert_cmphex(port(rig, 0, CI), ==, 0);
    g_assert_cmphex(port(rig, 0, TFD) & BSY, ==, BSY);
    prepare(rig, 0, (struct fis){ .control = 0x80 }, 0, NULL, 0);
    memset(rig->disk->data, 0, 16);
    issue(rig, 0, 1);
    g_assert_cmphex(port(rig, 0, TFD), ==, 0x0150);
    g_assert_cmphex(port(rig, 0, SIG), ==, 0x101);
    g_assert_cmphex(byte(rig, FISES + 0x4c), ==, 1);
    rig_free(rig);
}

/* --- the CD drive ---------------------------------------------------------------------------- */

static uint32_t packet(struct rig *rig, const char *bytes, size_t length, uint32_t room)
{
    uint8_t command[16] = { 0 };
    struct part part = { DATA, room };
    if (port(rig, CD, TFD) & ERR)
        restart(rig, CD);
    memcpy(command, bytes, length);
    prepare(rig, 0, (struct fis){ .command = 0xa0, .features = 1 }, PACKET, &part, room ? 1 : 0);
    put(rig, TABLES + 0x40, command, sizeof command);
    issue(rig, CD, 1);
    rig_disk_run(rig);
    return port(rig, CD, TFD);
}
#define SEND(rig, room, bytes) packet(rig, bytes, sizeof bytes - 1, room)

static void change(struct rig *rig, struct disk *disk)
{
    g_mutex_lock(&rig->dev->lock);
    rig->dev->class->change_medium(rig->dev, CD, disk);
    g_mutex_unlock(&rig->dev->lock);
}

/* REQUEST SENSE: key, code and qualifier in one. */
static uint32_t sense(struct rig *rig)
{
    g_assert_cmphex(SEND(rig, 64, "\x03\0\0\0\x12"), ==, 0x50);
    return (uint32_t)byte(rig, DATA + 2) << 16 | (uint32_t)byte(rig, DATA + 12) << 8 |
           byte(rig, DATA + 13);
}

static void expect_sense(struct rig *rig, uint32_t expected)
{
    g_assert_cmphex(SEND(rig, 0, "\0"), ==, (expected >> 16) << 12 | 0x0451);
    g_assert_cmphex(sense(rig), ==, expected);
}

static void media(void)
{
    struct rig *rig = new_rig();
    expect_sense(rig, 0x062900); /* power on */
    expect_sense(rig, 0x023a01); /* no medium, tray closed */
    change(rig, &rig->disk->disk);
    SEND(rig, 8, "\x4a\1\0\0\x10\0\0\0\x08");
    g_assert_cmphex(byte(rig, DATA + 4), ==, 2); /* new medium */
    g_assert_cmphex(byte(rig, DATA + 5), ==, 2);
    expect_sense(rig, 0x062800);
    g_assert_cmphex(SEND(rig, 0, "\0"), ==, 0x50);
    SEND(rig, 8, "\x25");
    g_assert_cmphex(byte(rig, DATA + 2) << 8 | byte(rig, DATA + 3), ==, RIG_DISK_SIZE / 2048 - 1);
    g_assert_cmphex(byte(rig, DATA + 6), ==, 8);

    SEND(rig, 0, "\x1e\0\0\0\x01"); /* prevent removal */
    g_assert_cmphex(SEND(rig, 0, "\x1b\0\0\0\x02") & ERR, ==, ERR);
    g_assert_cmphex(sense(rig), ==, 0x055302);
    g_assert_cmpuint(rig->requests[BOARD_MEDIA_EJECT], ==, 0);
    SEND(rig, 0, "\x1e");
    g_assert_cmphex(SEND(rig, 0, "\x1b\0\0\0\x02"), ==, 0x50);
    g_assert_cmpuint(rig->requests[BOARD_MEDIA_EJECT], ==, 1);
    g_assert_cmpuint(rig->request_value, ==, CD);
    change(rig, NULL);
    expect_sense(rig, 0x023a02);
    rig_free(rig);
}

static void cd_reads(void)
{
    struct rig *rig = new_rig();
    change(rig, &rig->disk->disk);
    SEND(rig, 0, "\0");
    g_assert_cmphex(SEND(rig, 8192, "\x28\0\0\0\0\x10\0\0\x03"), ==, 0x50);
    g_assert_cmpuint(moved(rig, 0), ==, 6144);
    g_assert_cmphex(byte(rig, FISES + 0x4c), ==, 3); /* interrupt reason: done */
    g_assert_true(same_as_disk(rig, DATA, 0x10 * 2048, 6144));
    SEND(rig, 2048, "\xbe\0\0\0\0\x05\0\0\1\x10");
    g_assert_true(same_as_disk(rig, DATA, 5 * 2048, 2048));
    g_assert_cmphex(SEND(rig, 2048, "\x28\0\0\0\x02\0\0\0\1") & ERR, ==, ERR);
    g_assert_cmphex(sense(rig), ==, 0x052100);
    rig->disk->fail = EIO;
    g_assert_cmphex(SEND(rig, 2048, "\xa8\0\0\0\0\0\0\0\0\1"), ==, 0x3451);
    g_assert_cmphex(port(rig, CD, PIS) & TFES, ==, TFES);
    g_assert_cmphex(sense(rig), ==, 0x031100);
    rig->disk->fail = 0;
    g_assert_cmphex(SEND(rig, 20, "\x43\2\0\0\0\0\0\0\x14"), ==, 0x50); /* TOC, MSF */
    uint8_t toc[20];
    get(rig, DATA, toc, sizeof toc);
    static const uint8_t expected[] = {
        0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 2, 0, 0, 0x14, 0xaa, 0, 0, 0, 8, 62
    }; /* 512 blocks: 00:08:62 */
    g_assert_cmpmem(toc, sizeof toc, expected, sizeof expected);
    g_assert_cmphex(SEND(rig, 8, "\xff"), ==, 0x5451);
    g_assert_cmphex(sense(rig), ==, 0x052000);
    rig_free(rig);
}

/* The medium leaves while it is read: an error, not another disk's data. */
static void medium_leaves(void)
{
    struct rig *rig = new_rig();
    change(rig, &rig->disk->disk);
    SEND(rig, 0, "\0");
    restart(rig, CD);
    struct part part = { DATA, 2048 };
    prepare(rig, 0, (struct fis){ .command = 0xa0, .features = 1 }, PACKET, &part, 1);
    put(rig, TABLES + 0x40, "\x28\0\0\0\0\0\0\0\1\0\0\0\0\0\0", 16);
    issue(rig, CD, 1);
    g_assert_cmphex(port(rig, CD, TFD) & BSY, ==, BSY);
    change(rig, NULL);
    rig_disk_run(rig);
    g_assert_cmphex(port(rig, CD, TFD), ==, 0x3451);
    g_assert_cmphex(sense(rig), ==, 0x031100);
    expect_sense(rig, 0x023a01);
    rig_free(rig);
}

static void cd_identity(void)
{
    struct rig *rig = new_rig();
    g_assert_cmphex(run(rig, CD, (struct fis){ .command = 0xec }, 0, 512), ==, 0x0451);
    g_assert_cmphex(byte(rig, FISES + 0x45) | byte(rig, FISES + 0x46) << 8, ==, 0xeb14);
    restart(rig, CD);
    g_assert_cmphex(run(rig, CD, (struct fis){ .command = 0xa1 }, 0, 512), ==, 0x50);
    g_assert_cmphex(byte(rig, DATA) | byte(rig, DATA + 1) << 8, ==, 0x85c0);
    g_assert_cmphex(SEND(rig, 36, "\x12\0\0\0\x24"), ==, 0x50);
    g_assert_cmphex(byte(rig, DATA), ==, 5);
    g_assert_cmphex(SEND(rig, 256, "\x5a\0\x3f\0\0\0\0\1"), ==, 0x6451); /* INQUIRY left it */
    g_assert_cmphex(SEND(rig, 256, "\x5a\0\x3f\0\0\0\0\1"), ==, 0x50);
    g_assert_cmphex(byte(rig, DATA + 8), ==, 0x01);
    g_assert_cmphex(SEND(rig, 256, "\x46\0\0\0\0\0\0\1"), ==, 0x50);
    g_assert_cmphex(byte(rig, DATA + 6) | byte(rig, DATA + 7), ==, 0); /* no current profile */
    rig_free(rig);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        { "identity", identity },
        { "interrupts", interrupts },
        { "messages", messages },
        { "waits-for-bus-mastering", waits_for_bus_mastering },
        { "identify", identify },
        { "dma", dma },
        { "writes-only-what-was-asked", writes_only_what_was_asked },
        { "long-table", long_table },
        { "endless-table", endless_table },
        { "queued", queued },
        { "flushes", flushes },
        { "trim", trim },
        { "media-error", media_error },
        { "outside-the-disk", outside_the_disk },
        { "queued-error", queued_error },
        { "bad-memory", bad_memory },
        { "short-table", short_table },
        { "comreset-in-flight", comreset_in_flight },
        { "hba-reset-in-flight", hba_reset_in_flight },
        { "software-reset", software_reset },
        { "media", media },
        { "cd-reads", cd_reads },
        { "medium-leaves", medium_leaves },
        { "cd-identity", cd_identity },
    };
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strdup_printf("/ahci/%s", tests[i].name);
        g_test_add_func(path, tests[i].run);
    }
    return g_test_run();
}
