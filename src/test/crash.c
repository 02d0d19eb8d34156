/* The crash watch; see crash.h. The messages are those of Linux 6.1 (kernel/panic.c, lib/bug.c,
 * mm/kasan, kernel/locking/lockdep.c, kernel/rcu/tree_stall.h), systemd, GRUB 2.06 and EDK2. */
#include "test/crash.h"

#include <glib.h>
#include <string.h>

const char *const crash_names[] = { "linux", "warn", "boot", "none", NULL };

bool crash_named(const char *name, unsigned *set)
{
    static const unsigned sets[] = { CRASH_LINUX | CRASH_BOOT,
                                     CRASH_LINUX | CRASH_WARN | CRASH_BOOT, CRASH_BOOT, 0 };
    for (unsigned i = 0; crash_names[i]; i++)
        if (!strcmp(crash_names[i], name)) {
            *set = sets[i];
            return true;
        }
    return false;
}

static const struct {
    const char *text;
    enum crash_set set;
} signs[] = {
    { "Kernel panic - not syncing", CRASH_LINUX },
    { "BUG: KASAN:", CRASH_LINUX },
    { "BUG: KFENCE:", CRASH_LINUX },
    { "BUG: unable to handle", CRASH_LINUX },
    { "BUG: kernel NULL pointer", CRASH_LINUX },
    { "BUG: soft lockup", CRASH_LINUX },
    { "kernel BUG at ", CRASH_LINUX },
    { "general protection fault", CRASH_LINUX },
    { "WARNING: possible circular locking dependency", CRASH_LINUX },
    { "WARNING: possible recursive locking", CRASH_LINUX },
    { "WARNING: inconsistent lock state", CRASH_LINUX },
    { "self-detected stall on CPU", CRASH_LINUX },
    { "detected stalls on CPUs/tasks", CRASH_LINUX },
    { "blocked for more than ", CRASH_LINUX },
    { "You are in emergency mode", CRASH_LINUX },
    { "does not exist.  Dropping to a shell!", CRASH_LINUX },   /* initramfs-tools, scripts/local */
    { "Entering emergency mode. Exit the shell", CRASH_LINUX }, /* dracut */
    { "WARNING: CPU: ", CRASH_WARN },
    { "grub rescue>", CRASH_BOOT },
    { "error: no such partition", CRASH_BOOT },
    { "!!!! X64 Exception Type", CRASH_BOOT },
    { "ASSERT_EFI_ERROR", CRASH_BOOT },
};

char *crash_find(const char *text, unsigned sets)
{
    for (size_t i = 0; i < G_N_ELEMENTS(signs); i++) {
        const char *at = signs[i].set & sets ? strstr(text, signs[i].text) : NULL;
        if (!at)
            continue;
        const char *line = at;
        while (line > text && line[-1] != '\n')
            line--;
        return g_strndup(line, strcspn(line, "\n"));
    }
    return NULL;
}
