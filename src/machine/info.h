/* What a machine's devices say of themselves and their guest, for hv info. The machine's thread. */
#pragma once
#include "machine/machine.h"

#include <jansson.h>

/* The first device for whose class `has` is true; NULL: there is none. */
struct device *info_find(struct machine *machine, bool (*has)(const struct device_class *class));
bool info_has_memory(const struct device_class *class);

/* What the guest's balloon driver says of its memory, and how old that is; NULL when it is silent.
 * The driver is asked for more: who wants fresh numbers asks again. */
json_t *info_memory(struct machine *machine);
/* How many pairs of the network card's queues the kernel serves just now; NULL: the card is on no
 * tap device. */
json_t *info_vhost(struct machine *machine);
/* What its vCPUs do at this moment; NULL with an error. */
json_t *info_cpus(struct machine *machine, GError **error);
/* What its network does wrong, because somebody wants that; NULL: nothing. */
json_t *info_net_faults(struct machine *machine);
/* Its hard disks, with the numbers by which they are called, and what they do wrong. */
json_t *info_disks(struct machine *machine);
