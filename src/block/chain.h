/* An image with all files that it needs: its parts, and the images it lies on.
 *
 * hv opens all of them, by rules that keep an image from naming files that its user did not mean;
 * hv-vmm gets descriptors and formats, and makes the disk of them. Tools do both. */
#pragma once
#include <glib.h>
#include <stdbool.h>

struct disk;
struct format;

enum {
    CHAIN_DEPTH = 32,  /* images that lie on each other */
    CHAIN_FILES = 128, /* in all */
};

/* One file of it, and what hangs on that. */
struct chain {
    int fd;
    char *name;  /* for messages */
    char *path;  /* where hv found it; NULL in hv-vmm */
    char *named; /* as the image above it calls it; NULL: the user named it, or in hv-vmm */
    const struct format *format;
    bool readonly;
    bool remote;         /* fd is the socket of a disk on a server: block/remote.h */
    struct chain *below; /* NULL: none */
    GPtrArray *parts;    /* of struct chain */
    struct disk *disk;   /* from chain_disk on: what it became, owned by the disk above it */
};

struct chain_rules {
    bool readonly;            /* the image itself; what it lies on is */
    bool commits;             /* unless it is to be written as well */
    bool alone;               /* what it lies on is of no interest */
    const char *format;       /* what it is; NULL: what it looks like */
    const char *machines;     /* see image_lock */
    const GPtrArray *allowed; /* of char *: files that it may lie on wherever they are; or NULL */
    bool trusted;             /* may lie on any file, and need not say in which format that is */
    /* What it lies on and is no file, open already, and how it must call that; or NULL. Taken over
     * when it is used. */
    struct chain **ground;
    const char *ground_name;
};

/* Opens and locks all of it. NULL with an error that says what to do. */
struct chain *chain_open(const char *path, const struct chain_rules *rules, GError **error);

/* Would an image at `path` that lies on a file of that name get at it by itself? */
bool chain_reaches(const char *path, const char *name);

/* One file of a chain that others opened; it owns fd from then on. */
struct chain *chain_new(int fd, const char *name, const struct format *format, bool readonly);
void chain_free(struct chain *chain);
typedef struct chain image_chain; /* for g_autoptr */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(image_chain, chain_free)

/* Of the file and all that hang on it: a line for each identity (block/image.h). */
char *chain_identities(const struct chain *chain);

/* The disk. It takes the descriptors, also when it fails; the chain is still to be freed. */
struct disk *chain_disk(struct chain *chain, GError **error);
