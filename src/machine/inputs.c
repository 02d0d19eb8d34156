/* The choice among input devices; see inputs.h. */
#include "machine/inputs.h"

static bool has_role(const struct input_class *input, enum input_role role)
{
    switch (role) {
    case INPUT_KEYS:
        return input->key;
    case INPUT_POINTER:
        return input->pointer;
    case INPUT_POINTER_AT:
        return input->pointer_at;
    }
    return false;
}

static bool is_active(struct device *dev)
{
    const struct input_class *input = dev->class->input;
    if (!input->active)
        return true;
    device_lock(dev);
    bool active = input->active(dev);
    device_unlock(dev);
    return active;
}

struct device *inputs_choose(const GPtrArray *devices, enum input_role role)
{
    for (guint i = devices->len; i-- > 0;) {
        struct device *dev = g_ptr_array_index(devices, i);
        if (dev->class->input && has_role(dev->class->input, role) && is_active(dev))
            return dev;
    }
    return NULL;
}

void inputs_set_source(const GPtrArray *devices, struct input_source *source)
{
    for (guint i = 0; i < devices->len; i++) {
        struct device *dev = g_ptr_array_index(devices, i);
        if (dev->class->input && dev->class->input->key)
            device_plug(dev, "source", source);
    }
}
