/* AML bytes; see aml.h. */
#include "boot/aml.h"

#include <string.h>

/* ACPI 6.4, 20.3: byte values. */
enum {
    ZERO_OP = 0x00,
    ONE_OP = 0x01,
    NAME_OP = 0x08,
    BYTE_PREFIX = 0x0a,
    WORD_PREFIX = 0x0b,
    DWORD_PREFIX = 0x0c,
    STRING_PREFIX = 0x0d,
    QWORD_PREFIX = 0x0e,
    SCOPE_OP = 0x10,
    BUFFER_OP = 0x11,
    DUAL_NAME_PREFIX = 0x2e,
    MULTI_NAME_PREFIX = 0x2f,
    EXT_OP_PREFIX = 0x5b,
    DEVICE_OP = 0x82, /* after the prefix */
    SEGMENT = 4,
    PACKAGE_LENGTH = 3, /* bytes we always take: 20 bits are enough for all we write */
    BUFFER_SIZE = 3,    /* a word constant */
};

/* 6.4.2 and 6.4.3: resource descriptors. */
enum {
    IRQ_NO_FLAGS = 0x22,
    DMA = 0x2a,
    IO_PORT = 0x47,
    END_TAG = 0x79,
    MEMORY32_FIXED = 0x86,
    DWORD_SPACE = 0x87,
    WORD_SPACE = 0x88,
    QWORD_SPACE = 0x8a,
    FIXED_RANGE = 0x0c, /* _MIF and _MAF: a producer whose ends do not move */
};

static void put(GByteArray *out, uint64_t value, unsigned width)
{
    for (unsigned i = 0; i < width; i++) {
        uint8_t byte = (uint8_t)(value >> 8 * i);
        g_byte_array_append(out, &byte, 1);
    }
}

static void put_path(GByteArray *out, const char *path)
{
    if (*path == '\\')
        put(out, (uint8_t)*path++, 1);
    g_auto(GStrv) parts = g_strsplit(path, ".", -1);
    unsigned count = g_strv_length(parts);
    if (count == 2) {
        put(out, DUAL_NAME_PREFIX, 1);
    } else if (count > 2) {
        put(out, MULTI_NAME_PREFIX, 1);
        put(out, count, 1);
    }
    for (unsigned i = 0; i < count; i++) {
        char segment[SEGMENT + 1] = "____";
        memcpy(segment, parts[i], MIN(strlen(parts[i]), SEGMENT));
        g_byte_array_append(out, (const uint8_t *)segment, SEGMENT);
    }
}

/* --- packages ------------------------------------------------------------------------------- */

static size_t open_package(GByteArray *out)
{
    size_t at = out->len;
    put(out, 0, PACKAGE_LENGTH);
    return at;
}

/* 20.2.4: four bits, and the count of further bytes, in the first byte. */
void aml_close(GByteArray *out, size_t package)
{
    size_t length = out->len - package;
    out->data[package] = (uint8_t)((PACKAGE_LENGTH - 1) << 6 | (length & 0x0f));
    out->data[package + 1] = (uint8_t)(length >> 4);
    out->data[package + 2] = (uint8_t)(length >> 12);
}

size_t aml_scope(GByteArray *out, const char *path)
{
    put(out, SCOPE_OP, 1);
    size_t at = open_package(out);
    put_path(out, path);
    return at;
}

size_t aml_device(GByteArray *out, const char *name)
{
    put(out, EXT_OP_PREFIX, 1);
    put(out, DEVICE_OP, 1);
    size_t at = open_package(out);
    put_path(out, name);
    return at;
}

/* --- names ---------------------------------------------------------------------------------- */

static void put_name(GByteArray *out, const char *name)
{
    put(out, NAME_OP, 1);
    put_path(out, name);
}

