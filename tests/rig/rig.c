/* The rig; see rig.h. One thread. */
#include "rig/rig.h"

#include "base/loop.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OUTPUT_MAX = 65536, MEMORY_BARS = 0x10000000, PORT_BARS = 0xc000, BAR_STRIDE = 0x8000000 };

/* --- the board ------------------------------------------------------------------------------ */

static void request(void *opaque, struct device *dev, enum board_request what, uint32_t value)
{
    struct rig *rig = opaque;
    (void)dev;
    rig->requests[what]++;
    rig->request_value = value;
}

static void send_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct rig *rig = opaque;
    rig->msis++;
    rig->last_msi = (struct msi){ address, data };
}

static void set_routes(void *opaque, const struct msi_route *routes, unsigned count)
{
    struct rig *rig = opaque;
    g_assert(count <= G_N_ELEMENTS(rig->routes));
    memcpy(rig->routes, routes, count * sizeof *routes);
    rig->route_updates++;
}

static uint64_t host_time(void *opaque)
{
    return ((struct rig *)opaque)->host_time;
}

static const struct board_ops ops = {
    .request = request,
    .send_msi = send_msi,
    .set_routes = set_routes,
    .host_time = host_time,
};

/* --- backends ------------------------------------------------------------------------------- */

static void stream_take(struct stream *stream, const uint8_t *data, size_t length)
{
    struct rig *rig = (struct rig *)((uint8_t *)stream - offsetof(struct rig, stream));
    if (rig->output->len + length <= OUTPUT_MAX)
        g_byte_array_append(rig->output, data, (guint)length);
}

static void count_screen(struct screen *screen)
{
    ((struct rig *)((uint8_t *)screen - offsetof(struct rig, screen)))->screen_changes++;
}

static void count_source(struct input_source *source)
{
    ((struct rig *)((uint8_t *)source - offsetof(struct rig, source)))->source_changes++;
}

static void line_set(void *opaque, unsigned pin, bool level)
{
    struct rig_line *line = opaque;
    (void)pin;
    line->level = level;
    line->rises += level;
}

static void memory_submit(struct disk *disk, struct disk_request *request_)
{
    struct rig_disk *memory = (struct rig_disk *)disk;
    memory->submitted++;
    memory->waiting++;
    request_->next = NULL;
    *memory->last = request_;
    memory->last = &request_->next;
}

static int memory_transfer(struct rig_disk *memory, const struct disk_request *r)
{
    uint64_t at = r->offset, sum = 0;
    if (r->error)
        return r->error;
    if (memory->fail)
        return memory->fail;
    if (r->op == DISK_FLUSH)
        return 0;
    g_assert(r->offset % SECTOR == 0 && r->length % SECTOR == 0);
    if (r->offset > RIG_DISK_SIZE || r->length > RIG_DISK_SIZE - r->offset)
        return EINVAL;
    if (r->op == DISK_DISCARD || r->op == DISK_WRITE_ZEROES) {
        memset(memory->data + at, 0, r->length);
        return 0;
    }
    for (unsigned i = 0; i < r->iov_count; i++)
        sum += r->iov[i].iov_len;
    g_assert(sum == r->length); /* the contract of disk.h */
    for (unsigned i = 0; i < r->iov_count; i++) {
        if (r->op == DISK_READ)
            memcpy(r->iov[i].iov_base, memory->data + at, r->iov[i].iov_len);
        else
            memcpy(memory->data + at, r->iov[i].iov_base, r->iov[i].iov_len);
        at += r->iov[i].iov_len;
    }
    return 0;
}

bool rig_disk_finish(struct rig *rig, unsigned n)
{
    struct rig_disk *memory = rig->disk;
    if (!memory->disk.lock)
        return false;
    g_mutex_lock(memory->disk.lock);
    struct disk_request **at = &memory->first;
    for (; n && *at; n--)
        at = &(*at)->next;
    struct disk_request *r = *at;
    if (r) {
        *at = r->next;
        if (memory->last == &r->next)
            memory->last = at;
        memory->waiting--;
        r->done(r, memory_transfer(memory, r));
        disk_end_batch(&memory->disk);
    }
    g_mutex_unlock(memory->disk.lock);
    return r;
}

bool rig_disk_step(struct rig *rig)
{
    return rig_disk_finish(rig, 0);
}

void rig_disk_run(struct rig *rig)
{
    while (rig_disk_step(rig))
        continue;
}

static size_t dma_serve(void *opaque, unsigned channel, enum dma_direction direction, uint8_t *data,
                        size_t length, bool *end, struct timer *sleeper)
{
    struct rig_dma *dma = opaque;
    g_assert(channel == 0);
    dma->requested = length && dma->masked;
    dma->sleeper = dma->requested ? sleeper : NULL;
    *end = false;
    if (!length || dma->masked)
        return 0;
    struct rig *rig = (struct rig *)((uint8_t *)dma - offsetof(struct rig, dma));
    length = MIN(length, dma->left);
    bool ok = direction == DMA_TO_MEMORY ? guest_write(rig->board.guest, GPA(dma->at), data, length)
                                         : guest_read(rig->board.guest, GPA(dma->at), data, length);
    g_assert(ok);
    dma->at += length;
    dma->left -= length;
    if (!dma->left) {
        *end = true;
        dma->at = dma->start;
        dma->left = dma->length;
    }
    return length;
}

