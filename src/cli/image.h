/* hv image: what its verbs share. One thread. */
#pragma once
#include "block/chain.h"
#include "block/disk.h"

struct copy;
struct format;

/* An image that is open for a tool: the disk, and of its chain what is to be told. */
struct image {
    struct disk *disk;
    struct chain *chain;
};
/* The options that say how it is opened; `rules.machines` is seen to. */
bool image_start(struct image *image, const char *path, struct chain_rules rules, GError **error);
void image_end(struct image *image);

/* A new file for `path`: without a name, or, where that cannot be, under another, PATH.part-XXXXXX,
 * until it is complete. */
struct new_file {
    int fd;
    bool force;
    char *path, *temporary;
};
/* Unless `force`, there must be nothing at `path`. */
bool new_file_start(struct new_file *file, const char *path, bool force, GError **error);
/* Gives it its name, on stable storage. */
bool new_file_finish(struct new_file *file, GError **error);
void new_file_drop(struct new_file *file); /* after either; removes what is not finished */

/* A bar on the terminal for a copy; nothing when there is none. */
struct image_progress {
    unsigned shown; /* percent, and 1; 0: nothing yet */
};
void image_progress_start(struct image_progress *progress, struct copy *copy);
void image_progress_end(struct image_progress *progress);

/* A size such as 512M or 8G; a bare number means bytes. False with an error. */
bool image_size(const char *text, uint64_t *size, GError **error);
/* A size for people: "8 GiB", "1.4 MiB". */
char *image_size_text(uint64_t size);

/* The format of that name; NULL with an error. */
const struct format *image_format(const char *name, GError **error);

int image_info_verb(int argc, char **argv);
int image_map_verb(int argc, char **argv);
int image_create_verb(int argc, char **argv);
int image_convert_verb(int argc, char **argv);
int image_check_verb(int argc, char **argv);
int image_compact_verb(int argc, char **argv);
int image_commit_verb(int argc, char **argv);
int image_rebase_verb(int argc, char **argv);
int image_import_verb(int argc, char **argv);
int image_resize_verb(int argc, char **argv);
