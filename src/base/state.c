/* Field tables, walked both ways; see state.h. The caller holds the lock of the object. */
#include "base/state.h"

#include "base/error.h"

#include <string.h>

static uint64_t get(const uint8_t *at, size_t width)
{
    uint64_t value = 0;
    memcpy(&value, at, width); /* the host is x86-64: little-endian as the file is */
    return value;
}

static void save_fields(const struct field *field, const uint8_t *base, GByteArray *out)
{
    for (; field->type != FIELD_END; field++) {
        const uint8_t *at = base + field->offset;
        if (field->type == FIELD_PAD)
            continue;
        if (field->type == FIELD_STRUCT)
            for (size_t i = 0; i < field->count; i++)
                save_fields(field->fields, at + i * field->width, out);
        else
            g_byte_array_append(out, at, (guint)(field->width * field->count));
    }
}

void state_save(const struct state *state, const void *object, GByteArray *out)
{
    uint32_t version = state->version;
    g_byte_array_append(out, (const uint8_t *)&version, sizeof version);
    if (state->fields)
        save_fields(state->fields, (const uint8_t *)object + state->offset, out);
}

static bool load_fields(const struct state *state, unsigned version, const struct field *field,
                        uint8_t *base, const uint8_t **in, size_t *length, GError **error)
{
    for (; field->type != FIELD_END; field++) {
        uint8_t *at = base + field->offset;
        if (field->type == FIELD_PAD || field->since > version)
            continue;
        if (field->type == FIELD_STRUCT) {
            for (size_t i = 0; i < field->count; i++)
                if (!load_fields(state, version, field->fields, at + i * field->width, in, length,
                                 error))
                    return false;
            continue;
        }
        size_t bytes = field->width * field->count;
        if (*length < bytes)
            return hv_fail(error, HV_FAILED, "saved state of %s ends inside %s", state->name,
                           field->name);
        uint64_t max = field->type == FIELD_BOOL ? 1 : field->max;
        for (size_t i = 0; i < field->count; i++)
            if (get(*in + i * field->width, field->width) > max)
                return hv_fail(error, HV_FAILED, "saved state of %s: %s is out of range",
                               state->name, field->name);
        memcpy(at, *in, bytes);
        *in += bytes;
        *length -= bytes;
    }
    return true;
}

bool state_load(const struct state *state, void *object, const uint8_t **in, size_t *length,
                GError **error)
{
    uint32_t version;
    if (*length < sizeof version)
        return hv_fail(error, HV_FAILED, "saved state ends before %s", state->name);
    memcpy(&version, *in, sizeof version);
    *in += sizeof version;
    *length -= sizeof version;
    if (version > state->version)
        return hv_fail(error, HV_FAILED,
                       "saved state of %s is version %u, this hv knows up to %u: use a newer hv",
                       state->name, version, state->version);
    if (!state->fields)
        return true;
    return load_fields(state, version, state->fields, (uint8_t *)object + state->offset, in, length,
                       error);
}

static void cover(const struct field *field, uint8_t *covered)
{
    for (; field->type != FIELD_END; field++) {
        if (field->type == FIELD_STRUCT)
            for (size_t i = 0; i < field->count; i++)
                cover(field->fields, covered + field->offset + i * field->width);
        else
            memset(covered + field->offset, 1, field->width * field->count);
    }
}

size_t state_gap(const struct state *state)
{
    g_autofree uint8_t *covered = g_malloc0(state->size + 1);
    if (state->fields)
        cover(state->fields, covered);
    size_t at = 0;
    while (at < state->size && covered[at])
        at++;
    return at;
}
