/* An encoder for the little AML that a machine's settings need: scopes, devices, names with
 * constants, resource templates (ACPI 6.4, chapters 20 and 6.4). Appends to a byte array. Constant
 * input of ours only: names are four characters, or shorter and filled up with underscores. */
#pragma once
#include <glib.h>
#include <stddef.h>
#include <stdint.h>

/* These open a package; aml_close with what they returned ends it. */
size_t aml_scope(GByteArray *out, const char *path); /* "\\_SB.PCI0" */
size_t aml_device(GByteArray *out, const char *name);
size_t aml_crs(GByteArray *out); /* Name (_CRS, ResourceTemplate ()); ended by aml_crs_close */
void aml_close(GByteArray *out, size_t package);
void aml_crs_close(GByteArray *out, size_t package);

void aml_name_integer(GByteArray *out, const char *name, uint64_t value);
void aml_name_string(GByteArray *out, const char *name, const char *value);
void aml_name_eisaid(GByteArray *out, const char *name, const char *id); /* "PNP0501" */

/* Resources. */
void aml_io(GByteArray *out, uint16_t base, uint8_t size);
void aml_irq(GByteArray *out, unsigned irq);      /* edge, active high, exclusive */
void aml_dma8(GByteArray *out, unsigned channel); /* 8 bits, no bus master */
void aml_memory32(GByteArray *out, uint32_t base, uint32_t size);

/* What a bridge passes on, from `first` to `last`. */
enum aml_window { AML_WINDOW_MEMORY, AML_WINDOW_IO, AML_WINDOW_BUS };
enum { AML_READ_WRITE = 1, AML_CACHEABLE = 2, AML_ENTIRE_RANGE = 3 /* of I/O: ISA and not */ };
void aml_window(GByteArray *out, enum aml_window kind, unsigned width, uint8_t flags,
                uint64_t first, uint64_t last);
