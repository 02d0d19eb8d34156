/* The rig's bytecode: what a fuzzer writes and a replay reads. Each operation is one byte, followed
 * by the operands it wants; what is missing at the end reads as zero.
 *
 * Accesses are aimed at the regions of the device (an operand picks one and an offset, folded into
 * it and a little beyond), so that no input is wasted on holes in the address space. */
#include "base/loop.h"
#include "rig/rig.h"

#include <errno.h>
#include <string.h>

struct code {
    const uint8_t *at;
    size_t left;
};

static uint64_t take(struct code *code, unsigned bytes)
{
    uint64_t value = 0;
    unsigned n = (unsigned)MIN(bytes, code->left);
    memcpy(&value, code->at, n);
    code->at += n;
    code->left -= n;
    return value;
}

/* What there is to access: the class's regions, then what else the device shows on the bus by
 * itself (ports that configuration registers move, ECAM). */
struct targets {
    struct rig *rig;
    unsigned count;
    struct target {
        const struct region *region;
        uint64_t base;
    } target[32];
};

static void add_target(struct targets *targets, const struct region *r, uint64_t base)
{
    if (targets->count < G_N_ELEMENTS(targets->target))
        targets->target[targets->count++] = (struct target){ r, base };
}

static void add_mapped(void *opaque, struct device *dev, const struct region *r, uint64_t base)
{
    struct targets *targets = opaque;
    const struct region *own = dev->class->regions;
    while (own && own->kind != REGION_END && own != r)
        own++;
    if (dev == targets->rig->dev && own != r)
        add_target(targets, r, base);
}

static struct targets find_targets(struct rig *rig)
{
    struct targets targets = { .rig = rig };
    const struct region *r = rig->dev->class->regions;
    for (; r && r->kind != REGION_END; r++)
        add_target(&targets, r,
                   r->kind == REGION_BAR ? rig_bar(rig, (unsigned)r->base)
                                         : rig->dev->base + r->base);
    bus_each(rig->board.bus, SPACE_PORTS, add_mapped, &targets);
    bus_each(rig->board.bus, SPACE_MMIO, add_mapped, &targets);
    return targets;
}

static void access_region(struct rig *rig, struct code *code, bool write)
{
    unsigned head = (unsigned)take(code, 1);
    unsigned width = 1U << (head & 3);
    struct targets targets = find_targets(rig);
    if (!targets.count)
        return;
    const struct target *target = &targets.target[(head >> 2 & 0x1f) % targets.count];
    const struct region *r = target->region;
    uint64_t base = target->base;
    uint64_t offset = take(code, r->size > 256 ? 4 : 1) % (r->size + 4);
    bool ports = r->kind == REGION_PORTS ||
                 (r->kind == REGION_BAR && rig->dev->class->pci->bars[r->base] == BAR_PORTS);
    if (ports && width == 8)
        width = 4;
    uint64_t value = write ? take(code, width) : 0;
    if (ports && write)
        rig_out(rig, base + offset, width, (uint32_t)value);
    else if (ports)
        rig_in(rig, base + offset, width);
    else if (write)
        rig_store(rig, base + offset, width, value);
    else
        rig_load(rig, base + offset, width);
}

static void config(struct rig *rig, struct code *code)
{
    unsigned offset = (unsigned)take(code, 1);
    uint32_t value = (uint32_t)take(code, 4);
    if (rig->dev->pci)
        rig_config_write(rig, offset & 0xfc, 4, value);
}

/* Puts bytes into RAM, where the device will find rings, tables and buffers. */
static void fill(struct rig *rig, struct code *code)
{
    uint64_t at = take(code, 2) * 16;
    unsigned length = (unsigned)take(code, 1);
    uint8_t bytes[256];
    for (unsigned i = 0; i < length; i++)
        bytes[i] = (uint8_t)take(code, 1);
    guest_write(rig->board.guest, GPA(at), bytes, length);
}

