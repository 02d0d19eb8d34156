/* The two buses: 64 Ki I/O ports, and the memory addresses that are not RAM (MMIO).
 *
 * A region is a window on which a device answers. The maps are immutable snapshots, replaced when a
 * BAR moves; readers take no lock and announce the snapshot they use in their `bus_reader`, so it
 * is freed when nobody reads it. The bus takes the device's lock around each access and gives the
 * device only widths it declares: wider accesses are split, narrower reads are cut out of a wider
 * one, narrower writes and accesses that reach outside the region are ignored, as on a bus where no
 * byte enable selects the register. What nobody answers reads as all ones. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct device;

enum region_kind { REGION_END, REGION_PORTS, REGION_MMIO, REGION_BAR };
enum { W8 = 1, W16 = 2, W32 = 4, W64 = 8 };

/* Data of a device class. Offsets given to read and write are from the region's base; a width is
 * one of `widths`, the offset is a multiple of it, the value has no bits above it. */
struct region {
    enum region_kind kind;
    uint64_t base; /* from the device's base: a port or an address; or a BAR number */
    uint64_t size; /* bytes, of a BAR a power of two */
    unsigned widths;
    uint64_t (*read)(struct device *dev, uint64_t offset, unsigned width);
    void (*write)(struct device *dev, uint64_t offset, unsigned width, uint64_t value);
};

enum space { SPACE_PORTS, SPACE_MMIO, SPACES };

struct bus_map;

/* One for each thread that accesses the bus; zero-initialise, then bus_add_reader. */
struct bus_reader {
    const struct bus_map *_Atomic reading;
    const struct mapping *last; /* MMIO: the mapping hit last, in the map of `generation` */
    uint64_t generation;
    struct bus_reader *next;
};

struct bus;

struct bus *bus_new(void);
void bus_free(struct bus *bus);
void bus_add_reader(struct bus *bus, struct bus_reader *reader);

/* Shows a region at an absolute base. `lock` is the device's, or
 * NULL for a region whose functions lock for themselves (PCI configuration). Where regions overlap,
 * the one mapped later wins. False when the space is full or the range wraps. A leaf lock. */
bool bus_map(struct bus *bus, struct device *dev, GMutex *lock, const struct region *region,
             enum space space, uint64_t base);
void bus_unmap(struct bus *bus, struct device *dev, const struct region *region);

/* Between these, changes of the maps wait, and are then made all at once: while the machine is
 * built or reset. They nest. */
void bus_hold(struct bus *bus);
void bus_release(struct bus *bus);

/* One access of 1 to 8 bytes as the guest made it. A read that nobody answers gives all ones, the
 * functions then return false. bus_in and bus_out: ports; bus_load and bus_store: MMIO. What is
 * written is not changed. */
bool bus_in(struct bus *bus, struct bus_reader *reader, uint64_t port, void *data, unsigned length);
bool bus_out(struct bus *bus, struct bus_reader *reader, uint64_t port, void *data,
             unsigned length);
bool bus_load(struct bus *bus, struct bus_reader *reader, uint64_t address, void *data,
              unsigned length);
bool bus_store(struct bus *bus, struct bus_reader *reader, uint64_t address, void *data,
               unsigned length);

/* Calls `each` for every mapping, in order of address. */
void bus_each(struct bus *bus, enum space space,
              void (*each)(void *opaque, struct device *dev, const struct region *region,
                           uint64_t base),
              void *opaque);

/* Sees every access (hv run --trace); NULL for none, which costs one load. Set before vCPUs run. */
typedef void bus_tracer(void *opaque, enum space space, struct device *dev, uint64_t address,
                        unsigned length, uint64_t value, bool write);
void bus_trace(struct bus *bus, bus_tracer *tracer, void *opaque);
