/* Methods of the control socket that type and point. */
#include "machine/control-core.h"

#include "base/error.h"
#include "machine/inputs.h"
#include "machine/typist.h"

#include <string.h>

enum { KEY_FIRST = 4 /* below are errors (HUT 1.12) */ };
enum { WHEEL_MAX = 100, MOTION_MAX = 10000 };

/* --- the keyboard --------------------------------------------------------------------------- */

/* A key as requests have it: a name, or a HID usage. */
static uint8_t key_of(const char *field, const json_t *item, GError **error)
{
    const char *name = json_string_value(item);
    json_int_t number = json_integer_value(item);
    uint8_t usage = name                                         ? key_named(name)
                    : number >= KEY_FIRST && number <= UINT8_MAX ? (uint8_t)number
                                                                 : 0;
    const char *near = name && !usage ? key_near(name) : NULL;
    if (!usage && name)
        hv_fail(error, HV_USAGE, "%s: there is no key \"%s\"%s%s%s", field, name,
                near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    else if (!usage)
        hv_fail(error, HV_USAGE, "%s: names of keys, or numbers from %d to 255, are wanted", field,
                KEY_FIRST);
    return usage;
}

static bool chord_of(const char *field, const json_t *keys, struct chord *chord, GError **error)
{
    size_t i;
    json_t *item;
    *chord = (struct chord){ { 0 } };
    if (!json_array_size(keys) || json_array_size(keys) > CHORD_KEYS)
        return hv_fail(error, HV_USAGE, "%s: a list of keys is wanted, at most %d", field,
                       CHORD_KEYS);
    json_array_foreach(keys, i, item)
    {
        if (!(chord->usage[i] = key_of(field, item, error)))
            return false;
    }
    return true;
}

json_t *control_send_key(struct client *c, const json_t *params, GError **error)
{
    struct chord chord;
    if (!chord_of("keys", json_object_get(params, "keys"), &chord, error))
        return NULL;
    if (!typist_chord(c->control->typist, &chord, true)) {
        hv_fail(error, HV_WRONG_STATE, "the guest has not taken what was typed before");
        return NULL;
    }
    return json_pack("{s:b}", "typing", typist_busy(c->control->typist));
}

/* All are judged before the first is typed. */
json_t *control_send_keys(struct client *c, const json_t *params, GError **error)
{
    const json_t *list = json_object_get(params, "chords");
    size_t count = json_array_size(list), taken = 0;
    g_autofree struct chord *chords = g_new(struct chord, count);
    if (!json_is_array(list)) {
        hv_fail(error, HV_USAGE, "chords: a list of lists of keys is wanted");
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        if (!chord_of("chords", json_array_get(list, i), &chords[i], error))
            return NULL;
    while (taken < count && typist_chord(c->control->typist, &chords[taken], false))
        taken++;
    return json_pack("{s:I, s:b}", "accepted", (json_int_t)taken, "typing",
                     typist_busy(c->control->typist));
}

json_t *control_send_text(struct client *c, const json_t *params, GError **error)
{
    const char *text = json_string_value(json_object_get(params, "text"));
    if (!text) {
        hv_fail(error, HV_USAGE, "text: a string is wanted");
        return NULL;
    }
    struct typist_answer answer = typist_text(c->control->typist, text, strlen(text));
    char first[8] = "";
    g_unichar_to_utf8(answer.first, first);
    json_t *result = json_pack("{s:i, s:i, s:b}", "accepted", (int)answer.characters, "left_out",
                               (int)answer.left_out, "typing", typist_busy(c->control->typist));
    if (answer.left_out)
        json_object_set_new(result, "first_left_out", json_string(first));
    return result;
}

/* --- the pointer ---------------------------------------------------------------------------- */

static bool buttons_of(const json_t *list, unsigned *buttons, GError **error)
{
    static const struct {
        const char *name;
        enum pointer_button bit;
    } names[] = { { "left", BUTTON_LEFT }, { "middle", BUTTON_MIDDLE }, { "right", BUTTON_RIGHT } };
    size_t i;
    json_t *item;
    *buttons = 0;
    bool good = !list || json_is_array(list);
    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(item);
        unsigned bit = 0;
        for (size_t j = 0; name && j < G_N_ELEMENTS(names); j++)
            bit |= strcmp(names[j].name, name) ? 0 : names[j].bit;
        *buttons |= bit;
        good &= bit != 0;
    }
    return good || hv_fail(error, HV_USAGE, "buttons: a list of left, middle and right is wanted");
}

/* A number from `min` to `max`, 0 when it is left out. */
static bool number_of(const json_t *params, const char *field, int min, int max, int *to,
                      GError **error)
{
    const json_t *value = json_object_get(params, field);
    json_int_t number = json_integer_value(value);
    *to = (int)CLAMP(number, min, max);
    return (!value || (json_is_integer(value) && *to == number)) ||
           hv_fail(error, HV_USAGE, "%s: a number from %d to %d is wanted", field, min, max);
}

json_t *control_send_pointer(struct client *c, const json_t *params, GError **error)
{
    bool at = json_object_get(params, "x") || json_object_get(params, "y");
    const char *right = at ? "x" : "dx", *down = at ? "y" : "dy";
    int min = at ? 0 : -MOTION_MAX, max = at ? POINTER_RANGE : MOTION_MAX, x, y, wheel;
    unsigned buttons;
    if (!number_of(params, right, min, max, &x, error) ||
        !number_of(params, down, min, max, &y, error) ||
        !number_of(params, "wheel", -WHEEL_MAX, WHEEL_MAX, &wheel, error) ||
        !buttons_of(json_object_get(params, "buttons"), &buttons, error))
        return NULL;
    const GPtrArray *devices = machine_devices(c->control->machine);
    struct device *dev = inputs_choose(devices, at ? INPUT_POINTER_AT : INPUT_POINTER);
    if (!dev) {
        hv_fail(error, HV_WRONG_STATE,
                "%s: the guest takes no positions (it has no driver for virtio-tablet): dx and dy "
                "move its mouse",
                right);
        return NULL;
    }
    device_lock(dev);
    if (at)
        dev->class->input->pointer_at(dev, (unsigned)x, (unsigned)y, wheel, buttons);
    else
        dev->class->input->pointer(dev, x, y, wheel, buttons);
    device_unlock(dev);
    return json_object();
}
