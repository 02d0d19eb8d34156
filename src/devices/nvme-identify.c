/* What the NVMe controller says of itself and its namespaces: Identify (5.15). */
#include "nvme.h"

enum { SERIAL_AT = 4, SERIAL_SIZE = 20, MODEL_AT = 24, MODEL_SIZE = 40, FIRMWARE_AT = 64 };
enum { SUBNQN_AT = 768, LBA_FORMAT_AT = 128 };
enum cns { CNS_NAMESPACE, CNS_CONTROLLER, CNS_ACTIVE_LIST, CNS_DESCRIPTORS };

const char nvme_firmware[8] = { '1', '.', '0', ' ', ' ', ' ', ' ', ' ' };

struct value {
    uint16_t at;
    uint8_t width;
    uint32_t value;
};

/* Figure 247. What is not listed is 0: not there, or no limit. */
static const struct value controller[] = {
    { 0, 2, NVME_VENDOR },       /* VID */
    { 2, 2, 0x1af4 },            /* SSVID */
    { 72, 1, 3 },                /* RAB: 8 commands */
    { 77, 1, 8 },                /* MDTS: 2^8 pages, NVME_TRANSFER */
    { 80, 4, NVME_VERSION },     /* VER */
    { 92, 4, 1 << 8 },           /* OAES: namespace attribute notices */
    { 111, 1, 1 },               /* CNTRLTYPE: I/O controller */
    { 256, 2, 1 << 8 },          /* OACS: Doorbell Buffer Config */
    { 258, 1, 3 },               /* ACL: 4 Aborts */
    { 259, 1, NVME_EVENTS - 1 }, /* AERL */
    { 260, 1, 1 << 1 | 1 },      /* FRMW: one slot, read-only */
    { 261, 1, 1 << 1 | 1 << 2 }, /* LPA: commands and effects; offsets in log pages */
    { 262, 1, NVME_ERRORS - 1 }, /* ELPE */
    { 266, 2, 343 },             /* WCTEMP */
    { 268, 2, 373 },             /* CCTEMP */
    { 512, 1, NVME_SQE_LOG << 4 | NVME_SQE_LOG },
    { 513, 1, NVME_CQE_LOG << 4 | NVME_CQE_LOG },
    { 520, 2, 1 << 6 | 1 << 4 | 1 << 3 | 1 << 2 | 1 }, /* ONCS: timestamp, select, zeroes, DSM,
                                                          Compare */
    { 525, 1, 3 << 1 | 1 }, /* VWC: present; Flush takes all namespaces */
    { 536, 4, 1 },          /* SGLS: supported, aligned or not */
};

/* Figure 245. */
static const struct value namespace[] = {
    { 24, 1, 1 << 4 },             /* NSFEAT: the preferences below are given */
    { 64, 2, 7 },                  /* NPWG: pages of the host's page cache and file systems */
    { 66, 2, 7 },                  /* NPWA */
    { 68, 2, 7 },                  /* NPDG */
    { 70, 2, 7 },                  /* NPDA */
    { 72, 2, 7 },                  /* NOWS */
    { LBA_FORMAT_AT, 4, 9 << 16 }, /* LBAF0: 512 bytes, no metadata */
};

static void put(uint8_t *data, unsigned at, unsigned width, uint64_t value)
{
    memcpy(data + at, &value, width); /* the host is x86-64: little-endian as the data is */
}

static void put_all(uint8_t *data, const struct value *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        put(data, values[i].at, values[i].width, values[i].value);
}

static void put_text(uint8_t *data, unsigned at, unsigned size, const char *text)
{
    size_t length = MIN(strlen(text), size);
    memset(data + at, ' ', size);
    memcpy(data + at, text, length);
}

/* --- names ----------------------------------------------------------------------------------- */

/* 16 bytes that are the same whenever the text is. */
static void digest(const char *text, uint8_t bytes[16])
{
    uint8_t sum[20];
    gsize size = sizeof sum;
    g_autoptr(GChecksum) checksum = g_checksum_new(G_CHECKSUM_SHA1);
    g_checksum_update(checksum, (const guchar *)text, -1);
    g_checksum_get_digest(checksum, sum, &size);
    memcpy(bytes, sum, 16);
}

/* UUIDs of version 5 (RFC 4122 section 4.3), but for the name space: of the subsystem (0) and of
 * each namespace. */
static void make_uuids(struct nvme *nvme)
{
    for (unsigned nsid = 0; nsid <= NVME_DISKS; nsid++) {
        uint8_t *uuid = nvme->uuids[nsid];
        char text[64];
        g_snprintf(text, sizeof text, "hv nvme %s/%u", nvme->sn, nsid);
        digest(text, uuid);
        uuid[6] = (uuid[6] & 0x0f) | 0x50;
        uuid[8] = (uuid[8] & 0x3f) | 0x80;
    }
}

