/* vm.conf: the settings of a machine that has a directory, one on a line. A stranger may have
 * written it: it is text of bounded length that sets what config_settings has, and no more. */
#pragma once
#include "machine/config.h"

extern const char conf_name[]; /* "vm.conf" */

/* Adds the settings of a text to the config; relative paths start at `folder`. `name` is the text's
 * in errors, which have the line too. On one thread. */
bool conf_parse(struct config *config, const char *text, size_t length, const char *name,
                const char *folder, GError **error);
/* The same with the vm.conf of a directory. */
bool conf_load(struct config *config, const char *folder, GError **error);
