/* The life of a device: options, plugs, regions, reset, state; see device.h. Called from the
 * machine's own thread while vCPUs do not run, except where device.h says otherwise. */
#include "bus/device.h"

#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "bus/pci.h"
#include "bus/virtio.h"

#include <string.h>

#define DEVICE(id) extern const struct device_class id##_class;
#include "device-list.h"
#undef DEVICE
#define DEVICE(id) &id##_class,
const struct device_class *const device_classes[] = {
#include "device-list.h"
    NULL,
};

const struct device_class *device_class_find(const char *name)
{
    for (const struct device_class *const *class = device_classes; *class; class ++)
        if (!strcmp((*class)->name, name))
            return *class;
    return NULL;
}

/* --- options and plugs ---------------------------------------------------------------------- */

static void *member(struct device *dev, size_t offset)
{
    return (uint8_t *)dev + offset;
}

static bool parse_bool(const char *text, bool *value)
{
    static const char *const words[][2] = { { "off", "on" }, { "no", "yes" }, { "false", "true" } };
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        for (int v = 0; v < 2; v++)
            if (!strcmp(text, words[i][v])) {
                *value = v;
                return true;
            }
    return false;
}

static bool parse_number(const char *text, bool is_size, uint64_t *value)
{
    char *end;
    if (!g_ascii_isdigit(text[0]))
        return false;
    *value = g_ascii_strtoull(text, &end, 0);
    const char *const units = "KMGT";
    const char *unit = *end ? strchr(units, g_ascii_toupper(*end)) : NULL;
    if (is_size && unit) {
        unsigned shift = 10 * (unsigned)(unit - units + 1);
        if (*value >> (64 - shift))
            return false;
        *value <<= shift;
        end++;
    }
    return !*end;
}

static bool option_set(struct device *dev, const struct option *option, const char *value,
                       GError **error)
{
    void *at = member(dev, option->offset);
    uint64_t number;
    switch (option->kind) {
    case OPTION_BOOL:
        if (!parse_bool(value, at))
            return hv_fail(error, HV_USAGE, "%s: %s=%s: on or off is wanted", dev->name,
                           option->name, value);
        return true;
    case OPTION_STRING:
        g_free(*(char **)at);
        *(char **)at = g_strdup(value);
        return true;
    case OPTION_UINT:
    case OPTION_SIZE:
        if (!parse_number(value, option->kind == OPTION_SIZE, &number) || number < option->min ||
            number > option->max)
            return hv_fail(error, HV_USAGE,
                           "%s: %s=%s: a number from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
                           " is wanted",
                           dev->name, option->name, value, option->min, option->max);
        *(uint64_t *)at = number;
        return true;
    }
    return false;
}