void identify_init(struct nvme *nvme)
{
    const struct disk *disk = nvme->disks[0];
    uint8_t bytes[16];
    for (unsigned i = 0; i < NVME_DISKS; i++)
        if (nvme->disks[i])
            nvme->namespaces = i + 1;
    if (nvme->serial && *nvme->serial) {
        g_snprintf(nvme->sn, sizeof nvme->sn, "%s", nvme->serial);
    } else {
        char text[256];
        g_snprintf(text, sizeof text, "%s %s", nvme->dev.name,
                   disk && disk->identity ? disk->identity : "");
        digest(text, bytes);
        g_snprintf(nvme->sn, sizeof nvme->sn, "HV%02X%02X%02X%02X%02X%02X%02X%02X", bytes[0],
                   bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]);
    }
    make_uuids(nvme);
}

static void put_subnqn(const struct nvme *nvme, uint8_t *data)
{
    static const char *const formats[16] = { [4] = "-", [6] = "-", [8] = "-", [10] = "-" };
    const uint8_t *uuid = nvme->uuids[0];
    char text[80] = "nqn.2014-08.org.nvmexpress:uuid:";
    size_t length = strlen(text);
    for (unsigned i = 0; i < sizeof nvme->uuids[0]; i++)
        length += (size_t)g_snprintf(text + length, (gulong)(sizeof text - length), "%s%02x",
                                     formats[i] ? formats[i] : "", uuid[i]);
    memcpy(data + SUBNQN_AT, text, length);
}

/* --- data structures ------------------------------------------------------------------------- */

static uint16_t fill_controller(const struct nvme *nvme, uint32_t nsid, uint8_t *data)
{
    uint64_t capacity = 0;
    (void)nsid;
    for (unsigned i = 0; i < NVME_DISKS; i++)
        capacity += nvme->disks[i] ? nvme->disks[i]->size : 0;
    put_all(data, controller, G_N_ELEMENTS(controller));
    put_text(data, SERIAL_AT, SERIAL_SIZE, nvme->sn);
    put_text(data, MODEL_AT, MODEL_SIZE, "hv NVMe disk");
    memcpy(data + FIRMWARE_AT, nvme_firmware, sizeof nvme_firmware);
    put(data, 280, 8, capacity); /* TNVMCAP */
    put(data, 516, 4, nvme->namespaces);
    put_subnqn(nvme, data);
    return NVME_OK;
}

/* Of an inactive namespace, all is 0. */
static uint16_t fill_namespace(const struct nvme *nvme, uint32_t nsid, uint8_t *data)
{
    if (!nsid || nsid > nvme->namespaces)
        return NVME_INVALID_NAMESPACE;
    const struct disk *disk = nvme->disks[nsid - 1];
    if (!disk)
        return NVME_OK;
    put_all(data, namespace, G_N_ELEMENTS(namespace));
    for (unsigned at = 0; at < 24; at += 8) /* NSZE, NCAP, NUSE */
        put(data, at, 8, disk->size / SECTOR);
    put(data, 48, 8, disk->size); /* NVMCAP */
    put(data, 99, 1, disk->readonly);
    return NVME_OK;
}

static uint16_t fill_active_list(const struct nvme *nvme, uint32_t nsid, uint8_t *data)
{
    unsigned n = 0;
    if (nsid >= NVME_ALL - 1)
        return NVME_INVALID_NAMESPACE;
    for (uint32_t i = nsid; i < nvme->namespaces; i++)
        if (nvme->disks[i])
            put(data, 4 * n++, 4, i + 1);
    return NVME_OK;
}

/* Figure 249. */
static uint16_t fill_descriptors(const struct nvme *nvme, uint32_t nsid, uint8_t *data)
{
    enum { TYPE_UUID = 3, UUID_SIZE = 16 };
    if (!nsid || nsid > nvme->namespaces || !nvme->disks[nsid - 1])
        return NVME_INVALID_NAMESPACE;
    data[0] = TYPE_UUID;
    data[1] = UUID_SIZE;
    memcpy(data + 4, nvme->uuids[nsid], UUID_SIZE);
    return NVME_OK;
}

uint16_t admin_identify(struct command *command, const struct sqe *sqe)
{
    static uint16_t (*const fill[])(const struct nvme *nvme, uint32_t nsid, uint8_t *data) = {
        [CNS_NAMESPACE] = fill_namespace,
        [CNS_CONTROLLER] = fill_controller,
        [CNS_ACTIVE_LIST] = fill_active_list,
        [CNS_DESCRIPTORS] = fill_descriptors,
    };
    uint8_t data[NVME_DATA] = { 0 };
    unsigned cns = sqe_dword(sqe, 10) & 0xff;
    if (cns >= G_N_ELEMENTS(fill))
        return NVME_INVALID_FIELD;
    uint16_t status = fill[cns](command->nvme, command->nsid, data);
    if (!status)
        status = data_map(command, sqe, sizeof data);
    return status ? status : data_copy(command, data, sizeof data, true);
}
