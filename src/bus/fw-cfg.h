/* The items that a firmware reads from the machine: the table behind the device fw-cfg.
 *
 * An item is bytes under a 16-bit key; a file is an item with a name, listed in the directory under
 * key FW_CFG_FILE_DIR (QEMU docs/specs/fw_cfg.rst). Filled by the machine before it starts and
 * never changed while it runs, so that reading takes no lock. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* Keys of that interface which have a meaning on a PC. */
enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_NB_CPUS = 0x05,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_FILES_MAX = 0x400,
    FW_CFG_NAME_MAX = 55, /* characters of a file's name */
};

struct fw_cfg;

/* A table with the signature, the interface's features and an empty directory. */
struct fw_cfg *fw_cfg_new(void);
void fw_cfg_free(struct fw_cfg *fw); /* NULL is allowed */

/* These take over the caller's reference to data. An item of the same key or name is replaced. */
void fw_cfg_add(struct fw_cfg *fw, uint16_t key, GBytes *data);
/* False (and data is dropped) when the name is empty, too long or not ASCII, or the directory is
 * full. Adding a file may move the keys of others: the directory is sorted by name. */
bool fw_cfg_add_file(struct fw_cfg *fw, const char *name, GBytes *data);
/* The integers of this interface are little-endian items of 2, 4 or 8 bytes. */
void fw_cfg_add_number(struct fw_cfg *fw, uint16_t key, uint64_t value, unsigned width);

/* The bytes, which belong to the table; NULL when there is no such item. */
GBytes *fw_cfg_find(const struct fw_cfg *fw, uint16_t key);
GBytes *fw_cfg_find_file(const struct fw_cfg *fw, const char *name);
