/* fw_cfg: where the firmware reads what it has to know about the machine (QEMU
 * docs/specs/fw_cfg.rst). The guest selects an item by its key and reads its bytes, one by one from
 * the data port or all at once by DMA. The items are plugged (bus/fw-cfg.h) and cannot be written.
 */
#include "bus/fw-cfg.h"

#include "bus/device.h"

/* "Register Locations", x86. */
enum {
    SELECTOR_PORT = 0x510, /* 16 bits, write only; the upper byte's port is the data port */
    DATA = 1,              /* offset of the data port */
    DMA_PORT = 0x514,      /* the address register, big-endian, as two halves */
    DMA_LOW = 4,           /* offset of the half that starts the operation */
};

/* "Guest-side DMA Interface". */
enum {
    DMA_ERROR = 1,
    DMA_READ = 1 << 1,
    DMA_SKIP = 1 << 2,
    DMA_SELECT = 1 << 3, /* the key is in the upper 16 bits */
    DMA_WRITE = 1 << 4,
    DMA_KEY_SHIFT = 16,
};
static const uint8_t dma_signature[] = "QEMU CFG";

enum {
    KEY_WRITE = 1 << 14, /* asks for an item to write: the same item */
    /* A read beyond an item's end gives zeros, as many as the guest likes. Ours are bounded, so
     * that no access holds a vCPU for long; a firmware has no use for more. */
    ZEROS_MAX = 16 << 20,
    ZEROS_STEP = 4096,
};

struct fw_cfg_regs {
    uint64_t dma_address; /* its upper half, between two writes */
    uint32_t offset;      /* of the next byte of the item; at most its size */
    uint16_t key;
    uint8_t pad[2];
};

struct fw_cfg_device {
    struct device dev;
    struct fw_cfg *items;
    GBytes *item; /* of regs.key; NULL: none */
    struct fw_cfg_regs regs;
};

static const struct field fw_cfg_fields[] = {
    SAVED(struct fw_cfg_regs, dma_address),
    SAVED(struct fw_cfg_regs, offset),
    SAVED(struct fw_cfg_regs, key),
    SAVED_PAD(struct fw_cfg_regs, pad),
    SAVED_END,
};

/* The descriptor in guest memory; its numbers are big-endian. */
struct dma_access {
    uint32_t control, length;
    uint64_t address;
};

static void find_item(struct fw_cfg_device *fw)
{
    fw->item = fw->items ? fw_cfg_find(fw->items, fw->regs.key & (uint16_t)~KEY_WRITE) : NULL;
}

static void select_item(struct fw_cfg_device *fw, uint16_t key)
{
    fw->regs.key = key;
    fw->regs.offset = 0;
    find_item(fw);
}

/* What is left of the item from the offset on. */
static const uint8_t *rest(const struct fw_cfg_device *fw, size_t *left)
{
    size_t size = 0;
    const uint8_t *data = fw->item ? g_bytes_get_data(fw->item, &size) : NULL;
    *left = fw->regs.offset < size ? size - fw->regs.offset : 0;
    return *left ? data + fw->regs.offset : NULL;
}

/* --- DMA ------------------------------------------------------------------------------------ */

static bool write_zeros(struct guest *guest, uint64_t address, uint64_t length)
{
    static const uint8_t zeros[ZEROS_STEP];
    if (length > ZEROS_MAX || address + length < address)
        return false;
    while (length) {
        size_t now = (size_t)MIN(length, ZEROS_STEP);
        if (!guest_write(guest, GPA(address), zeros, now))
            return false;
        address += now;
        length -= now;
    }
    return true;
}

/* Copies what the item has and fills up with zeros. */
static bool dma_read(struct fw_cfg_device *fw, uint64_t address, uint32_t length)
{
    size_t left;
    const uint8_t *data = rest(fw, &left);
    uint32_t now = (uint32_t)MIN(left, length);
    if (now && !guest_write(fw->dev.board->guest, GPA(address), data, now))
        return false;
    fw->regs.offset += now;
    return write_zeros(fw->dev.board->guest, address + now, length - now);
}

