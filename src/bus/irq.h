/* Interrupt lines.
 *
 * A wire joins any number of sources to at most two inputs of interrupt controllers; it is high
 * while any source is. A device holds `struct irq *`, its end of the line, and never a number. A
 * device op calls irq_raise and kin with its own lock held; the wire's lock and then the
 * controller's follow (controllers are leaves: they call nothing but the CPU's pin and the MSI
 * door). */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct timer;

/* What a wire ends in. Called with the wire's lock held, `set` at changes only. */
struct irq_input {
    void (*set)(void *opaque, unsigned pin, bool level);
    void *opaque;
    unsigned pin;
    bool (*wanted)(void *opaque, unsigned pin, struct timer *sleeper); /* NULL: always */
};

struct irq_wire {
    GMutex lock;
    unsigned raised; /* sources that are high */
    unsigned inputs;
    struct irq_input input[2];
};

/* One source on a wire. */
struct irq {
    struct irq_wire *wire;
    bool level;
};

void irq_wire_init(struct irq_wire *wire);
void irq_wire_finish(struct irq_wire *wire);
void irq_wire_to(struct irq_wire *wire, struct irq_input input);

/* NULL is a line that leads nowhere. */
void irq_set(struct irq *irq, bool level);
static inline void irq_raise(struct irq *irq)
{
    irq_set(irq, true);
}
static inline void irq_lower(struct irq *irq)
{
    irq_set(irq, false);
}
/* An edge, for lines that software has programmed as edge-triggered. */
static inline void irq_pulse(struct irq *irq)
{
    irq_set(irq, true);
    irq_set(irq, false);
}

/* Would an edge change anything now? When not (masked, or one is latched already), a source that
 * only makes edges may stop: `sleeper`, its timer, is poked as soon as that may have changed. */
bool irq_wanted(struct irq *irq, struct timer *sleeper);

struct device;

/* What the machine asks of an interrupt controller (device_class.controller). Called with the
 * device's lock held. */
struct irq_controller {
    void (*input)(struct device *dev, unsigned pin, bool level);
    /* irq_wanted at a pin: false keeps the sleeper, one for each pin, until it is poked. NULL:
     * always wanted. */
    bool (*wanted)(struct device *dev, unsigned pin, struct timer *sleeper);
    /* The CPU acknowledges INTR: the vector (82C59A: the INTA cycles). */
    uint8_t (*acknowledge)(struct device *dev);
    /* The local APIC has seen an EOI for this vector (I/O APIC). */
    void (*eoi)(struct device *dev, uint8_t vector);
};
