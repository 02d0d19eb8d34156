/* The settings of a machine: one table for the options of `hv run`, the description that hv hands
 * to hv-vmm, and the help. One thread. */
#pragma once
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* What a drive can be at, and how many there can be: in all, on the chipset's controller, and
 * on that of floppy drives. */
enum drive_bus { DRIVE_AHCI, DRIVE_VIRTIO, DRIVE_NVME, DRIVE_FLOPPY, DRIVE_BUSES };
extern const char
    *const drive_bus_names[DRIVE_BUSES + 1]; /* as users write them; NULL-terminated */
enum { DRIVES_MAX = 16, AHCI_PORTS = 6, FLOPPY_DRIVES = 2 };

/* A drive as the user asked for it: FILE[,bus=ahci|virtio|nvme][,format=NAME][,backing=FILE]...
 * [,readonly][,OPTION=VALUE]...; a floppy drive without a floppy has the file "none". */
struct drive {
    char *file;
    char *bus;          /* of drive_bus_names; NULL: not yet decided */
    char *format;       /* of block/format.h; NULL: what the file looks like */
    char *options;      /* of its controller's class: OPTION=VALUE[,...]; NULL: none */
    char *zeroes;       /* detect-zeroes: off, on or unmap; NULL: off */
    GPtrArray *backing; /* of char *: files that it may lie on, besides those in its folder */
    bool readonly;
    bool cd;
};

typedef struct config settings; /* for g_autoptr */
struct config {
    char *name;
    char *image;     /* the positional argument: resolved into a drive by hv */
    char *folder;    /* the same, when it is a machine's directory */
    uint64_t memory; /* bytes */
    uint64_t cpus;
    char *cpu;        /* host,-feature,... */
    GPtrArray *disks; /* struct drive */
    GPtrArray *cdroms, *floppies;
    char *boot;         /* disk,cd */
    char *firmware;     /* "bios" or a file */
    char *kernel;       /* started without firmware; NULL: the firmware boots */
    GPtrArray *initrds; /* char *: FILE, with multiboot FILE ARGUMENTS */
    char *append;
    bool multiboot;
    bool headless, throwaway, trust_backing, hpet;
    uint64_t volatile_seed; /* of what a power cut loses; 0: it loses nothing */
    char *clock;            /* what the real-time clock shows at the start: cli/wall-clock.h; once
                             * resolved, by how many seconds that is ahead of UTC; NULL: UTC */
    char *net;              /* what the network card leads to: machine/nic.h */
    GPtrArray *publish;     /* char *: published ports, [ADDRESS:]HOST:GUEST[/udp] */
    char *serial;           /* stdio, pty, none or a file */
    char *serial2;          /* a file or none; NULL: none */
    char *console;          /* what leads there: "serial" or "virtio" */
    GPtrArray *devices;     /* char *: CLASS[,option=value]... */
    uint64_t cid;           /* of virtio-vsock; 0: from the name */
    char *layout;           /* of the guest's keyboard, for text; NULL: us */
    char *trace;            /* what to trace: exits,ports,mmio,CLASS...; NULL: nothing */
};

enum setting_kind {
    SETTING_STRING,
    SETTING_SIZE,
    SETTING_UINT,
    SETTING_BOOL,
    SETTING_DRIVE,
    SETTING_LIST
};

struct setting {
    const char *name; /* the long option and the JSON key */
    char letter;      /* the short option, or 0 */
    enum setting_kind kind;
    size_t offset;
    const char *value, *help; /* what --help prints */
    uint64_t min, max;
};
extern const struct setting config_settings[]; /* ends with a NULL name */

struct drive *drive_new(const char *file, bool cd); /* of a GPtrArray of drives, which frees it */
struct config *config_new(void);
void config_free(struct config *config);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(settings, config_free)

/* Sets one value, as a user writes it; lists and drives are added to. */
bool config_set(struct config *config, const struct setting *setting, const char *value,
                GError **error);

/* Appends OPTION=VALUE to a list of them. */
void config_add_option(char **options, const char *word);

/* The config as JSON (`hv run --dry-run` prints it, hv-vmm reads it), and back. */
json_t *config_to_json(const struct config *config);
struct config *config_from_json(const json_t *json, GError **error);
