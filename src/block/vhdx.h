/* The parts of the reader of VHDX images. Numbers in brackets are sections of [MS-VHDX]. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct disk;
struct vhdx_log;

enum { GUID_SIZE = 16, VHDX_PAGE = 4096, VHDX_ALIGN = 1 << 20 };

/* Is the CRC-32C of `length` bytes that at `sum_at`, which counts as 0? */
bool vhdx_sum_fits(const uint8_t *bytes, size_t length, size_t sum_at);

/* The log of an image that was not closed, of `length` bytes at `at` in the file: what it would
 * write is kept. `file_end` is how long the file is. NULL with an error: nothing is known of what
 * the image should be. */
struct vhdx_log *vhdx_log_open(struct disk *file, const char *name, const uint8_t *guid,
                               uint64_t at, uint32_t length, uint64_t file_end, GError **error);
void vhdx_log_free(struct vhdx_log *log);
/* How long the file would be. */
uint64_t vhdx_log_end(const struct vhdx_log *log);
/* Makes a page of the file what it would be. */
void vhdx_log_patch(const struct vhdx_log *log, uint64_t at, uint8_t *page);
/* Would any of these bytes be written? */
bool vhdx_log_touches(const struct vhdx_log *log, uint64_t at, uint64_t length);
