/* Dispatch of port and MMIO accesses; see bus.h for the rules.
 *
 * The path of an access is the hottest code of hv: access_port and access_mmio. */
#include "memory/bus.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PORTS = 65536, MAX_MAPPINGS = 254 };

/* What the table says of a port: who answers (0: nobody), and which lengths may go to it in one
 * piece: bit PORT_LENGTHS + n is for n bytes. */
enum { NOBODY = 0, PORT_INDEX = 0xff, PORT_LENGTHS = 8 };

/* A region at its place, with what an access needs of it side by side. */
struct mapping {
    uint64_t base, size;
    struct device *dev;
    GMutex *lock;
    uint64_t (*read)(struct device *dev, uint64_t offset, unsigned width);
    void (*write)(struct device *dev, uint64_t offset, unsigned width, uint64_t value);
    unsigned lengths; /* bit n: an aligned access of n bytes goes to the device in one piece */
    const struct region *region;
};

/* Immutable once published. */
struct bus_map {
    uint64_t generation; /* tells a new map from a freed one at the same address */
    unsigned count[SPACES];
    struct mapping maps[SPACES][MAX_MAPPINGS]; /* ports: as mapped; MMIO: sorted, without overlap */
    uint16_t port[PORTS];                      /* index + 1 into maps[SPACE_PORTS], and lengths */
};

/* What was mapped, in order; later entries cover earlier ones. */
struct wish {
    struct mapping mapping;
    enum space space;
};

struct bus {
    struct bus_map *_Atomic map;
    bus_tracer *tracer;
    void *tracer_opaque;

    GMutex lock; /* protects what follows; a leaf */
    GArray *wishes;
    GPtrArray *retired; /* replaced maps that somebody may still read */
    struct bus_reader *readers;
    uint64_t generation;
    unsigned held; /* changes wait for bus_release */
    bool changed;
};