void rig_dma_program(struct rig *rig, uint64_t at, size_t length)
{
    struct rig_dma *dma = &rig->dma;
    dma->start = dma->at = at;
    dma->length = dma->left = length;
    dma->masked = false;
    if (dma->sleeper)
        timer_poke(dma->sleeper);
}

static const struct disk_ops memory_ops = { .submit = memory_submit };

static void plug_all(struct rig *rig)
{
    for (const struct plug *plug = rig->dev->class->plugs; plug && plug->name; plug++) {
        void *what = NULL;
        struct irq_input input;
        if (plug->kind == PLUG_IRQ || plug->kind == PLUG_INPUT) {
            g_assert(rig->line_count < RIG_IRQS);
            struct rig_line *line = &rig->lines[rig->line_count++];
            line->plug = plug->name;
            irq_wire_init(&line->wire);
            irq_wire_to(&line->wire, (struct irq_input){ line_set, line, 0 });
            line->irq.wire = &line->wire;
            input = line->wire.input[0];
            what = plug->kind == PLUG_IRQ ? (void *)&line->irq : (void *)&input;
        } else if (plug->kind == PLUG_DISK && !rig->disk->disk.lock) {
            what = &rig->disk->disk;
            disk_attach(what, &rig->dev->lock, rig->dev->loop);
        } else if (plug->kind == PLUG_NET && !rig->net) {
            int fds[2];
            g_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) ==
                     0);
            rig->far = fds[1];
            what = rig->net = net_new(fds[0], false, "rig");
        } else if (plug->kind == PLUG_STREAM) {
            what = &rig->stream;
        } else if (plug->kind == PLUG_SCREEN) {
            what = &rig->screen;
        } else if (plug->kind == PLUG_SOURCE) {
            what = &rig->source;
        } else if (plug->kind == PLUG_DMA) {
            rig->dma.dma = (struct dma){ dma_serve, &rig->dma, 0 };
            what = &rig->dma.dma;
            rig_dma_program(rig, RIG_DMA, 65536);
        } else if (plug->kind == PLUG_FW_CFG) {
            what = rig->fw_cfg;
        }
        device_plug(rig->dev, plug->name, what);
    }
}

/* --- life ----------------------------------------------------------------------------------- */

