/* Which of the machine's input devices gets an event: the last, in the order of the parts list,
 * that the guest listens to. A guest with virtio drivers listens to those devices, any other to the
 * PS/2 ones. Any thread, with no device's lock held: each is asked under its own. */
#pragma once
#include "bus/device.h"

enum input_role { INPUT_KEYS, INPUT_POINTER, INPUT_POINTER_AT };

/* NULL when no device has that role and a listening guest. */
struct device *inputs_choose(const GPtrArray *devices, enum input_role role);
/* Tells all keyboards whom to tell of room and lamps. */
void inputs_set_source(const GPtrArray *devices, struct input_source *source);