/* Fresh pages: zero without being written, as most of the port table stays. */
static struct bus_map *map_new(void)
{
    void *map = mmap(NULL, sizeof(struct bus_map), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return map == MAP_FAILED ? NULL : map;
}

static void map_free(void *map)
{
    munmap(map, sizeof(struct bus_map));
}

/* --- building maps -------------------------------------------------------------------------- */

static int by_base(const void *a, const void *b)
{
    uint64_t x = ((const struct mapping *)a)->base, y = ((const struct mapping *)b)->base;
    return (x > y) - (x < y);
}

static bool clear_of(const struct bus_map *map, const struct mapping *new)
{
    for (unsigned i = 0; i < map->count[SPACE_MMIO]; i++) {
        const struct mapping *old = &map->maps[SPACE_MMIO][i];
        if (new->base < old->base + old->size && old->base < new->base + new->size)
            return false;
    }
    return true;
}

static uint64_t read_nothing(struct device *dev, uint64_t offset, unsigned width)
{
    (void)dev, (void)offset, (void)width;
    return UINT64_MAX;
}

static void write_nothing(struct device *dev, uint64_t offset, unsigned width, uint64_t value)
{
    (void)dev, (void)offset, (void)width, (void)value;
}

/* The lengths for `struct mapping`: the widths that divide the region's size, so that an aligned
 * access inside it also ends inside. */
static unsigned whole_lengths(const struct region *region)
{
    unsigned lengths = 0;
    for (unsigned width = W8; width <= W64; width *= 2)
        if (region->widths & width && region->size % width == 0)
            lengths |= 1u << width;
    return lengths;
}

/* Can an access go to the device in one piece? A guest makes accesses of 3 and 5 to 7 bytes too:
 * what is left of one that crosses a page. */
static inline bool is_simple(const struct mapping *m, uint64_t offset, unsigned length)
{
    return m->lengths >> length & 1 && !(offset & (length - 1));
}

/* The ports of mapping number `index` that no later wish has taken. */
static void build_ports(struct bus_map *map, unsigned index)
{
    const struct mapping *m = &map->maps[SPACE_PORTS][index];
    for (uint64_t offset = 0; offset < m->size; offset++) {
        uint16_t *port = &map->port[m->base + offset];
        if (*port != NOBODY)
            continue;
        *port = (uint16_t)(index + 1);
        for (unsigned length = W8; length <= W32; length *= 2)
            if (is_simple(m, offset, length))
                *port |= (uint16_t)(1 << (PORT_LENGTHS + length));
    }
}

static void build(struct bus_map *map, const GArray *wishes, bool traced)
{
    /* Later wishes win: take them from the back. An MMIO region that is partly covered is left out
     * whole; a guest that overlaps BARs gets what it asked for on no hardware either. */
    for (guint i = wishes->len; i-- > 0;) {
        const struct wish *wish = &g_array_index(wishes, struct wish, i);
        const struct mapping *new = &wish->mapping;
        unsigned *count = &map->count[wish->space];
        if (*count == MAX_MAPPINGS || (wish->space == SPACE_MMIO && !clear_of(map, new)))
            continue;
        struct mapping *m = &map->maps[wish->space][(*count)++];
        *m = *new;
        if (traced)
            m->lengths = 0; /* all of its accesses go the slow way, which tells the tracer */
        if (wish->space == SPACE_PORTS)
            build_ports(map, *count - 1);
    }
    qsort(map->maps[SPACE_MMIO], map->count[SPACE_MMIO], sizeof map->maps[0][0], by_base);
}

/* Frees the retired maps that no reader announces. Lock held. */
static void reap(struct bus *bus)
{
    for (guint i = bus->retired->len; i-- > 0;) {
        const struct bus_map *old = g_ptr_array_index(bus->retired, i);
        bool used = false;
        for (struct bus_reader *r = bus->readers; r; r = r->next)
            used |= atomic_load(&r->reading) == old;
        if (!used)
            g_ptr_array_remove_index_fast(bus->retired, i);
    }
}

static void publish(struct bus *bus)
{
    bus->changed = true;
    if (bus->held)
        return;
    bus->changed = false;
    struct bus_map *map = map_new();
    if (!map)
        return; /* the old map stays: stale, but whole */
    build(map, bus->wishes, bus->tracer != NULL);
    map->generation = ++bus->generation;
    struct bus_map *old = atomic_exchange(&bus->map, map);
    g_ptr_array_add(bus->retired, old);
    reap(bus);
}

struct bus *bus_new(void)
{
    struct bus *bus = g_new0(struct bus, 1);
    g_mutex_init(&bus->lock);
    bus->wishes = g_array_new(false, false, sizeof(struct wish));
    bus->retired = g_ptr_array_new_with_free_func(map_free);
    struct bus_map *empty = map_new();
    if (empty)
        empty->generation = ++bus->generation; /* a reader that has seen nothing yet is at 0 */
    atomic_store(&bus->map, empty);
    return bus;
}

void bus_free(struct bus *bus)
{
    if (!bus)
        return;
    map_free(atomic_load(&bus->map));
    g_ptr_array_unref(bus->retired);
    g_array_unref(bus->wishes);
    g_mutex_clear(&bus->lock);
    g_free(bus);
}

void bus_add_reader(struct bus *bus, struct bus_reader *reader)
{
    g_mutex_lock(&bus->lock);
    reader->next = bus->readers;
    bus->readers = reader;
    g_mutex_unlock(&bus->lock);
}

static bool forget(struct bus *bus, const struct device *dev, const struct region *region)
{
    for (guint i = 0; i < bus->wishes->len; i++) {
        const struct wish *wish = &g_array_index(bus->wishes, struct wish, i);
        if (wish->mapping.dev == dev && wish->mapping.region == region) {
            g_array_remove_index(bus->wishes, i);
            return true;
        }
    }
    return false;
}

bool bus_map(struct bus *bus, struct device *dev, GMutex *lock, const struct region *region,
             enum space space, uint64_t base)
{
    uint64_t end = base + region->size;
    if (end <= base || (space == SPACE_PORTS && end > PORTS))
        return false;
    struct wish wish = {
        { base, region->size, dev, lock, region->read ? region->read : read_nothing,
          region->write ? region->write : write_nothing, whole_lengths(region), region },
        space,
    };
    g_mutex_lock(&bus->lock);
    forget(bus, dev, region);
    unsigned taken = 0;
    for (guint i = 0; i < bus->wishes->len; i++)
        taken += g_array_index(bus->wishes, struct wish, i).space == space;
    bool room = taken < MAX_MAPPINGS;
    if (room)
        g_array_append_val(bus->wishes, wish);
    publish(bus);
    g_mutex_unlock(&bus->lock);
    return room;
}

void bus_hold(struct bus *bus)
{
    g_mutex_lock(&bus->lock);
    bus->held++;
    g_mutex_unlock(&bus->lock);
}

void bus_release(struct bus *bus)
{
    g_mutex_lock(&bus->lock);
    if (--bus->held == 0 && bus->changed)
        publish(bus);
    g_mutex_unlock(&bus->lock);
}

void bus_unmap(struct bus *bus, struct device *dev, const struct region *region)
{
    g_mutex_lock(&bus->lock);
    if (forget(bus, dev, region))
        publish(bus);
    g_mutex_unlock(&bus->lock);
}

/* --- the way of an access ------------------------------------------------------------------- */

/* Announces the current map in the reader, so that it lives until leave(). */
static inline const struct bus_map *enter(struct bus *bus, struct bus_reader *reader)
{
    const struct bus_map *map;
    do {
        map = atomic_load(&bus->map);
        atomic_store(&reader->reading, map);
    } while (G_UNLIKELY(atomic_load(&bus->map) != map));
    return map;
}

static inline void leave(struct bus_reader *reader)
{
    atomic_store_explicit(&reader->reading, NULL, memory_order_release);
}

static const struct mapping *find_mmio(const struct bus_map *map, struct bus_reader *reader,
                                       uint64_t address)
{
    unsigned low = 0, high = map->count[SPACE_MMIO];
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct mapping *m = &map->maps[SPACE_MMIO][middle];
        if (address < m->base)
            high = middle;
        else if (address - m->base >= m->size)
            low = middle + 1;
        else {
            reader->last = m;
            reader->generation = map->generation;
            return m;
        }
    }
    return NULL;
}

