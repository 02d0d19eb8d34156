/* hv, the command: what its verbs share. One thread. */
#pragma once
#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

/* A verb: its name, and what runs with the arguments behind it; returns hv's exit status. */
struct verb {
    const char *name, *arguments, *help;
    int (*run)(int argc, char **argv);
};
extern const struct verb verbs[]; /* ends with a NULL name */

/* Prints how they are used, after `command`. */
void cli_list(const char *command, const struct verb *list);

int verb_run(int argc, char **argv);
int run_in_guest(int argc, char **argv); /* hv run ... -- COMMAND: test/guest-command.c */
int verb_list(int argc, char **argv);
int verb_info(int argc, char **argv);
int verb_stop(int argc, char **argv);
int verb_screen(int argc, char **argv);
int verb_send(int argc, char **argv);
int verb_open(int argc, char **argv);
int verb_eject(int argc, char **argv);
int verb_set(int argc, char **argv);
int verb_vsock(int argc, char **argv);
int verb_test(int argc, char **argv);
int verb_image(int argc, char **argv);
int verb_devices(int argc, char **argv);

/* Prints the error as "hv: ..." and gives its exit status; frees it. */
int cli_fail(GError *error);
/* Wrong use of a verb: the message and where to read more. Always HV_USAGE. */
int cli_usage(const char *verb, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Options of a verb that are flags or take a value; the rest are arguments. */
struct flag {
    const char *name; /* without the dashes */
    bool *on;
    const char **value; /* takes a value; else NULL */
    GPtrArray *values;  /* takes one each time that it is given; else NULL */
    char letter;        /* -j N or -jN means it, too; 0: there is none */
};
/* Takes options out of argv, leaving the arguments; returns how many, or -1 after a message. */
int cli_flags(const char *verb, int argc, char **argv, const struct flag *flags);

/* --- machines that run ---------------------------------------------------------------------- */

/* The directory with one directory for each machine: $XDG_RUNTIME_DIR/hv, or a private one. Made
 * when it is missing; NULL with an error when that fails. */
char *machines_dir(GError **error);
/* The names of the machines that run; the directories of dead ones are removed on the way. */
GPtrArray *machines_running(GError **error);

/* A connection to a machine's control socket. NAME may be left out (NULL) when just one runs. */
struct client;
struct client *client_open(const char *name, GError **error);
/* The same to the control socket of its hv-net; NULL with an error when it has none. */
struct client *client_open_network(const char *name, GError **error);
void client_close(struct client *client);
const char *client_name(const struct client *client);
/* Readable when there is something for client_event. */
int client_fd(const struct client *client);
/* Calls a method; takes over params (may be NULL). The result, or NULL with an error whose code is
 * the exit status. Events that come meanwhile are dropped. */
json_t *client_call(struct client *client, const char *method, json_t *params, GError **error);
/* The same with an open file beside the request; fd stays the caller's. */
json_t *client_pass(struct client *client, const char *method, json_t *params, int fd,
                    GError **error);
/* The next event, at most timeout_ms later (-1: for ever); NULL when none came or the machine
 * ended. */
json_t *client_event(struct client *client, int timeout_ms, bool *ended);

/* A connected display socket of a machine. -1 with an error. */
int display_connect(const char *name, GError **error);
/* A connection to the socket by which a machine's virtio-vsock is reached; NAME as above. */
int vsock_connect(const char *name, GError **error);

/* The path of another program of hv: beside this one, or in ../libexec/hv. */
char *program_path(const char *name);
/* Starts a program that gets those of the open descriptors. `quiet`: it outlives hv and has no use
 * for its terminal. 0 or a positive errno. */
int program_start(const char *program, char **argv, const int *fds, unsigned count, bool quiet);
/* Starts a window on the machine; takes over the display socket. Its pid, -1 with an error. */
int viewer_start(int display, const char *name, GError **error);
