/* OVF: the description of a machine that VirtualBox, VMware and others export (DMTF DSP0243: 1.1.1,
 * and 2.1 as far as it says the same). It is hostile. On one
 * thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct ovf_drive {
    char *file;        /* the name of a file beside the description; NULL: an empty disk */
    const char *bus;   /* of drive_bus_names; NULL: what suits the guest */
    uint64_t capacity; /* bytes of a disk, as the description says; 0: it does not */
    bool cd;
    bool packed_format; /* it is not a raw disk, by the description */
};

struct ovf {
    char *name;             /* as it stands there; any text, or empty */
    uint64_t cpus, memory;  /* bytes; 0: it does not say */
    GPtrArray *drives;      /* of struct ovf_drive, in the order of their places */
    bool nic;               /* there is a network card */
    const char *model;      /* of that, as in --net; NULL: what suits the guest */
    GPtrArray *differences; /* of char *: sentences on what will be different */
};

/* `name` is the text's, for errors. NULL with an error. */
struct ovf *ovf_parse(const char *text, size_t length, const char *name, GError **error);
void ovf_free(struct ovf *ovf);
typedef struct ovf ovf_machine; /* for g_autoptr */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ovf_machine, ovf_free)

/* How many bits a number is to be shifted to get bytes from units: "byte * 2^20" (DSP0004), or what
 * was written before that. False for others. */
bool ovf_unit_shift(const char *text, unsigned *shift);

/* The name of the file that a drive has in the machine's directory. */
char *ovf_drive_name(const struct ovf *ovf, guint drive);
/* The machine as a vm.conf. */
char *ovf_to_conf(const struct ovf *ovf);