static inline const struct mapping *find(const struct bus_map *map, struct bus_reader *reader,
                                         enum space space, uint64_t address)
{
    if (space == SPACE_MMIO)
        return find_mmio(map, reader, address);
    unsigned index = address < PORTS ? map->port[address] & PORT_INDEX : NOBODY;
    return index == NOBODY ? NULL : &map->maps[SPACE_PORTS][index - 1];
}

/* The widest width of the region that fits at this offset and length; 0 when all are too wide. */
static unsigned best_width(const struct region *region, uint64_t offset, unsigned length)
{
    for (unsigned width = 8; width; width /= 2)
        if (region->widths & width && width <= length && offset % width == 0)
            return width;
    return 0;
}

/* A read narrower than the region answers: cut out of the narrowest wider one. */
static uint64_t read_part(const struct mapping *m, uint64_t offset)
{
    const struct region *region = m->region;
    for (unsigned width = 2; width <= 8; width *= 2) {
        uint64_t start = offset & ~(uint64_t)(width - 1);
        if (region->widths & width && start + width <= region->size)
            return region->read(m->dev, start, width) >> (offset - start) * 8;
    }
    return UINT64_MAX;
}

/* Reads or writes up to *length bytes at offset; says in *length how many it was. */
static void access_once(const struct mapping *m, uint64_t offset, uint8_t *data, unsigned *length,
                        bool write)
{
    const struct region *region = m->region;
    unsigned width = best_width(region, offset, *length);
    uint64_t value = UINT64_MAX;
    *length = width ? width : 1;
    if (offset + *length > region->size)
        width = 0;
    if (write) {
        value = 0;
        memcpy(&value, data, *length);
        if (width && region->write)
            region->write(m->dev, offset, width, value);
        return;
    }
    if (region->read && width)
        value = region->read(m->dev, offset, width);
    else if (region->read && offset < region->size)
        value = read_part(m, offset);
    memcpy(data, &value, *length);
}

static void trace(struct bus *bus, enum space space, struct device *dev, uint64_t address,
                  const void *data, unsigned length, bool write)
{
    uint64_t value = 0;
    memcpy(&value, data, length);
    bus->tracer(bus->tracer_opaque, space, dev, address, length, value, write);
}

/* The slow way: unaligned, of odd length, across regions, or of a width that the region lacks. */
static bool access_split(struct bus_reader *reader, const struct bus_map *map, enum space space,
                         uint64_t address, uint8_t *data, unsigned length, bool write)
{
    bool answered = false;
    while (length) {
        const struct mapping *m = find(map, reader, space, address);
        unsigned done = 1;
        if (m) {
            done = length;
            if (m->lock)
                g_mutex_lock(m->lock);
            access_once(m, address - m->base, data, &done, write);
            if (m->lock)
                g_mutex_unlock(m->lock);
            answered = true;
        } else if (!write) {
            *data = 0xff;
        }
        address += done;
        data += done;
        length -= done;
    }
    return answered;
}

/* memcpy of a length that the compiler does not know is a call; these are not. */
static inline uint64_t load(const void *data, unsigned length)
{
    switch (length) {
    case 1:
        return *(const uint8_t *)data;
    case 2:
        return ((const struct { uint16_t v; } __attribute__((packed)) *)data)->v;
    case 4:
        return ((const struct { uint32_t v; } __attribute__((packed)) *)data)->v;
    default:
        return ((const struct { uint64_t v; } __attribute__((packed)) *)data)->v;
    }
}

