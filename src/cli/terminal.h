/* The terminal as the machine's console: raw while the machine runs, restored afterwards. Ctrl-]
 * leads out: like SIGTERM, the first asks the guest to shut down and the second powers off. */
#pragma once

#include <stdbool.h>

struct terminal;

/* Starts reading stdin. `what` it is to the machine, for the message. */
struct terminal *terminal_open(const char *what);
/* What is typed, without the way out; the caller's to hand on. */
int terminal_input(struct terminal *terminal);
/* Restores the terminal; NULL is allowed. */
void terminal_close(struct terminal *terminal);

/* Bytes pass as they are; where hv itself also has `messages`, their \n still ends a line. */
void terminal_make_raw(int fd, bool messages);