static void user(struct rig *rig, struct code *code)
{
    struct device *dev = rig->dev;
    const struct input_class *input = dev->class->input;
    uint8_t a = (uint8_t)take(code, 1), b = (uint8_t)take(code, 1);
    g_mutex_lock(&dev->lock);
    if (input && input->key && a & 1)
        input->key(dev, b, a >> 1 & 1);
    else if (input && input->pointer)
        input->pointer(dev, (int8_t)a, (int8_t)b, (int8_t)(a ^ b), a & 7);
    if (input && input->pointer_at)
        input->pointer_at(dev, a * 200u, b * 200u, (int8_t)(a ^ b), a & 7);
    if (dev->class->terminal_resized)
        dev->class->terminal_resized(dev, a, b);
    if (dev->class->memory_wish)
        dev->class->memory_wish(dev, a * 4096u);
    if (dev->class->memory_ask)
        dev->class->memory_ask(dev, &(struct memory_statistics){ .known = 0 });
    if (dev->class->receive)
        dev->class->receive(dev, &b, 1);
    if (dev->class->set_cable && a < 8)
        dev->class->set_cable(dev, b & 1);
    if (dev->class->power_button && a == 7)
        dev->class->power_button(dev);
    if (dev->class->change_medium)
        dev->class->change_medium(dev, a, b & 1 ? &rig->disk->disk : NULL);
    if (dev->class->dma) {
        uint8_t bytes[512] = { 0 };
        bool end;
        dev->class->dma->move(dev, a & 7, a >> 3 & 1, bytes, b * 2u, &end, NULL);
    }
    if (dev->class->controller && dev->class->controller->input)
        dev->class->controller->input(dev, a % 24, b & 1);
    if (dev->class->controller && dev->class->controller->acknowledge && b & 2)
        dev->class->controller->acknowledge(dev);
    if (dev->class->controller && dev->class->controller->eoi && b & 4)
        dev->class->controller->eoi(dev, a);
    g_mutex_unlock(&dev->lock);
    rig->dma.masked = a & 1;
    if (rig->dma.sleeper && !rig->dma.masked)
        timer_poke(rig->dma.sleeper);
}

/* A packet at the cable: some bytes as they are told, then a pattern; and what was sent is taken.
 */
static void packet(struct rig *rig, struct code *code)
{
    static uint8_t *bytes;
    if (!bytes)
        bytes = g_malloc(NET_PACKET_MAX);
    size_t length = take(code, 2), told = take(code, 1);
    for (size_t i = 0; i < length && i < NET_PACKET_MAX; i++)
        bytes[i] = i < told ? (uint8_t)take(code, 1) : (uint8_t)i;
    rig_packet_in(rig, bytes, length);
    while (length % 3 && rig_packet_out(rig, bytes, NET_PACKET_MAX))
        continue;
}

static void look(struct rig *rig, struct code *code)
{
    static uint32_t *pixels;
    const struct screen_class *screen = rig->dev->class->screen;
    struct picture picture = { .pixels = NULL };
    struct rectangle changed;
    if (rig->net)
        packet(rig, code);
    if (!screen)
        return;
    if (!pixels)
        pixels = g_malloc(sizeof *pixels * SCREEN_MAX_WIDTH * SCREEN_MAX_HEIGHT);
    picture.pixels = pixels;
    g_autofree struct screen_text *text = g_new0(struct screen_text, 1);
    g_mutex_lock(&rig->dev->lock);
    if (screen->render(rig->dev, &picture, &changed, false)) {
        g_assert(picture.width <= SCREEN_MAX_WIDTH && picture.height <= SCREEN_MAX_HEIGHT);
        g_assert(changed.x + changed.width <= picture.width);
        g_assert(changed.y + changed.height <= picture.height);
    }
    screen->text(rig->dev, text);
    g_assert(text->columns <= SCREEN_MAX_COLUMNS && text->rows <= SCREEN_MAX_ROWS);
    g_mutex_unlock(&rig->dev->lock);
}

void rig_run(struct rig *rig, const uint8_t *bytes, size_t size)
{
    enum { TIMERS_PER_STEP = 1000 };
    struct code code = { bytes, size };
    while (code.left) {
        switch (take(&code, 1) & 15) {
        case 0:
        case 1:
        case 2:
        case 3:
            access_region(rig, &code, false);
            break;
        case 4:
        case 5:
        case 6:
        case 7:
            access_region(rig, &code, true);
            break;
        case 8:
            config(rig, &code);
            break;
        case 9:
            fill(rig, &code);
            break;
        case 10:
            clock_advance(rig->board.clock, take(&code, 4), TIMERS_PER_STEP);
            rig_turn(rig, rig->turns);
            break;
        case 11:
            rig_disk_step(rig);
            if (rig->dev->loop)
                loop_turn(rig->dev->loop);
            break;
        case 12:
            rig->disk->fail = take(&code, 1) & 1 ? EIO : 0;
            break;
        case 13:
            user(rig, &code);
            break;
        case 14:
            look(rig, &code);
            break;
        case 15:
            rig_disk_run(rig); /* as the machine does before a reset */
            device_reset(rig->dev);
            break;
        }
    }
}