static inline void store(void *data, unsigned length, uint64_t value)
{
    switch (length) {
    case 1:
        *(uint8_t *)data = (uint8_t)value;
        break;
    case 2:
        ((struct { uint16_t v; } __attribute__((packed)) *)data)->v = (uint16_t)value;
        break;
    case 4:
        ((struct { uint32_t v; } __attribute__((packed)) *)data)->v = (uint32_t)value;
        break;
    default:
        ((struct { uint64_t v; } __attribute__((packed)) *)data)->v = value;
        break;
    }
}

/* What the short way below cannot do; it keeps its stack frame out of that. */
__attribute__((cold, noinline)) static bool access_slow(struct bus *bus, struct bus_reader *reader,
                                                        enum space space, uint64_t address,
                                                        void *data, unsigned length, bool write)
{
    const struct bus_map *map = enter(bus, reader);
    const struct mapping *m = find(map, reader, space, address);
    if (bus->tracer && write)
        trace(bus, space, m ? m->dev : NULL, address, data, length, true);
    bool answered = access_split(reader, map, space, address, data, length, write);
    if (bus->tracer && !write)
        trace(bus, space, m ? m->dev : NULL, address, data, length, false);
    leave(reader);
    return answered;
}

/* The short way of an access that goes to one device in one piece. */
static inline __attribute__((always_inline)) void
access_device(const struct mapping *m, uint64_t offset, void *data, unsigned length, bool write)
{
    uint64_t value = write ? load(data, length) : 0;
    GMutex *lock = m->lock;
    if (lock)
        g_mutex_lock(lock);
    if (write)
        m->write(m->dev, offset, length, value);
    else
        value = m->read(m->dev, offset, length);
    if (lock)
        g_mutex_unlock(lock);
    if (!write)
        store(data, length, value);
}

static inline __attribute__((always_inline)) bool access_port(struct bus *bus,
                                                              struct bus_reader *reader,
                                                              uint64_t port, void *data,
                                                              unsigned length, bool write)
{
    const struct bus_map *map = enter(bus, reader);
    unsigned entry = map->port[port & (PORTS - 1)];
    if (G_UNLIKELY(!(entry >> (PORT_LENGTHS + length) & 1)))
        return access_slow(bus, reader, SPACE_PORTS, port, data, length, write);
    const struct mapping *m = &map->maps[SPACE_PORTS][(entry & PORT_INDEX) - 1];
    access_device(m, port - m->base, data, length, write);
    leave(reader);
    return true;
}

static inline __attribute__((always_inline)) bool access_mmio(struct bus *bus,
                                                              struct bus_reader *reader,
                                                              uint64_t address, void *data,
                                                              unsigned length, bool write)
{
    const struct bus_map *map = enter(bus, reader);
    const struct mapping *m = reader->last;
    if (G_UNLIKELY(reader->generation != map->generation || address - m->base >= m->size)) {
        m = find_mmio(map, reader, address);
        if (!m)
            return access_slow(bus, reader, SPACE_MMIO, address, data, length, write);
    }
    uint64_t offset = address - m->base;
    if (G_UNLIKELY(!is_simple(m, offset, length)))
        return access_slow(bus, reader, SPACE_MMIO, address, data, length, write);
    access_device(m, offset, data, length, write);
    leave(reader);
    return true;
}

bool bus_in(struct bus *bus, struct bus_reader *reader, uint64_t port, void *data, unsigned length)
{
    return access_port(bus, reader, port, data, length, false);
}

bool bus_out(struct bus *bus, struct bus_reader *reader, uint64_t port, void *data, unsigned length)
{
    return access_port(bus, reader, port, data, length, true);
}

bool bus_load(struct bus *bus, struct bus_reader *reader, uint64_t address, void *data,
              unsigned length)
{
    return access_mmio(bus, reader, address, data, length, false);
}

bool bus_store(struct bus *bus, struct bus_reader *reader, uint64_t address, void *data,
               unsigned length)
{
    return access_mmio(bus, reader, address, data, length, true);
}

void bus_each(struct bus *bus, enum space space,
              void (*each)(void *opaque, struct device *dev, const struct region *region,
                           uint64_t base),
              void *opaque)
{
    g_mutex_lock(&bus->lock);
    const struct bus_map *map = atomic_load(&bus->map);
    for (unsigned i = 0; i < map->count[space]; i++) {
        const struct mapping *m = &map->maps[space][i];
        each(opaque, m->dev, m->region, m->base);
    }
    g_mutex_unlock(&bus->lock);
}

void bus_trace(struct bus *bus, bus_tracer *tracer, void *opaque)
{
    g_mutex_lock(&bus->lock);
    bus->tracer = tracer;
    bus->tracer_opaque = opaque;
    publish(bus); /* a traced map has no short ways */
    g_mutex_unlock(&bus->lock);
}
