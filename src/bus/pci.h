/* PCI: configuration space, BARs, interrupts of functions on bus 0 (PCI Local Bus 3.0, PCIe
 * Base 4.0).
 *
 * A device becomes a PCI function by `device_class.pci`; its regions of kind REGION_BAR are shown
 * on the bus as the guest programs the BARs. The framework owns the header, the BARs, capabilities,
 * the command register and their state; the device's lock protects them. Configuration cycles come
 * in through pci_config_read/write (q35-host: 0xCF8 and ECAM), which take the function's lock. */
#pragma once
#include "bus/device.h"

enum { PCI_SLOTS = 32, PCI_CONFIG_SIZE = 4096, PCI_HEADER_SIZE = 256, PCI_BARS = 7, PCI_ROM = 6 };

#define PCI_DEVFN(slot, function) ((unsigned)((slot) << 3 | (function)))

/* Offsets in configuration space (PCI 3.0 section 6.1). */
enum {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR = 0x10,
    PCI_SUBSYSTEM = 0x2c,
    PCI_ROM_BAR = 0x30,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};
/* PCI_COMMAND. */
enum {
    PCI_COMMAND_IO = 1,
    PCI_COMMAND_MEMORY = 2,
    PCI_COMMAND_MASTER = 4,
    PCI_COMMAND_NO_INTX = 0x400,
};
enum { PCI_STATUS_INTX = 0x08 };

/* How a BAR decodes. Memory that the guest maps straight (video memory, a ROM) is a slot of guest
 * memory instead of a region: set up in init with pci_bar_memory. */
enum bar_kind { BAR_NONE, BAR_PORTS, BAR_MEMORY32, BAR_MEMORY64, BAR_PREFETCH32, BAR_PREFETCH64 };

struct pci_class {
    uint16_t vendor, device;
    uint32_t class_code; /* base class << 16 | subclass << 8 | interface */
    uint8_t revision;
    uint16_t subsystem_vendor, subsystem;
    uint8_t interrupt_pin; /* 0: none, 1: INTA ... */
    enum bar_kind bars[6];
    uint8_t msi_offset; /* of an MSI capability with one 64-bit vector; 0: none */
    /* The memory BAR, not 0, with the MSI-X table and PBA (the framework's own region of 4 KiB); 0:
     * no MSI-X. The device sets the number of vectors in init. */
    uint8_t msix_bar;
    bool multifunction;
    /* Configuration space of the device's own (0x40 and up): bytes that software may write, by a
     * list of {offset, write mask}, ends with a zero mask; and who is told after a write. Both
     * optional. */
    const struct pci_mask {
        uint16_t offset;
        uint8_t mask;
    } * writable;
    void (*config_written)(struct device *dev, unsigned offset, unsigned length);
    /* Before a read, for registers that are windows (virtio's pci-cfg capability). Optional. */
    void (*config_read)(struct device *dev, unsigned offset, unsigned length);
    /* After a write to the MSI-X table, for who uses pci_msix_line. Optional. */
    void (*msix_written)(struct device *dev);
};

struct pci_regs {
    uint8_t config[PCI_HEADER_SIZE]; /* no function has extended capabilities: zeros behind */
};

struct pci_function {
    struct device *dev;
    const struct pci_class *class;
    unsigned devfn;
    struct irq *intx;               /* NULL until wired */
    uint8_t mask[PCI_HEADER_SIZE];  /* bits that software may write */
    uint8_t clear[PCI_HEADER_SIZE]; /* bits that writing 1 clears */
    struct bar {
        uint64_t size; /* 0: none */
        const struct region *region;
        unsigned slot; /* of guest memory; valid with `host` */
        uint8_t *host;
        unsigned slot_flags;
        uint64_t shown_at; /* where it is mapped now */
        bool shown;
    } bars[PCI_BARS];
    bool level;                     /* INTx as the device drives it */
    struct msix *msix;              /* NULL: it has none */
    GBytes *rom;                    /* what the ROM BAR shows; NULL: it has none */
    unsigned capability, free;      /* offsets of the last one, and of the room behind it */
    uint8_t fresh[PCI_HEADER_SIZE]; /* the header and capabilities after reset */
    struct pci_regs regs;           /* saved */
};

