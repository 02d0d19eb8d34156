/* Between control.c and the files with its methods. The machine's thread. */
#pragma once
#include "machine/control.h"

#include <jansson.h>

struct client;

/* A method: the result, or NULL and an error that names the parameter. */
typedef json_t *method(struct client *c, const json_t *params, GError **error);

enum { CONTROL_WATCHES = 8, CONTROL_WATCH_TEXT = 128 };

struct client {
    struct control *control;
    int fd; /* -1: free */
    guint in_source, out_source;
    GString *in, *out;
    int passed; /* the descriptor that came beside the request; -1: none */
    bool events;
    char *watches[CONTROL_WATCHES]; /* texts that the screen is watched for; NULL: none */
};

enum { CONTROL_CLIENTS = 16 };
struct control {
    struct machine *machine;
    struct display *display;
    struct typist *typist;
    int listener;
    struct client clients[CONTROL_CLIENTS];
    struct screen_reader *reader;
};

const char *control_state_word(const struct machine *machine);
/* Takes over the reference. The client may be gone after it (fd -1). */
void control_tell(struct client *c, json_t *json);

/* control-machine.c */
method control_info, control_cpus, control_stop, control_eject, control_set;
/* control-fault.c */
method control_fault;
/* control-screen.c */
method control_screen_text, control_screen_watch;
void control_forget_watches(struct client *c);
void control_screen_changed(void *control);
/* control-send.c */
method control_send_key, control_send_keys, control_send_text, control_send_pointer;
