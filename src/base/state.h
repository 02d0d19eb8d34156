/* What is saved: one table of fields describes a struct and is walked for save and for load.
 *
 * A device keeps what its hardware holds in one inner struct and lists every byte of it here.
 * Types that cannot be saved (pointers, int, enum, double) do not compile. The file is hostile:
 * a field's `max` is checked on load. Wire form: version (u32), then the fields in table order,
 * all little-endian; a field newer than the file keeps its reset value. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum field_type {
    FIELD_END,
    FIELD_BOOL,
    FIELD_U8,
    FIELD_U16,
    FIELD_U32,
    FIELD_U64,
    FIELD_S64,
    FIELD_STRUCT, /* an array of structs with a table of their own */
    FIELD_PAD,    /* named padding: covered, not saved */
};

struct field {
    const char *name;
    enum field_type type;
    unsigned since; /* the version of the table that added it */
    size_t offset, width, count;
    uint64_t max;               /* load refuses more */
    const struct field *fields; /* of FIELD_STRUCT */
};

struct state {
    const char *name;
    unsigned version;
    size_t offset, size; /* of the saved struct inside the device */
    const struct field *fields;
};

/* The C type picks the wire type. */
#define STATE_WIRE(x)                                                                              \
    _Generic((x), bool                                                                             \
             : FIELD_BOOL, uint8_t                                                                 \
             : FIELD_U8, uint16_t                                                                  \
             : FIELD_U16, uint32_t                                                                 \
             : FIELD_U32, uint64_t                                                                 \
             : FIELD_U64, int64_t                                                                  \
             : FIELD_S64)
#define STATE_MEMBER(T, m) (((T *)0)->m)
#define STATE_COUNT(T, m)  (sizeof STATE_MEMBER(T, m) / sizeof STATE_MEMBER(T, m)[0])

#define SAVED_FIELD(T, m, since_, max_)                                                            \
    {                                                                                              \
        .name = #m, .type = STATE_WIRE(STATE_MEMBER(T, m)), .since = (since_),                     \
        .offset = offsetof(T, m), .width = sizeof STATE_MEMBER(T, m), .count = 1, .max = (max_)    \
    }
#define SAVED(T, m)           SAVED_FIELD(T, m, 1, UINT64_MAX)
#define SAVED_MAX(T, m, max_) SAVED_FIELD(T, m, 1, max_)
#define SAVED_ARRAY_MAX(T, m, max_)                                                                \
    {                                                                                              \
        .name = #m, .type = STATE_WIRE(STATE_MEMBER(T, m)[0]), .since = 1,                         \
        .offset = offsetof(T, m), .width = sizeof STATE_MEMBER(T, m)[0],                           \
        .count = STATE_COUNT(T, m), .max = (max_)                                                  \
    }
#define SAVED_ARRAY(T, m) SAVED_ARRAY_MAX(T, m, UINT64_MAX)
#define SAVED_STRUCTS(T, m, fields_)                                                               \
    {                                                                                              \
        .name = #m, .type = FIELD_STRUCT, .since = 1, .offset = offsetof(T, m),                    \
        .width = sizeof STATE_MEMBER(T, m)[0], .count = STATE_COUNT(T, m), .fields = (fields_)     \
    }
#define SAVED_PAD(T, m)                                                                            \
    {                                                                                              \
        .name = #m, .type = FIELD_PAD, .since = 1, .offset = offsetof(T, m), .width = 1,           \
        .count = sizeof STATE_MEMBER(T, m)                                                         \
    }
#define SAVED_END                                                                                  \
    {                                                                                              \
        .type = FIELD_END                                                                          \
    }

/* The state of device struct T, whose inner struct is its member regs_. */
#define STATE(T, regs_, version_, fields_)                                                         \
    {                                                                                              \
        .name = #T, .version = (version_), .offset = offsetof(T, regs_),                           \
        .size = sizeof STATE_MEMBER(T, regs_), .fields = (fields_)                                 \
    }

/* Appends the state of object (a device, a PCI function) to out. */
void state_save(const struct state *state, const void *object, GByteArray *out);

/* Takes it back from *in, advancing *in and *length. On failure the object is partly loaded and
 * must be thrown away or reset: a load goes into a fresh machine. */
bool state_load(const struct state *state, void *object, const uint8_t **in, size_t *length,
                GError **error);

/* The offset of the first byte of the inner struct that no field covers; state->size when none. */
size_t state_gap(const struct state *state);