struct pci_bus;
struct pci_bus *pci_bus_new(void);
void pci_bus_free(struct pci_bus *bus);

/* Makes dev, whose class has `pci`, the function devfn of bus 0. Called by device_start when
 * dev->pci->devfn was given by pci_place. */
void pci_place(struct device *dev, unsigned devfn, struct irq *intx);

/* Configuration cycles on bus 0, any width, within a dword; absent functions read as ones. They
 * take the function's lock. */
uint32_t pci_config_read(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned width);
void pci_config_write(struct pci_bus *bus, unsigned devfn, unsigned offset, unsigned width,
                      uint32_t value);

struct device *pci_device(struct pci_bus *bus, unsigned devfn);

/* --- for devices, under their own lock ------------------------------------------------------ */

/* In init: BAR `bar` (or PCI_ROM) is `size` bytes (a power of two, at least a page) of host memory
 * that the guest maps straight; flags as guest_slot_set. The memory must live as long as the
 * device. */
void pci_bar_memory(struct device *dev, unsigned bar, void *host, uint64_t size, unsigned flags);
/* In init: an expansion ROM (PCI_ROM) from a blob. One in pages of its own, of a BAR's size, is
 * shown to the guest as it is, all others are copied and rounded up. NULL: none. */
bool pci_option_rom(struct device *dev, GBytes *rom, GError **error);

uint32_t pci_get(const struct device *dev, unsigned offset, unsigned width);
void pci_put(struct device *dev, unsigned offset, unsigned width, uint32_t value);
/* Adds `mask` to the bits that software may write in a byte. */
void pci_allow(struct device *dev, unsigned offset, uint8_t mask);

/* The function's interrupt: an MSI at each rising edge when the driver enabled MSI, else INTx. */
void pci_interrupt(struct device *dev, bool level);
/* --- capabilities and MSI-X (PCI 3.0 section 6.8.2), in init --- */

/* Appends a capability of `length` bytes, of which the first is `id` and the second the link; gives
 * its offset. The bytes after it are the device's to fill (pci_put) and are kept over a reset. */
unsigned pci_capability(struct device *dev, uint8_t id, unsigned length);
/* This many vectors, 1 to 128; for classes with msix_bar. */
void pci_msix_vectors(struct device *dev, unsigned vectors);

bool pci_msix_enabled(const struct device *dev);
/* Sends the message of `vector`, or marks it pending while it is masked. Nothing when MSI-X is off
 * or there is no such vector. */
void pci_msix_notify(struct device *dev, unsigned vector);
/* An eventfd that sends the message of `vector` when it is signalled, for a peer that signals it by
 * itself; -1 when there is none: now, because it is masked, or at all. To be asked for again after
 * each write to the table or to configuration space. */
int pci_msix_line(struct device *dev, unsigned vector);
/* From now (a driver is ready) until pci_msix_release the messages go through irqfds. */
void pci_msix_claim(struct device *dev);
void pci_msix_release(struct device *dev);

/* Where a BAR decodes now; false when it does not. */
bool pci_bar_address(const struct device *dev, unsigned bar, uint64_t *address);

/* An MSI without a level, for devices with edges of their own; does nothing unless MSI is on. */
bool pci_msi_enabled(const struct device *dev);
/* May it do DMA now (bus master enable)? */
bool pci_master(const struct device *dev);
/* DMA of a function: as guest_read/guest_write, and false unless bus mastering is on. */
bool pci_read(struct device *dev, gpa from, void *to, size_t length);
bool pci_write(struct device *dev, gpa to, const void *from, size_t length);

/* Called by the framework (device.c), under the device's lock. */
void pci_start(struct device *dev);
void pci_started(struct device *dev); /* after init: what is there now is what reset restores */
void pci_save(struct device *dev, GByteArray *out);
bool pci_load(struct device *dev, const uint8_t **in, size_t *length, GError **error);
void pci_reset(struct device *dev);
void pci_loaded(struct device *dev);
void pci_finish(struct device *dev);
extern const struct state pci_state; /* of a struct pci_function */
