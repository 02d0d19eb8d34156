/* A machine that is none: serves the display protocol with pictures of a test's choice and keeps
 * what the window sends. For tests of hv-view. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/display-protocol.h"
#include "bus/screen.h"

struct fake_machine {
    int socket; /* our end */
    int window; /* the window's end: for hv-view --fd */
    int frame;  /* memfd */
    uint32_t *pixels;
    uint32_t width, height;
    struct display_message last; /* received */
};

/* A connected pair with an empty frame of the largest size; nothing is sent yet. */
void fake_start(struct fake_machine *fake);
void fake_finish(struct fake_machine *fake);

void fake_hello(struct fake_machine *fake, const char *name);
void fake_mode(struct fake_machine *fake, uint32_t width, uint32_t height);
/* Fills a part of the picture; told to the window only by fake_damage. */
void fake_fill(struct fake_machine *fake, struct rectangle part, uint32_t colour);
void fake_damage(struct fake_machine *fake, struct rectangle part);
void fake_state(struct fake_machine *fake, enum display_state state, uint32_t lamps, uint32_t disk,
                const char *reason);
void fake_send(struct fake_machine *fake, const struct display_message *message);

/* Waits up to a while for a message of that kind whose `a` is as wanted, skipping others (printed
 * with their kind); it is in `last` then. */
bool fake_expect(struct fake_machine *fake, enum display_kind kind, uint32_t a);
/* True when nothing comes for that long. */
bool fake_quiet(struct fake_machine *fake, int ms);