bool device_set(struct device *dev, const char *name, const char *value, GError **error)
{
    const struct option *option = dev->class->options;
    g_autoptr(GPtrArray) known = g_ptr_array_new();
    for (; option && option->name; option++) {
        if (!strcmp(option->name, name))
            return option_set(dev, option, value, error);
        g_ptr_array_add(known, (void *)(uintptr_t)option->name);
    }
    g_ptr_array_add(known, NULL);
    const char *near = hv_nearest(name, (const char *const *)known->pdata);
    return hv_fail(error, HV_USAGE, "device %s has no option \"%s\"%s%s%s", dev->class->name, name,
                   near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

bool device_plug(struct device *dev, const char *name, void *what)
{
    for (const struct plug *plug = dev->class->plugs; plug && plug->name; plug++) {
        if (strcmp(plug->name, name))
            continue;
        if (plug->kind == PLUG_INPUT)
            *(struct irq_input *)member(dev, plug->offset) = *(struct irq_input *)what;
        else
            *(void **)member(dev, plug->offset) = what;
        return true;
    }
    return false;
}

/* --- life ----------------------------------------------------------------------------------- */

struct device *device_create(const struct device_class *class, struct board *board,
                             const char *name)
{
    struct device *dev = g_malloc0(class->size);
    dev->class = class;
    dev->board = board;
    dev->name = g_strdup(name ? name : class->name);
    g_mutex_init(&dev->lock);
    if (class->flags & CLASS_LOOP)
        dev->loop = loop_new(board->threads ? dev->name : NULL);
    if (class->virtio)
        dev->virtio = virtio_new(dev);
    for (const struct option *option = class->options; option && option->name; option++)
        if (option->preset)
            option_set(dev, option, option->preset, NULL);
    return dev;
}

static bool show_regions(struct device *dev, GError **error)
{
    for (const struct region *r = dev->class->regions; r && r->kind != REGION_END; r++) {
        if (r->kind == REGION_BAR)
            continue;
        enum space space = r->kind == REGION_PORTS ? SPACE_PORTS : SPACE_MMIO;
        if (!bus_map(dev->board->bus, dev, &dev->lock, r, space, dev->base + r->base))
            return hv_fail(error, HV_FAILED, "%s: no room at %#" G_GINT64_MODIFIER "x", dev->name,
                           dev->base + r->base);
    }
    return true;
}

bool device_start(struct device *dev, GError **error)
{
    g_mutex_lock(&dev->lock);
    if (dev->pci)
        pci_start(dev);
    bool ok = !dev->class->init || dev->class->init(dev, error);
    if (ok && dev->virtio)
        ok = virtio_start(dev, error);
    if (ok && dev->pci)
        pci_started(dev);
    g_mutex_unlock(&dev->lock);
    if (!ok || !show_regions(dev, error))
        return false;
    device_reset(dev);
    return true;
}

void device_destroy(struct device *dev)
{
    if (!dev)
        return;
    for (const struct region *r = dev->class->regions; r && r->kind != REGION_END; r++)
        bus_unmap(dev->board->bus, dev, r);
    if (dev->virtio)
        virtio_finish(dev);
    loop_free(dev->loop);
    if (dev->class->finish)
        dev->class->finish(dev);
    if (dev->pci)
        pci_finish(dev);
    for (const struct option *option = dev->class->options; option && option->name; option++)
        if (option->kind == OPTION_STRING)
            g_free(*(char **)member(dev, option->offset));
    g_mutex_clear(&dev->lock);
    g_free(dev->name);
    g_free(dev);
}

static void hold(struct device *dev, bool still)
{
    device_lock(dev);
    if (dev->virtio)
        virtio_hold(dev, still);
    device_unlock(dev);
}

void device_pause(struct device *dev)
{
    hold(dev, true);
    loop_pause(dev->loop);
}

void device_resume(struct device *dev)
{
    hold(dev, false);
    loop_resume(dev->loop);
}

static void reset(struct device *dev)
{
    if (dev->pci)
        pci_reset(dev);
    if (dev->virtio)
        virtio_reset(dev);
    if (dev->class->reset)
        dev->class->reset(dev);
}

void device_reset(struct device *dev)
{
    g_mutex_lock(&dev->lock);
    reset(dev);
    g_mutex_unlock(&dev->lock);
}

void device_save(struct device *dev, GByteArray *out)
{
    g_mutex_lock(&dev->lock);
    bool held = dev->virtio && virtio_hold(dev, true);
    if (dev->pci)
        pci_save(dev, out);
    if (dev->virtio)
        virtio_save(dev, out);
    state_save(&dev->class->state, dev, out);
    if (dev->virtio)
        virtio_hold(dev, held);
    g_mutex_unlock(&dev->lock);
}

bool device_load(struct device *dev, const uint8_t **in, size_t *length, GError **error)
{
    g_mutex_lock(&dev->lock);
    reset(dev); /* whatever it did: what that stops is forgotten before the state comes */
    bool ok = !dev->pci || pci_load(dev, in, length, error);
    ok = ok && (!dev->virtio || state_load(&virtio_state, dev->virtio, in, length, error));
    ok = ok && state_load(&dev->class->state, dev, in, length, error);
    if (ok && dev->pci)
        pci_loaded(dev);
    if (ok && dev->virtio)
        virtio_loaded(dev);
    if (ok && dev->class->loaded)
        dev->class->loaded(dev);
    g_mutex_unlock(&dev->lock);
    return ok;
}

static void input(void *opaque, unsigned pin, bool level)
{
    struct device *dev = opaque;
    g_mutex_lock(&dev->lock);
    dev->class->controller->input(dev, pin, level);
    g_mutex_unlock(&dev->lock);
}

static bool wanted(void *opaque, unsigned pin, struct timer *sleeper)
{
    struct device *dev = opaque;
    g_mutex_lock(&dev->lock);
    bool answer = dev->class->controller->wanted(dev, pin, sleeper);
    g_mutex_unlock(&dev->lock);
    return answer;
}

struct irq_input device_irq_input(struct device *dev, unsigned pin)
{
    return (struct irq_input){ input, dev, pin, dev->class->controller->wanted ? wanted : NULL };
}

static size_t move(void *opaque, unsigned channel, enum dma_direction direction, uint8_t *data,
                   size_t length, bool *end, struct timer *sleeper)
{
    struct device *dev = opaque;
    g_mutex_lock(&dev->lock);
    size_t moved = dev->class->dma->move(dev, channel, direction, data, length, end, sleeper);
    g_mutex_unlock(&dev->lock);
    return moved;
}

struct dma device_dma(struct device *dev, unsigned channel)
{
    return (struct dma){ move, dev, channel };
}

void guest_bug(struct device *dev, const char *format, ...)
{
    static struct log_limit limit; /* guarded by the lock below */
    static GMutex lock;
    if (!log_wants(LOG_INFO))
        return;
    g_mutex_lock(&lock);
    bool pass = log_limit_pass(&limit, "guest");
    g_mutex_unlock(&lock);
    if (!pass)
        return;
    char text[256];
    va_list args;
    va_start(args, format);
    g_vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_info(dev->name, "guest: %s", text);
}
