/* qcow2 images under test: of many shapes, random histories of what a guest does to them beside a
 * model in memory, and qemu-img as a judge. */
#pragma once
#include "block/disk.h"
#include "block/qcow2.h"

#include <glib.h>

/* A folder for all files of a test, below another: IN_MEMORY, where flushes cost nothing. */
#define IN_MEMORY "/dev/shm"
void image_folder_make(const char *where);
void image_folder_drop(void);
char *image_path(const char *name); /* in it; to be freed */

/* --- a disk and its owner */

struct image_owner {
    GMutex lock;
    GCond cond;
    struct disk *disk;
    bool finished;
    int error;
};
void image_own(struct image_owner *owner, struct disk *disk);
/* Submits a request and waits for its end: 0 or a positive errno. */
int image_transfer(struct image_owner *owner, enum disk_op op, uint64_t offset, void *data,
                   uint64_t length);

struct disk *image_open_file(const char *path, bool readonly); /* raw.c's */
/* The image as a disk over `below`, which it owns; NULL with an error. */
struct disk *image_try_open(const char *path, bool readonly, struct disk *below, GError **error);
void image_open_disk(struct image_owner *owner, const char *path, bool readonly,
                     struct disk *below);

/* --- the judge */

/* Runs a command line; its exit status, and what it wrote when `output`. */
int image_run(char **output, const char *format, ...) G_GNUC_PRINTF(2, 3);
bool image_have_judge(void); /* qemu-img; else the test is skipped */
void image_judge(const char *path);
/* What qemu-img sees in an image must be the model. */
void image_compare(const char *path, const uint8_t *model, size_t size);
/* hv's own check: no corruptions, and no leaks either unless they are allowed. */
void image_check(const char *path, bool leaks_allowed);

/* --- shapes of images */

enum { HISTORY_DISK = 3 * 1024 * 1024 + 512 * 5, HISTORY_BELOW = 2 * 1024 * 1024 + 512 };

struct image_shape {
    const char *name;
    const char *options; /* of qemu-img; NULL: it is made here */
    struct qcow2_options made;
    bool below;
    bool packed; /* made from what is below, in compressed clusters */
};
extern const struct image_shape image_shapes[];
extern const size_t image_shape_count;

bool image_is_old(const struct image_shape *shape); /* version 2: has no dirty bit */

/* Sectors that say where they come from. */
void image_fill(uint8_t *to, size_t at, size_t length, unsigned round);

/* --- histories */

struct history {
    struct image_owner owner;
    GRand *rand;
    uint8_t *model, *data; /* what the guest should see; room for as much */
    char *path, *below;
    const struct image_shape *shape;
    size_t disk; /* bytes */
};

/* The image, with what it lies on or is made of; not open yet. `most`: bytes of the model. */
void history_start(struct history *history, const struct image_shape *shape, size_t most);
void history_end(struct history *history);
/* Makes the files anew. */
void history_prepare(struct history *history);
void history_close(struct history *history);
void history_reopen(struct history *history);
/* What lies below, opened; NULL: nothing. */
struct disk *history_below(const struct history *history);

/* A range of the disk. */
void history_pick(struct history *history, size_t *at, size_t *length);
void history_check_read(struct history *history, size_t at, size_t length);
/* What a discard left is for the disk to say, within what it may be: as before, or zeros, or, where
 * it never had zeros to offer, what is below. It must not change later. */
void history_learn_discard(struct history *history, size_t at, size_t length);
/* A random request, and what it must do. */
void history_step(struct history *history, unsigned round);