static void dma_skip(struct fw_cfg_device *fw, uint32_t length)
{
    size_t left;
    rest(fw, &left);
    fw->regs.offset += (uint32_t)MIN(left, length);
}

static void dma_run(struct fw_cfg_device *fw, gpa at)
{
    struct dma_access access;
    if (!guest_read(fw->dev.board->guest, at, &access, sizeof access)) {
        guest_bug(&fw->dev, "DMA descriptor at %#" G_GINT64_MODIFIER "x is not in RAM", at.raw);
        return;
    }
    uint32_t control = GUINT32_FROM_BE(access.control);
    uint32_t length = GUINT32_FROM_BE(access.length);
    bool ok = true;
    if (control & DMA_SELECT)
        select_item(fw, (uint16_t)(control >> DMA_KEY_SHIFT));
    if (control & DMA_READ)
        ok = dma_read(fw, GUINT64_FROM_BE(access.address), length);
    else if (control & DMA_WRITE)
        ok = false; /* no item can be written */
    else if (control & DMA_SKIP)
        dma_skip(fw, length);
    uint32_t result = GUINT32_TO_BE(ok ? 0 : DMA_ERROR);
    guest_write(fw->dev.board->guest, at, &result, sizeof result);
}

static uint64_t dma_port_read(struct device *dev, uint64_t offset, unsigned width)
{
    (void)dev;
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)dma_signature[offset + i] << 8 * i;
    return value;
}

static void dma_port_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    struct fw_cfg_device *fw = (struct fw_cfg_device *)dev;
    uint32_t half = GUINT32_SWAP_LE_BE((uint32_t)value);
    (void)width;
    if (offset != DMA_LOW) {
        fw->regs.dma_address = (uint64_t)half << 32;
        return;
    }
    gpa at = GPA(fw->regs.dma_address | half);
    fw->regs.dma_address = 0;
    dma_run(fw, at);
}

/* --- the traditional ports ------------------------------------------------------------------ */

static uint64_t port_read(struct device *dev, uint64_t offset, unsigned width)
{
    struct fw_cfg_device *fw = (struct fw_cfg_device *)dev;
    if (offset != DATA)
        return width == 1 ? UINT8_MAX : UINT16_MAX; /* the selector is write only */
    size_t left;
    const uint8_t *data = rest(fw, &left);
    if (!left)
        return 0;
    fw->regs.offset++;
    return *data;
}

static void port_write(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)offset;
    if (width == 2) /* single bytes are not taken, and no item can be written */
        select_item((struct fw_cfg_device *)dev, (uint16_t)value);
}

/* --- life ----------------------------------------------------------------------------------- */

static void reset(struct device *dev)
{
    struct fw_cfg_device *fw = (struct fw_cfg_device *)dev;
    fw->regs = (struct fw_cfg_regs){ .key = FW_CFG_SIGNATURE };
    find_item(fw);
}

static void loaded(struct device *dev)
{
    find_item((struct fw_cfg_device *)dev);
}

const struct device_class fw_cfg_class = {
    .name = "fw-cfg",
    .help = "what the firmware reads about the machine (ports 0x510 to 0x51b)",
    .size = sizeof(struct fw_cfg_device),
    .regions =
        (const struct region[]){
            { REGION_PORTS, SELECTOR_PORT, 2, W8 | W16, port_read, port_write },
            { REGION_PORTS, DMA_PORT, 8, W32, dma_port_read, dma_port_write },
            { .kind = REGION_END },
        },
    .plugs =
        (const struct plug[]){
            { "items", PLUG_FW_CFG, offsetof(struct fw_cfg_device, items) },
            { .name = NULL },
        },
    .state = STATE(struct fw_cfg_device, regs, 1, fw_cfg_fields),
    .reset = reset,
    .loaded = loaded,
};