static void put_integer(GByteArray *out, uint64_t value)
{
    static const struct {
        uint64_t max;
        uint8_t prefix, width;
    } forms[] = {
        { UINT8_MAX, BYTE_PREFIX, 1 },
        { UINT16_MAX, WORD_PREFIX, 2 },
        { UINT32_MAX, DWORD_PREFIX, 4 },
        { UINT64_MAX, QWORD_PREFIX, 8 },
    };
    if (value <= 1) {
        put(out, value ? ONE_OP : ZERO_OP, 1);
        return;
    }
    unsigned i = 0;
    while (value > forms[i].max)
        i++;
    put(out, forms[i].prefix, 1);
    put(out, value, forms[i].width);
}

void aml_name_integer(GByteArray *out, const char *name, uint64_t value)
{
    put_name(out, name);
    put_integer(out, value);
}

void aml_name_string(GByteArray *out, const char *name, const char *value)
{
    put_name(out, name);
    put(out, STRING_PREFIX, 1);
    g_byte_array_append(out, (const uint8_t *)value, (guint)strlen(value) + 1);
}

/* 19.3.4, EISA IDs: three letters of five bits and four hexadecimal digits, big-endian. */
void aml_name_eisaid(GByteArray *out, const char *name, const char *id)
{
    uint32_t value = (uint32_t)(id[0] & 0x1f) << 26 | (uint32_t)(id[1] & 0x1f) << 21 |
                     (uint32_t)(id[2] & 0x1f) << 16 | (uint32_t)g_ascii_strtoull(id + 3, NULL, 16);
    put_name(out, name);
    put(out, DWORD_PREFIX, 1);
    put(out, GUINT32_SWAP_LE_BE(value), 4);
}

/* --- resources ------------------------------------------------------------------------------ */

size_t aml_crs(GByteArray *out)
{
    put_name(out, "_CRS");
    put(out, BUFFER_OP, 1);
    size_t at = open_package(out);
    put(out, WORD_PREFIX, BUFFER_SIZE);
    return at;
}

void aml_crs_close(GByteArray *out, size_t package)
{
    put(out, END_TAG, 1);
    put(out, 0, 1); /* checksum: not used */
    size_t size = out->len - package - PACKAGE_LENGTH - BUFFER_SIZE;
    out->data[package + PACKAGE_LENGTH + 1] = (uint8_t)size;
    out->data[package + PACKAGE_LENGTH + 2] = (uint8_t)(size >> 8);
    aml_close(out, package);
}

void aml_io(GByteArray *out, uint16_t base, uint8_t size)
{
    put(out, IO_PORT, 1);
    put(out, 1, 1); /* decodes 16 bits */
    put(out, base, 2);
    put(out, base, 2);
    put(out, 1, 1); /* alignment */
    put(out, size, 1);
}

void aml_irq(GByteArray *out, unsigned irq)
{
    put(out, IRQ_NO_FLAGS, 1);
    put(out, UINT64_C(1) << irq, 2);
}

void aml_dma8(GByteArray *out, unsigned channel)
{
    put(out, DMA, 1);
    put(out, UINT64_C(1) << channel, 1);
    put(out, 0, 1); /* compatible timing */
}

void aml_memory32(GByteArray *out, uint32_t base, uint32_t size)
{
    put(out, MEMORY32_FIXED, 1);
    put(out, 9, 2);
    put(out, AML_READ_WRITE, 1);
    put(out, base, 4);
    put(out, size, 4);
}

void aml_window(GByteArray *out, enum aml_window kind, unsigned width, uint8_t flags,
                uint64_t first, uint64_t last)
{
    put(out, width == 2 ? WORD_SPACE : width == 4 ? DWORD_SPACE : QWORD_SPACE, 1);
    put(out, 3 + 5 * width, 2);
    put(out, kind, 1);
    put(out, FIXED_RANGE, 1);
    put(out, flags, 1);
    put(out, 0, width); /* granularity */
    put(out, first, width);
    put(out, last, width);
    put(out, 0, width); /* translation */
    put(out, last - first + 1, width);
}
