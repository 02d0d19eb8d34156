/* The jobs of hv test: each does a script, or the command of hv test --kernel, once, in a process
 * of its own, so that several run at a time and none harms another. One thread. */
#pragma once
#include "test/result.h"
#include "test/script.h"

/* A script with the values of its matrix, or a command. */
struct plan {
    const struct source *source; /* NULL: it is a command */
    char **words;                /* of hv test --kernel, then; the caller's */
    GHashTable *values;          /* of the matrix and --set: char * to char * */
    char *title;                 /* with the values */
    char *label;                 /* names the folder of what it leaves behind */
    guint64 memory;              /* bytes, of all its machines */
};

struct jobs {
    GPtrArray *plans;   /* struct plan */
    unsigned repeat;    /* how often all of them; 0: until a step fails */
    unsigned parallel;  /* how many at a time, as far as the host's memory goes */
    bool until_fail;    /* the first failed step ends all */
    bool pictures;      /* at the end of each step */
    uint32_t seed;      /* of chance, in the first turn; 1 more in each that follows */
    const char *output; /* where their folders are */

    /* Told of each step, in the order of the plans whatever ends first. */
    void (*finished)(void *opaque, const char *test, const struct result *result);
    void *opaque;
    unsigned runs, failed; /* how many scripts were done, and failed */
};

/* `script` is what the source says with the values; `combination` is the matrix's part of them, for
 * people. The source is to outlive the plan. */
struct plan *plan_new(const struct source *source, const struct script *script, GHashTable *values,
                      const char *combination);
/* hv test --kernel with these words, which are right and outlive the plan. */
struct plan *plan_command(char **words, guint64 memory);
void plan_free(void *plan);
/* One more; its folder is its own even when another script's file has the same name. */
void plan_add(GPtrArray *plans, struct plan *plan);

/* Does them all; false when a signal ended that. */
bool jobs_run(struct jobs *jobs, GError **error);
