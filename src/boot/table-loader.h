/* The commands by which ACPI tables are placed in RAM and linked: QEMU's linker/loader interface,
 * as SeaBIOS src/fw/romfile_loader.h describes it. acpi.c writes them; a firmware carries them out,
 * or tables.c where there is none. */
#pragma once
#include <glib.h>
#include <stdint.h>

#define RSDP_FILE   "etc/acpi/rsdp"
#define TABLES_FILE "etc/acpi/tables"
#define LOADER_FILE "etc/table-loader"

enum { FILE_NAME = 56, ZONE_HIGH = 1, ZONE_FSEG = 2 };
enum { COMMAND_ALLOCATE = 1, COMMAND_POINTER = 2, COMMAND_CHECKSUM = 3 };
struct command {
    uint32_t command;
    union {
        uint8_t all[124]; /* first, so that an initialiser clears it */
        struct {
            char file[FILE_NAME];
            uint32_t align;
            uint8_t zone;
        } __attribute__((packed)) allocate;
        struct {
            char in[FILE_NAME], to[FILE_NAME];
            uint32_t offset;
            uint8_t size;
        } __attribute__((packed)) pointer;
        struct {
            char file[FILE_NAME];
            uint32_t offset, start, length;
        } __attribute__((packed)) checksum;
    };
} __attribute__((packed));
G_STATIC_ASSERT(sizeof(struct command) == 128);
