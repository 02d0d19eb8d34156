/* One turn of hv test --kernel --repeat. */
#pragma once
#include "test/result.h"

/* Does what the words say. What it writes, and a kernel's log, go to files of the folder, which is
 * made. This process's standard output and error are those files then: it is to have nothing else
 * to say. */
struct result *command_run(char **words, const char *folder);
