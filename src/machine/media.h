/* CDs and floppies that are changed while the machine runs: what the control socket says of them.
 */
#pragma once
#include "machine/machine.h"

/* {"drive": "cd" or "fd"}, preset is cd. */
bool media_eject(struct machine *machine, const json_t *params, GError **error);
/* Null ejects; a name, with an open file beside it, is put in. A file that is taken is -1 then. */
bool media_set(struct machine *machine, enum medium kind, const json_t *value, int *file,
               GError **error);