static void place_bars(struct rig *rig)
{
    struct pci_function *pci = rig->dev->pci;
    for (unsigned bar = 0; bar < PCI_ROM; bar++) {
        bool ports = pci->class->bars[bar] == BAR_PORTS;
        if (pci->bars[bar].size)
            rig_config_write(rig, PCI_BAR + 4 * bar, 4,
                             ports ? PORT_BARS + bar * 0x400 : MEMORY_BARS + bar * BAR_STRIDE);
    }
    rig_config_write(rig, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static struct rig *make(const struct device_class *class, const char *const *options, bool threads)
{
    struct rig *rig = g_new0(struct rig, 1);
    GError *error = NULL;
    rig->board = (struct board){
        .guest = guest_new(RIG_RAM, NULL),
        .bus = bus_new(),
        .clock = clock_new(true),
        .pci = pci_bus_new(),
        .ops = &ops,
        .opaque = rig,
        .threads = threads,
    };
    guest_slot_set(rig->board.guest, guest_slot_new(rig->board.guest), GPA(0), RIG_RAM,
                   guest_ram_host(rig->board.guest, GPA(0), RIG_RAM), 0);
    bus_add_reader(rig->board.bus, &rig->reader);
    rig->far = -1;
    rig->turns = threads ? 0 : RIG_TURNS;
    rig->host_time = 1000000000; /* 2001-09-09 01:46:40 UTC, a Sunday */
    rig->output = g_byte_array_new();
    rig->stream.write = stream_take;
    rig->screen.changed = count_screen;
    rig->source.changed = count_source;
    rig->fw_cfg = fw_cfg_new();
    fw_cfg_add_file(rig->fw_cfg, "etc/rig", g_bytes_new_static("0123456789", 10));
    rig->disk = g_new0(struct rig_disk, 1);
    rig->disk->disk = (struct disk){ .ops = &memory_ops, .size = RIG_DISK_SIZE, .name = "memory" };
    rig->disk->last = &rig->disk->first;
    if (!strcmp(class->name, "fdc")) /* a floppy has the size of one */
        rig->disk->disk.size = RIG_FLOPPY_SIZE;

    rig->dev = device_create(class, &rig->board, NULL);
    rig->options = g_strdupv((char **)(uintptr_t)options);
    for (; options && *options; options += 2)
        device_set(rig->dev, options[0], options[1], &error);
    plug_all(rig);
    if (class->pci) {
        struct rig_line *line = &rig->lines[rig->line_count++];
        line->plug = "intx";
        irq_wire_init(&line->wire);
        irq_wire_to(&line->wire, (struct irq_input){ line_set, line, 0 });
        line->irq.wire = &line->wire;
        pci_place(rig->dev, RIG_DEVFN, &line->irq);
    }
    if (error || !device_start(rig->dev, &error))
        g_error("rig: %s: %s", class->name, error->message);
    if (class->pci)
        place_bars(rig);
    return rig;
}

struct rig *rig_new(const struct device_class *class, const char *const *options)
{
    return make(class, options, false);
}

struct rig *rig_new_threaded(const struct device_class *class, const char *const *options)
{
    return make(class, options, true);
}

void rig_free(struct rig *rig)
{
    rig_disk_run(rig);
    device_destroy(rig->dev);
    net_free(rig->net);
    rig_hang_up(rig);
    for (unsigned i = 0; i < rig->line_count; i++)
        irq_wire_finish(&rig->lines[i].wire);
    pci_bus_free(rig->board.pci);
    clock_free(rig->board.clock);
    bus_free(rig->board.bus);
    guest_free(rig->board.guest);
    g_byte_array_unref(rig->output);
    fw_cfg_free(rig->fw_cfg);
    g_free(rig->disk);
    g_strfreev(rig->options);
    g_free(rig);
}

void rig_turn(struct rig *rig, unsigned turns)
{
    if (rig->board.threads || !rig->dev->loop)
        return;
    while (turns-- && loop_turn(rig->dev->loop))
        continue;
}

bool rig_packet_in(struct rig *rig, const void *packet, size_t length)
{
    bool ok = send(rig->far, packet, length, MSG_NOSIGNAL) >= 0;
    rig_turn(rig, rig->turns);
    return ok;
}

size_t rig_packet_out(struct rig *rig, void *packet, size_t room)
{
    ssize_t n = recv(rig->far, packet, room, 0);
    rig_turn(rig, rig->turns);
    return n > 0 ? (size_t)n : 0;
}

void rig_hang_up(struct rig *rig)
{
    if (rig->far >= 0)
        close(rig->far);
    rig->far = -1;
}

/* --- accesses ------------------------------------------------------------------------------- */

uint32_t rig_in(struct rig *rig, uint64_t port, unsigned width)
{
    uint32_t value = 0;
    bus_in(rig->board.bus, &rig->reader, port, &value, width);
    rig_turn(rig, rig->turns);
    return value;
}

void rig_out(struct rig *rig, uint64_t port, unsigned width, uint32_t value)
{
    bus_out(rig->board.bus, &rig->reader, port, &value, width);
    rig_turn(rig, rig->turns);
}

uint64_t rig_load(struct rig *rig, uint64_t address, unsigned width)
{
    uint64_t value = 0;
    bus_load(rig->board.bus, &rig->reader, address, &value, width);
    rig_turn(rig, rig->turns);
    return value;
}

void rig_store(struct rig *rig, uint64_t address, unsigned width, uint64_t value)
{
    bus_store(rig->board.bus, &rig->reader, address, &value, width);
    rig_turn(rig, rig->turns);
}

uint64_t rig_bar(struct rig *rig, unsigned bar)
{
    return rig->dev->pci->bars[bar].shown_at;
}

uint32_t rig_config_read(struct rig *rig, unsigned offset, unsigned width)
{
    return pci_config_read(rig->board.pci, RIG_DEVFN, offset, width);
}

void rig_config_write(struct rig *rig, unsigned offset, unsigned width, uint32_t value)
{
    pci_config_write(rig->board.pci, RIG_DEVFN, offset, width, value);
    rig_turn(rig, rig->turns);
}

struct rig_line *rig_line(struct rig *rig, const char *plug)
{
    for (unsigned i = 0; i < rig->line_count; i++)
        if (!strcmp(rig->lines[i].plug, plug))
            return &rig->lines[i];
    g_error("rig: %s has no line %s", rig->dev->class->name, plug);
}

static GByteArray *saved(struct device *dev)
{
    GByteArray *out = g_byte_array_new();
    device_save(dev, out);
    return out;
}

bool rig_round_trip(struct rig *rig)
{
    g_autoptr(GByteArray) first = saved(rig->dev);
    struct rig *second = rig_new(rig->dev->class, (const char *const *)rig->options);
    clock_set(second->board.clock, clock_now(rig->board.clock));
    second->host_time = rig->host_time;
    const uint8_t *in = first->data;
    size_t length = first->len;
    bool ok = device_load(second->dev, &in, &length, NULL) && length == 0;
    g_autoptr(GByteArray) again = saved(second->dev);
    ok = ok && again->len == first->len && !memcmp(again->data, first->data, first->len);
    rig_free(second);
    return ok;
}
