/* From a config to a machine: defaults, open files, the machine's directory, the hv-vmm process. */
#pragma once
#include "machine/config.h"

#include <sys/types.h>

struct launch;

/* Fills in what the user left open: the image's kind, memory, CPUs, the name. Opens nothing for
 * long. */
bool launch_resolve(struct config *config, GError **error);
/* The name that a machine's directory gives it; NULL with an error. */
char *launch_folder_name(const char *folder, GError **error);
/* Opens and locks everything, and makes the machine's directory and sockets. */
struct launch *launch_prepare(struct config *config, GError **error);
/* Starts hv-vmm and waits until it says that the machine runs: its pid, -1 with an error. */
pid_t launch_start(struct launch *launch, GError **error);
/* What the guest's messages and events call an image: its file name, as UTF-8. */
char *launch_shown_name(const char *path);
/* Gives the terminal back and closes files; the machine goes on. */
void launch_free(struct launch *launch);
