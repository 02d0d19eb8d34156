/* Interrupt lines; see irq.h. */
#include "bus/irq.h"

void irq_wire_init(struct irq_wire *wire)
{
    *wire = (struct irq_wire){ .raised = 0 };
    g_mutex_init(&wire->lock);
}

void irq_wire_finish(struct irq_wire *wire)
{
    g_mutex_clear(&wire->lock);
}

void irq_wire_to(struct irq_wire *wire, struct irq_input input)
{
    g_assert(wire->inputs < G_N_ELEMENTS(wire->input)); /* our own wiring */
    wire->input[wire->inputs++] = input;
}

void irq_set(struct irq *irq, bool level)
{
    if (!irq || irq->level == level)
        return;
    irq->level = level;
    struct irq_wire *wire = irq->wire;
    g_mutex_lock(&wire->lock);
    bool before = wire->raised > 0;
    wire->raised += level ? 1 : -1U;
    bool after = wire->raised > 0;
    if (before != after)
        for (unsigned i = 0; i < wire->inputs; i++)
            wire->input[i].set(wire->input[i].opaque, wire->input[i].pin, after);
    g_mutex_unlock(&wire->lock);
}

bool irq_wanted(struct irq *irq, struct timer *sleeper)
{
    bool wanted = false;
    if (!irq)
        return false;
    struct irq_wire *wire = irq->wire;
    g_mutex_lock(&wire->lock);
    for (unsigned i = 0; i < wire->inputs && !wanted; i++) {
        const struct irq_input *input = &wire->input[i];
        wanted = !input->wanted || input->wanted(input->opaque, input->pin, sleeper);
    }
    g_mutex_unlock(&wire->lock);
    return wanted;
}
